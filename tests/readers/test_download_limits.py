"""Input from servers that mean harm: redirects into private networks, decompression bombs, bodies without end."""

from __future__ import annotations

import gzip
import io
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
import responses

from bioforge.core.errors import InputError
from bioforge.readers.download import fetch
from bioforge.readers.jsonl import jsonl_reader
from bioforge.readers.sources import Source

MEGABYTES = 200
"""Size of a bomb when it is decompressed."""


@pytest.fixture(scope="module")
def bomb() -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as stream:
        for _ in range(MEGABYTES):
            stream.write(b" " * (1 << 20))
    return packed.getvalue()


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/artists.csv"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:8080/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://inside.example/",
    ],
)
def test_redirects_into_private_networks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with responses.RequestsMock(assert_all_requests_are_fired=False) as web:
        web.get("https://museum.example/a.csv", status=302, headers={"Location": target})
        inside = web.get(target, body="artist_name\nx\n")
        with pytest.raises(InputError, match="not a public address"):
            fetch("https://museum.example/a.csv", tmp_path)
        assert inside.call_count == 0


@pytest.mark.parametrize(
    ("start", "target"),
    [
        ("https://museum.example/a.csv", "https://other.example/a.csv"),
        ("http://127.0.0.1:1/a.csv", "http://127.0.0.1:2/a.csv"),
        ("http://10.0.0.1/a.csv", "http://10.0.0.2/a.csv"),
    ],
)
def test_other_redirects_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, target: str) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with responses.RequestsMock() as web:
        web.get(start, status=302, headers={"Location": target})
        web.get(target, body="artist_name\nx\n")
        assert fetch(start, tmp_path).path.read_text() == "artist_name\nx\n"


def resolve(host: str, port: object, *options: object, **more: object) -> list[tuple[object, ...]]:
    names = {"museum.example": "93.184.216.34", "other.example": "93.184.216.35", "inside.example": "10.1.2.3"}
    address = names.get(host, host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return [(family, socket.SOCK_STREAM, 6, "", (address, 0))]


def test_a_compressed_body_that_explodes_is_refused(tmp_path: Path, bomb: bytes) -> None:
    def explode(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(bomb)))
        request.end_headers()
        request.wfile.write(bomb)

    with serving(explode) as url, pytest.raises(InputError, match="grows more than 200 times"):
        fetch(url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_compressed_file_that_explodes_is_refused(tmp_path: Path, bomb: bytes) -> None:
    path = tmp_path / "artists.jsonl.gz"
    path.write_bytes(bomb)
    with Source(path.name, path).open() as stream, pytest.raises(InputError, match="grows more than 200 times"):
        list(jsonl_reader(stream, path.name, {}))


def test_a_body_without_end_has_a_total_time(tmp_path: Path) -> None:
    done = Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not done.wait(0.01):
                request.wfile.write(b"x")
        except OSError:
            return

    with serving(drip) as url:
        try:
            with pytest.raises(InputError, match="did not arrive within"):
                fetch(url, tmp_path, total=0.3)
        finally:
            done.set()
    assert list(tmp_path.iterdir()) == []
