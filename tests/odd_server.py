"""A server that answers what it was told to, however wrong: for what the simulator would never do."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers, content."""


class OddServer:
    """Answers each request with the next of `answers`, and from the last one on always with that; None closes the
    connection without an answer. `asked` has method, path and headers (by lower-case name) of every request."""

    def __init__(self, *answers: Answer | None) -> None:
        asked = self.asked = list[tuple[str, str, Mapping[str, str]]]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                answer = answers[min(len(asked), len(answers) - 1)]
                asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.close_connection = True
                if answer is None:
                    return
                status, headers, content = answer
                self.send_response(status)
                told = {"content-length": str(len(content)), "connection": "close"}
                for name, value in {**told, **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> OddServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
