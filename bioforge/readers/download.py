"""Download input into a cache folder, and again only if it changed."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event, Timer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from bioforge import __version__
from bioforge.core.errors import InputError
from bioforge.core.files import private
from bioforge.core.text import duration
from bioforge.readers.sources import Source, check_expansion

if TYPE_CHECKING:
    from requests import RequestException, Response

_CHUNK = 1 << 18
_HINTS = {
    401: "it requires a login: put one for this host into ~/.netrc",
    403: "it requires a login or refuses programs: put a login for this host into ~/.netrc",
    404: "check the address in [input] path",
    410: "the file was removed: check the address in [input] path",
    429: "too many requests: run again later",
}


@dataclass(frozen=True, slots=True)
class Validators:
    """Values for a conditional request (ETag, Last-Modified)."""

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """The content of a URL as a file. `unchanged`: the server confirmed that the cached content is current."""

    url: str
    path: Path
    validators: Validators
    unchanged: bool

    @property
    def source(self) -> Source:
        return Source(shown(self.url), self.path)


def shown(url: str) -> str:
    """Return the address without user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise InputError(f"input {url!r} is not a URL: {error}", "check [input] path in the project file") from error
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def fetch(
    url: str, cache_dir: Path, known: Validators | None = None, timeout: float = 60.0, total: float = 3600.0
) -> Fetched:
    """Download `url` into `cache_dir`, conditionally if there are `known` validators and a cached file.

    The file is replaced only after a complete download. `timeout` is seconds without data, `total` those of the whole
    body. Raises `InputError` with status and hint.
    """
    import requests

    name = shown(url)
    path = cache_dir / _file_name(url)
    try:
        with requests.Session() as session:
            session.headers["User-Agent"] = f"bioforge/{__version__}"
            session.headers["Accept-Encoding"] = "gzip, deflate"
            session.hooks["response"].append(_check_redirect)
            response = session.get(url, headers=_conditions(known, path), timeout=timeout, stream=True)
            if response.status_code == 304 and not _is_kept(path):
                response.close()
                response = session.get(url, timeout=timeout, stream=True)
            with response:
                if response.status_code == 304 and _is_kept(path):
                    return Fetched(url, path, _validators(response, known or Validators()), unchanged=True)
                if response.status_code != 200:
                    raise _refusal(name, response)
                _keep(name, response, path, total)
                return Fetched(url, path, _validators(response, Validators()), unchanged=False)
    except requests.RequestException as error:
        raise _failure(name, error, timeout) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot keep {name} in {cache_dir}: {reason}", "free disk space, or check the permissions of this folder"
        ) from error


def _file_name(url: str) -> str:
    """Return a name that differs for different URLs, with the suffix of the URL's file name."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].lstrip(".-")
    return f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{safe or 'input'}"


def _is_kept(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _conditions(known: Validators | None, path: Path) -> dict[str, str]:
    if known is None or not _is_kept(path):
        return {}
    given = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in given.items() if value}


def _validators(response: Response, before: Validators) -> Validators:
    headers = response.headers
    return Validators(headers.get("ETag", before.etag), headers.get("Last-Modified", before.last_modified))


def _keep(name: str, response: Response, path: Path, total: float) -> None:
    """Write the body to a temporary file, and move it to `path` when it is complete."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb", opener=private) as stream:
            with _deadline(name, response, total):
                for chunk in response.iter_content(_CHUNK):
                    stream.write(chunk)
                    check_expansion(name, response.raw.tell(), stream.tell())
            stream.flush()
            os.fsync(stream.fileno())  # later runs trust this file without downloading it again
        _check_complete(name, response, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _deadline(name: str, response: Response, seconds: float) -> Iterator[None]:
    """Raise `InputError` if the body is not complete in time, however slowly it arrives."""
    late = Event()

    def end() -> None:
        late.set()
        with suppress(OSError, RuntimeError, ValueError):  # complete just now
            response.raw.shutdown()

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():  # a body of unknown length seems complete
            raise InputError(
                f"{name} did not arrive within {duration(seconds)}", "download it yourself, and name the file"
            )


def _check_redirect(response: Response, *args: Any, **kwargs: Any) -> None:
    """Raise `InputError` for a redirect to an address that is nearer to this machine than the one that sent it."""
    if not response.is_redirect:
        return
    target = urljoin(response.url, response.headers["location"])
    if _nearness(target) > _nearness(response.url):
        raise InputError(
            f"{shown(response.url)} redirects to {shown(target)}, which is not a public address",
            "if that is right, write this address in [input] path",
        )


def _nearness(url: str) -> int:
    """Return 2 for an address of this machine or link, 1 for a private network, 0 for others and unknown names."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None)
    except (OSError, UnicodeError, ValueError):
        return 0
    nearest = 0
    for *_, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        here = address.is_loopback or address.is_link_local or address.is_unspecified
        nearest = max(nearest, 2 if here else int(not address.is_global))
    return nearest


def _check_complete(name: str, response: Response, part: Path) -> None:
    expected = response.headers.get("Content-Length", "")
    received = response.raw.tell()  # encoded bytes, like Content-Length
    if expected.isdigit() and received != int(expected):
        raise _truncated(name, f"{received:,} of {int(expected):,} bytes arrived")
    if part.stat().st_size == 0:
        raise InputError(f"{name} is empty", "the server sent no content: check the address in [input] path")
    if "text/html" in response.headers.get("Content-Type", "").lower():
        with part.open("rb") as stream:
            if stream.read(1000).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
                raise InputError(
                    f"{name} is a web page, not data", "use the address of the file itself (on GitHub: its Raw link)"
                )


def _truncated(name: str, detail: str) -> InputError:
    return InputError(
        f"{name} arrived incomplete: {detail}", "run again; the file from the previous download is unchanged"
    )


def _refusal(name: str, response: Response) -> InputError:
    status = response.status_code
    hint = _HINTS.get(status, "check the address in [input] path")
    if status >= 500:
        hint = "the server has a problem: run again later"
    return InputError(f"{name} answered {status} {response.reason or ''}".rstrip(), hint)


def _failure(name: str, error: RequestException, timeout: float) -> InputError:
    from requests import exceptions

    again = "check the address in [input] path and the network, then run again"
    match error:
        case exceptions.Timeout():
            return InputError(f"{name} did not answer within {timeout:g} s", "run again later")
        case exceptions.SSLError():
            return InputError(f"{name} has a certificate that this machine does not trust", again)
        case exceptions.TooManyRedirects():
            return InputError(f"{name} redirects in a loop", again)
        case exceptions.ChunkedEncodingError() | exceptions.ContentDecodingError():
            return _truncated(name, _root_reason(error))
        case exceptions.ConnectionError():
            return InputError(f"{name} cannot be reached: {_root_reason(error)}", again)
        case _:
            return InputError(f"{name} cannot be fetched: {type(error).__name__}", again)


def _root_reason(error: BaseException) -> str:
    """Return the operating system's message; the errors that wrap it contain the URL with its secrets."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return "the connection was closed"
