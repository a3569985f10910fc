"""The servers on loopback: nginx, which answers at once and always, and the embedded one, which can be slow and faulty."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from performance.answers import COMPLETION, RESPONSE, tables
from performance.measuring import KEY

PATIENCE = 30.0
CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/json;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 64m;
  keepalive_requests 1000000000;
  keepalive_time 24h;
  keepalive_timeout 1h;
  tcp_nodelay on;
{sentences}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    add_header x-request-id req_$request_id;
    location = /v1/responses {{ return 200 '{response}'; }}
    location = /v1/chat/completions {{ return 200 '{completion}'; }}
    location = /counted {{ stub_status; }}
    location / {{ return 404 '{{"error": {{"message": "no such path", "type": "invalid_request_error"}}}}'; }}
  }}
}}
"""


@dataclass(slots=True)
class Server:
    name: str
    """`nginx` or `embedded`."""
    url: str
    """With `/v1`."""
    asked_about: int = 0

    def get(self, path: str) -> bytes:
        """Below the root, not below `/v1`."""
        root = self.url.removesuffix("/v1")
        request = urllib.request.Request(root + path, headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            content: bytes = answer.read()
        return content

    def requests(self) -> int:
        """How many calls have come, whoever made them; questions like this one are not counted."""
        if self.name == "nginx":
            self.asked_about += 1
            return int(self.get("/counted").split()[9]) - self.asked_about
        return int(self.ledger()["counts"]["requests"])

    def ledger(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/simulator/ledger"))
        return found

    def batches(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.get("/simulator/batches"))
        return found

    def wait_for_batches(self, seconds: float) -> list[dict[str, Any]]:
        """All batches, once the embedded server has executed them."""
        end = time.monotonic() + seconds
        while True:
            found = self.batches()
            if all(batch["status"] == "completed" for batch in found):
                return found
            if time.monotonic() > end:
                states = [batch["status"] for batch in found]
                raise RuntimeError(f"the embedded server has not finished after {seconds:.0f} s: {states}")
            time.sleep(0.5)


def nginx_path() -> str | None:
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


@contextmanager
def answering(folder: Path) -> Iterator[Server]:
    """A server that answers at once: nginx, or the embedded one where nginx is not installed."""
    if program := nginx_path():
        with nginx(program, folder) as server:
            yield server
    else:
        with embedded() as server:
            yield server


@contextmanager
def nginx(program: str, folder: Path) -> Iterator[Server]:
    """nginx as one process with a configuration of its own; it needs no rights and leaves nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    bodies = {"response": json.dumps(RESPONSE), "completion": json.dumps(COMPLETION), "sentences": tables()}
    settings = CONFIGURATION.format(folder=folder, port=port, **bodies)
    (folder / "nginx.conf").write_text(settings, "utf-8")
    command = [program, "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process, folder / "error.log")
        yield Server("nginx", f"http://127.0.0.1:{port}/v1")
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"nginx did not start: {log.read_text('utf-8')[-300:]}") from None
            time.sleep(0.02)


@contextmanager
def embedded(*options: str) -> Iterator[Server]:
    """`bioforge simulate` on a free port, ended when the block ends."""
    command = [sys.executable, "-m", "bioforge", "simulate", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        try:
            if found is None:
                raise RuntimeError("the embedded server did not start")
            yield Server("embedded", found[0])
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
