"""A receiver on loopback that keeps posts and sends configured answers."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Mapping[str, str], bytes] | int | None
"""Status, headers, content; a status alone; or None, which closes the connection without an answer."""


@dataclass(frozen=True)
class Post:
    """A received request; header names are in lower case."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def records(self) -> list[dict[str, Any]]:
        found = json.loads(self.body)
        return found if isinstance(found, list) else [found]

    @property
    def artists(self) -> list[str]:
        return [record["artist_id"] for record in self.records]


class _Quiet(ThreadingHTTPServer):
    """A server that ignores broken connections of killed clients."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Receiver:
    """A receiver that calls `answer` with each post and sends the answer it returns, 204 by default."""

    def __init__(self, answer: Callable[[Post], Answer] = lambda post: 204) -> None:
        self.answer = answer
        self.posts: list[Post] = []
        self.taken: list[Post] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                receiver._receive(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hooks/bios"

    @property
    def delivered(self) -> list[str]:
        """The accepted artist ids, sorted and with repeats."""
        return sorted(name for post in self.taken for name in post.artists)

    def duplicates(self) -> dict[str, int]:
        """Return how often each delivery id was accepted, for those accepted more than once."""
        times = Counter(record["delivery_id"] for post in self.taken for record in post.records)
        return {identifier: number for identifier, number in times.items() if number > 1}

    def forget(self) -> None:
        self.posts.clear()
        self.taken.clear()

    def _receive(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            post = Post(len(self.posts) + 1, handler.path, headers, body)
            self.posts.append(post)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            answer = self.answer(post)
        finally:
            with self._lock:
                self._at_once -= 1
        if answer is None:
            handler.close_connection = True
            return
        status, headers, content = (answer, {}, b"") if isinstance(answer, int) else answer
        if 200 <= status < 300:
            with self._lock:
                self.taken.append(post)
        handler.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            if status != 204 or name != "content-length":
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
