#!/usr/bin/env bash
# openai 7.59.0 for Node and openai 3.57.0 for Python, helpers for streamed chat completions: what becomes of a text that
# comes in pieces in a field that OpenAI's API does not have, such as the thoughts in `reasoning_content` of local servers.
#
# Expected: both helpers join the pieces of such a field as they join those of `content`, or both leave the field out.
# Seen: Python's final message has "Let me see."; Node's has "see.", the last piece alone, without an error. `content` is
# whole in both. So an agent over the Node helper loses the thoughts, and one over the Python helper does not.
# Fails if Node's helper joins them, or Python's no longer does.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
cat >server.mjs <<'SERVER'
import http from "node:http";
import fs from "node:fs";

const chunk = (delta, finish_reason = null) => ({
  id: "1", object: "chat.completion.chunk", created: 1, model: "any", choices: [{ index: 0, delta, finish_reason }],
});
const chunks = [
  chunk({ role: "assistant", content: "" }),
  chunk({ reasoning_content: "Let me " }),
  chunk({ reasoning_content: "see." }),
  chunk({ content: "It is " }),
  chunk({ content: "four." }),
  chunk({}, "stop"),
];
const server = http.createServer((request, response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const each of chunks) response.write(`data: ${JSON.stringify(each)}\n\n`);
  response.end("data: [DONE]\n\n");
});
server.listen(0, "127.0.0.1", () => fs.writeFileSync("port", String(server.address().port)));
SERVER
cat >client.mjs <<'CLIENT'
import fs from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `http://127.0.0.1:${fs.readFileSync("port")}/v1`, apiKey: "none" });
const stream = client.chat.completions.stream({ model: "any", messages: [{ role: "user", content: "2 + 2?" }] });
const { message } = (await stream.finalChatCompletion()).choices[0];
console.log(JSON.stringify([message.reasoning_content, message.content]));
CLIENT
cat >client.py <<'CLIENT'
import json
import openai

client = openai.OpenAI(base_url=f"http://127.0.0.1:{open('port').read()}/v1", api_key="none")
with client.chat.completions.stream(model="any", messages=[{"role": "user", "content": "2 + 2?"}]) as stream:
    message = stream.get_final_completion().choices[0].message
print(json.dumps([message.model_extra["reasoning_content"], message.content]))
CLIENT
npm install --silent --no-audit --no-fund openai@7.59.0
python3 -m venv venv
venv/bin/pip install --quiet openai==3.57.0
node server.mjs &
server=$!
until [ -s port ]; do kill -0 "$server"; done
node_saw=$(env -u http_proxy -u HTTP_PROXY node client.mjs)
python_saw=$(NO_PROXY=127.0.0.1 venv/bin/python client.py)
echo "Node:   $node_saw"
echo "Python: $python_saw"
[ "$node_saw" = '["see.","It is four."]' ] || { echo "Node's helper keeps more than the last piece now"; exit 1; }
[ "$python_saw" = '["Let me see.", "It is four."]' ] || { echo "Python's helper no longer joins the pieces"; exit 1; }
