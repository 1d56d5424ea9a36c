"""The hub over HTTP, in the download's process: what a revision is, the bytes of a file, and errors in words.

huggingface_hub gives the client, its headers, the addresses and the listing. Bytes are asked for here, because the
library can neither go on where another process stopped nor check what it got. The token goes to the hub's own
address and to no other.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import httpx2
import msgspec
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

from models.download import AGAIN, Wanted
from models.errors import PullError
from models.hub_cache import COMMIT, FileFacts

MAX_REDIRECTS = 8
MAX_RETRY_AFTER_S = 60.0
NETWORK_ERRORS = (httpx2.TransportError, httpx2.TooManyRedirects, OSError)


class HubError(PullError):
    """A PullError that may pass: `retry_after_s` is what the hub asked for, if it asked."""

    retry_after_s: float | None = None


class Hub:
    """One endpoint and one patience."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout = httpx2.Timeout(timeout_s)
        self._timeout_s = timeout_s
        self._headers = build_hf_headers(library_name="slipstream") | {"Accept-Encoding": "identity"}
        self._origin = _origin(constants.ENDPOINT)
        self.host = urlsplit(constants.ENDPOINT).netloc

    def listing(self, wanted: Wanted) -> tuple[str, dict[str, FileFacts]]:
        """The commit that a revision means, and its files. Raises PullError."""
        try:
            info = HfApi().model_info(
                wanted.repo, revision=wanted.revision, files_metadata=True, timeout=self._timeout_s
            )
            files = {
                file.rfilename: {
                    "size": file.lfs.size if file.lfs else file.size,
                    "blob_id": file.blob_id,
                    **({"lfs_sha256": file.lfs.sha256, "lfs_size": file.lfs.size} if file.lfs else {}),
                }
                for file in info.siblings or ()
            }
            facts = msgspec.convert(files, dict[str, FileFacts])
        except HfHubHTTPError as error:
            self._refuse(error.response, wanted)
        except NETWORK_ERRORS as error:
            raise self._network_error(error) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            words = f"{self.host} gave a listing of {wanted.repo} that cannot be read ({str(error)[:120]})."
            raise PullError("content", f"{words} Nothing was fetched.") from None
        if not COMMIT.fullmatch(info.sha or ""):
            raise PullError("content", f"{self.host} names no commit of {wanted.repo}. Nothing was fetched.")
        for name in facts:
            if _is_evil(name):
                raise PullError(
                    "content", f"{wanted.repo} lists a file named {name[:80]!r}, which leads out of its folder. "
                    "Nothing was fetched; do not use this repository."
                )  # fmt: skip
        assert info.sha is not None
        return info.sha, facts

    @contextmanager
    def content(self, wanted: Wanted, commit: str, name: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """(from where, bytes): a file from `start` on, or from its beginning if the server knows no ranges.

        Raises PullError, also from the iterator.
        """
        try:
            response = self._open(hf_hub_url(wanted.repo, name, revision=commit), start)
            try:
                if response.status_code == 416:
                    yield 0, iter(())
                    return
                if response.status_code not in (200, 206):
                    self._refuse(response, wanted)
                self._check_part(response, name, start)
                yield (start if response.status_code == 206 else 0), response.iter_raw()
            finally:
                response.close()
        except httpx2.TransportError as error:
            raise self._network_error(error) from None

    def _check_part(self, response: httpx2.Response, name: str, start: int) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise PullError("content", f"{self.host} sent {name} in an encoding that nobody asked for. {AGAIN}")
        part = response.headers.get("Content-Range", "")
        if response.status_code == 206 and not part.startswith(f"bytes {start}-"):
            raise PullError("server", f"{self.host} sent another part of {name} than was asked for. {AGAIN}")

    def _open(self, url: str, start: int) -> httpx2.Response:
        client, headers = get_session(), dict(self._headers)
        if start:
            headers["Range"] = f"bytes={start}-"
        for _ in range(MAX_REDIRECTS):
            if _origin(url) != self._origin:
                headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
            request = client.build_request("GET", url, headers=headers, timeout=self._timeout)
            response = client.send(request, stream=True, follow_redirects=False)
            if not response.has_redirect_location:
                return response
            response.close()
            onward = urljoin(url, response.headers["Location"])
            if urlsplit(onward).scheme not in ("https", urlsplit(url).scheme):
                raise PullError(
                    "content", f"{self.host} redirects to {urlsplit(onward).scheme!r}, which is refused."
                )
            url = onward
        raise PullError("server", f"{self.host} redirects without end. Pull again later.")

    def _refuse(self, response: httpx2.Response, wanted: Wanted) -> NoReturn:
        """Raise what an HTTP status means here."""
        repo = wanted.repo
        status, code = response.status_code, response.headers.get("X-Error-Code")
        page = f"{constants.ENDPOINT}/{repo}"
        if code == "GatedRepo":
            words = (
                f"{repo} asks for its licence to be accepted. Do that at {page}, sign in here with `hf auth login`"
            )
            raise PullError("gated", f"{words}, and pull again.") from None
        if status == 401 and "Authorization" in response.headers.get("X-Error-Message", ""):
            words = "does not accept this machine's token. Sign in again with `hf auth login`, and pull again."
            raise PullError("private", f"{self.host} {words}") from None
        if status == 401:
            words = (
                f"{repo} does not exist, or is private. Check the name; if it is private, `hf auth login` first."
            )
            raise PullError("private", words) from None
        if status == 403:
            words = f"Your account or token may not read {repo}. Ask its owner, or see {page}."
            raise PullError("private", words) from None
        if code == "RevisionNotFound":
            words = f"{repo} has no revision {wanted.revision or 'main'!r}. {page}/commits lists those it has."
            raise PullError("missing", words) from None
        if status == 404:
            raise PullError(
                "missing", f"{self.host} has no such file or repository: {repo}. Check the name."
            ) from None
        if status == 407:
            words = f"The proxy wants a sign-in before it lets through to {self.host}."
            raise PullError("network", f"{words} Check HTTP_PROXY and HTTPS_PROXY. {AGAIN}") from None
        if status == 429:
            raise _passing("busy", f"{self.host} has had too many requests. Wait some minutes. {AGAIN}", response)
        if status >= 500:
            raise _passing("server", f"{self.host} is in trouble (status {status}). {AGAIN}", response)
        raise PullError("server", f"{self.host} answered {status}, which was not expected. {AGAIN}") from None

    def _network_error(self, error: Exception) -> HubError:
        """What a broken connection means, in a sentence of its own."""
        causes, host = list(_causes(error)), self._host_of(error)
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            words = f"{host} cannot be found. Is this machine online, and its name server well?"
        elif any(isinstance(cause, ssl.SSLError) for cause in causes):
            words = f"The connection to {host} is not secure (TLS). Check the clock, proxy and certificates."
        elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            words = f"{host} refuses connections. Check HF_ENDPOINT and any proxy."
        elif isinstance(error, httpx2.ProxyError):
            words = f"The proxy does not let through to {host}. Check HTTPS_PROXY."
        elif isinstance(error, httpx2.TimeoutException):
            words = f"{host} was silent for {self._timeout_s:g} s. Check the connection."
        else:
            words = f"The connection to {host} broke off. Check the connection."
        return HubError("network", f"{words} {AGAIN}")

    def _host_of(self, error: Exception) -> str:
        """Whom the error is about: large files come from another host than the listing."""
        try:
            return (
                error.request.url.netloc.decode("ascii") if isinstance(error, httpx2.RequestError) else self.host
            )
        except RuntimeError:  # it broke before there was a request
            return self.host


def _passing(reason: str, message: str, response: httpx2.Response) -> HubError:
    error = HubError("busy" if reason == "busy" else "server", message)
    asked = response.headers.get("Retry-After", "")
    error.retry_after_s = min(float(asked), MAX_RETRY_AFTER_S) if asked.isdecimal() else None
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_evil(name: str) -> bool:
    parts = name.split("/")
    return (
        "\\" in name or not name.isprintable() or any(part in ("", ".", "..") for part in parts) or ":" in parts[0]
    )
