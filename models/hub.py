"""The hub over HTTP, in the process that pulls: listings, the bytes of files, and its errors as sentences.

huggingface_hub provides the client, its headers, the addresses and the listing. Bytes are requested here, because
the library can neither resume where another process stopped nor check what it received. The token is sent to the
hub's own address and to no other.
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

from models.errors import PullError
from models.hub_cache import COMMIT, FileFacts
from models.pull import AGAIN, RepoRevision

MAX_REDIRECTS = 8
MAX_RETRY_AFTER_S = 60.0
NETWORK_ERRORS = (httpx2.TransportError, httpx2.TooManyRedirects, OSError)


class HubError(PullError):
    """A failure that may pass. `retry_after_s` is the wait that the hub asked for, if it did."""

    retry_after_s: float | None = None


class Hub:
    """One endpoint, with one timeout for every request."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout = httpx2.Timeout(timeout_s)
        self._timeout_s = timeout_s
        self._headers = build_hf_headers(library_name="slipstream") | {"Accept-Encoding": "identity"}
        self._origin = _origin(constants.ENDPOINT)
        self.host = urlsplit(constants.ENDPOINT).netloc

    def listing(self, source: RepoRevision) -> tuple[str, dict[str, FileFacts]]:
        """The commit that a revision means, and its files. Raises PullError."""
        try:
            info = HfApi().model_info(
                source.repo, revision=source.revision, files_metadata=True, timeout=self._timeout_s
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
            self._refuse(error.response, source)
        except NETWORK_ERRORS as error:
            raise self._network_error(error) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"{self.host} sent a listing of {source.repo} that cannot be read ({str(error)[:120]})."
            raise PullError("content", f"{problem} Nothing was pulled.") from None
        if not COMMIT.fullmatch(info.sha or ""):
            raise PullError("content", f"{self.host} names no commit of {source.repo}. Nothing was pulled.")
        for name in facts:
            if _is_evil(name):
                raise PullError(
                    "content", f"{source.repo} lists a file named {name[:80]!r}, which leads out of its folder. "
                    "Nothing was pulled; do not use this repository."
                )  # fmt: skip
        assert info.sha is not None
        return info.sha, facts

    @contextmanager
    def content(
        self, source: RepoRevision, commit: str, name: str, start: int
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """(offset of the first byte, bytes): a file from `start` on, or from 0 if the server ignores ranges.

        Raises PullError, also from the iterator.
        """
        try:
            response = self._open(hf_hub_url(source.repo, name, revision=commit), start)
            try:
                if response.status_code == 416:
                    yield 0, iter(())
                    return
                if response.status_code not in (200, 206):
                    self._refuse(response, source)
                self._check_part(response, name, start)
                yield (start if response.status_code == 206 else 0), response.iter_raw()
            finally:
                response.close()
        except httpx2.TransportError as error:
            raise self._network_error(error) from None

    def _check_part(self, response: httpx2.Response, name: str, start: int) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise PullError("content", f"{self.host} sent {name} in an encoding that was not requested. {AGAIN}")
        part = response.headers.get("Content-Range", "")
        if response.status_code == 206 and not part.startswith(f"bytes {start}-"):
            raise PullError("server", f"{self.host} sent another part of {name} than was requested. {AGAIN}")

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
            target = urljoin(url, response.headers["Location"])
            if urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
                raise PullError(
                    "content",
                    f"{self.host} redirects to {urlsplit(target).scheme!r}, which is not allowed.",
                )
            url = target
        raise PullError("server", f"{self.host} redirects endlessly. Pull again later.")

    def _refuse(self, response: httpx2.Response, source: RepoRevision) -> NoReturn:
        """Raise the error that an HTTP status means."""
        repo = source.repo
        status, code = response.status_code, response.headers.get("X-Error-Code")
        page = f"{constants.ENDPOINT}/{repo}"
        if code == "GatedRepo":
            problem = f"{repo} requires you to accept its licence."
            advice = f"Do that at {page}, sign in here with `hf auth login`, and pull again."
            raise PullError("gated", f"{problem} {advice}") from None
        if status == 401 and "Authorization" in response.headers.get("X-Error-Message", ""):
            advice = "Sign in again with `hf auth login`, and pull again."
            raise PullError("private", f"{self.host} does not accept this machine's token. {advice}") from None
        if status == 401:
            advice = "Check the name; if it is private, sign in with `hf auth login`."
            raise PullError("private", f"{repo} does not exist, or is private. {advice}") from None
        if status == 403:
            problem = f"Your account or token may not read {repo}."
            raise PullError("private", f"{problem} Ask its owner, or see {page}.") from None
        if code == "RevisionNotFound":
            problem = f"{repo} has no revision {source.revision or 'main'!r}."
            raise PullError("missing", f"{problem} See {page}/commits for its revisions.") from None
        if status == 404:
            raise PullError(
                "missing", f"{self.host} has no such file or repository: {repo}. Check the name."
            ) from None
        if status == 407:
            problem = f"The proxy requires a sign-in for {self.host}."
            raise PullError("network", f"{problem} Check HTTP_PROXY and HTTPS_PROXY. {AGAIN}") from None
        if status == 429:
            raise _temporary("busy", f"{self.host} gets too many requests. Wait a few minutes. {AGAIN}", response)
        if status >= 500:
            raise _temporary("server", f"{self.host} has an internal problem (status {status}). {AGAIN}", response)
        raise PullError("server", f"{self.host} answered with the unexpected status {status}. {AGAIN}") from None

    def _network_error(self, error: Exception) -> HubError:
        """The error for a failed connection."""
        causes, host = list(_causes(error)), self._host_of(error)
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            problem = f"{host} cannot be found. Check that this machine is online and can resolve names."
        elif any(isinstance(cause, ssl.SSLError) for cause in causes):
            problem = f"The connection to {host} is not secure (TLS). Check the clock, proxy and certificates."
        elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            problem = f"{host} refuses connections. Check HF_ENDPOINT and any proxy."
        elif isinstance(error, httpx2.ProxyError):
            problem = f"The proxy refuses to connect to {host}. Check HTTPS_PROXY."
        elif isinstance(error, httpx2.TimeoutException):
            problem = f"{host} sent nothing for {self._timeout_s:g} s. Check the connection."
        else:
            problem = f"The connection to {host} broke off. Check the connection."
        return HubError("network", f"{problem} {AGAIN}")

    def _host_of(self, error: Exception) -> str:
        """The host that failed: large files come from another one than the listing."""
        try:
            return (
                error.request.url.netloc.decode("ascii") if isinstance(error, httpx2.RequestError) else self.host
            )
        except RuntimeError:  # it failed before there was a request
            return self.host


def _temporary(reason: str, message: str, response: httpx2.Response) -> HubError:
    error = HubError("busy" if reason == "busy" else "server", message)
    wait = response.headers.get("Retry-After", "")
    error.retry_after_s = min(float(wait), MAX_RETRY_AFTER_S) if wait.isdecimal() else None
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
