"""Scenarios of gateways, broken environments and states that other people handle."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from adapters.bioforge import Bioforge, write
from gate import Instead
from scenarios import scenario
from stage import Stage

LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Your session has ended.</body></html>"

UNCLEAR = (408, 502, 504, 524)
"""Codes of a gateway that cannot know whether the server has answered."""


def error(status: int, message: str, inside: int | None = None, charged: bool = False) -> Instead:
    """Return a gateway's error; with `inside` it is a 200 whose body has the error and this code."""
    code = status if inside is None else inside
    body = f'{{"error": {{"message": "{message}", "code": {code}}}}}'.encode()
    return Instead(status, body, charged=charged, unclear=code in UNCLEAR)


@scenario("pages", "login pages instead of answers", "calls")
def pages(stage: Stage) -> None:
    """From the tenth request on, a gateway answers 200 with its login page and passes nothing on. Then it is repaired."""
    page = Instead(200, LOGIN, "text/html", unclear=True)
    stage.gate.instead = lambda number: page if number >= 10 else None
    stage.run()
    stage.notes["pages"] = sum(seen.unclear for seen in stage.gate.seen)
    stage.gate.instead = lambda number: None
    stage.finish()


@scenario("embedded", "errors inside a 200", "calls")
def embedded(stage: Stage) -> None:
    """Five answers are a 200 whose body is an error: three times 502, twice 429. Nothing is charged."""
    errors = {3: 502, 9: 429, 15: 502, 16: 429, 22: 502}
    stage.gate.instead = lambda number: (
        error(200, "Provider returned error", errors[number]) if number in errors else None
    )
    stage.run()
    stage.finish()


@scenario("gateway", "gateway timeouts", "calls")
def gateway(stage: Stage) -> None:
    """Four requests are worked on and charged, and a gateway answers 504, 524, 408 and 502 in place of the server."""
    errors = {2: 504, 9: 524, 15: 408, 21: 502}
    stage.gate.instead = lambda number: (
        error(errors[number], "upstream request timeout", charged=True) if number in errors else None
    )
    stage.run()
    stage.finish()


@scenario("environment", "local failures")
def environment(stage: Stage) -> None:
    """Three runs in a broken environment (a key with a line break, a missing certificate file, a proxy that does not
    exist), then one in a good one."""
    stage.run(env={"OPENAI_API_KEY": "sk-simulated\nX-Other: 1"})
    stage.run(env={"SSL_CERT_FILE": "/nonexistent.pem"})
    stage.run(env={"ALL_PROXY": "socks5://127.0.0.1:9"})
    stage.finish()


@scenario("files", "few file descriptors")
def files(stage: Stage) -> None:
    """The tool may open 40 files, fewer than calls in flight and its own files would like."""
    stage.run("nofile=40")
    stage.finish()


@scenario("closed", "stdout and stderr closed")
def closed(stage: Stage) -> None:
    """The tool is started with stdout and stderr closed, as some schedulers do."""
    stage.run("closed")
    stage.finish()


@scenario("hangup", "the terminal is closed (SIGHUP)")
def hangup(stage: Stage) -> None:
    """At the 12th request, or once the batch is created, the process gets SIGHUP."""
    _at_half(stage, lambda: _signal(stage, signal.SIGHUP))
    stage.run()
    stage.gate.strike = None
    stage.finish()


@scenario("moved", "the state is moved during a run", only="bioforge")
def moved(stage: Stage) -> None:
    """At the 12th request, or once the batch is created, the state's files are moved to another folder. The run ends,
    the files are moved back, and the command is given again."""
    away = stage.folder / "away"

    def move() -> None:
        away.mkdir()
        _move(stage.folder, away)

    _at_half(stage, move)
    stage.run()
    stage.gate.strike = None
    stage.notes["left"] = sorted(path.name for path in stage.folder.glob("bioforge.db*"))
    _move(away, stage.folder)
    stage.finish()


@scenario("lock", "the lock file is removed, and a second run started", only="bioforge", batch_seconds=3.0)
def lock(stage: Stage) -> None:
    """At the third request, or once the batch is created, the lock file is deleted and a second run started."""
    second = []

    def start() -> None:
        (stage.folder / "bioforge.db.lock").unlink(missing_ok=True)
        second.append(stage.begin())

    _at_half(stage, start, at=3)
    stage.run()
    stage.gate.strike = None
    for child in second:
        stage.end(child)
    stage.finish()


HANGING = """
import time
from pydantic import BaseModel, model_validator

class Text(BaseModel):
    text: str

    @model_validator(mode="after")
    def check(self):
        time.sleep(3600)
        return self
"""


@scenario("checks", "a check of the user's own code hangs", only="bioforge")
def checks(stage: Stage) -> None:
    """Answers are checked by a pydantic model whose validator never returns. The run is killed by the patience of the
    harness, or ends by itself; then the validator is repaired."""
    assert isinstance(stage.adapter, Bioforge)
    stage.adapter.recipe = 'schema = "checks:Text"\n'
    write(stage.folder / "checks.py", HANGING)
    stage.prepare()
    stage.run()
    write(stage.folder / "checks.py", HANGING.replace("time.sleep(3600)", "time.sleep(0)"))
    stage.finish()
    stage.adapter.recipe = ""


def _at_half(stage: Stage, action: object, at: int = 12) -> None:
    """Call `action` at a request in the middle, or once the batch is created."""
    path = {"path": "^/v1/batches$"} if stage.adapter.batch else {}
    stage.at_request(1 if stage.adapter.batch else at, action, **path)  # type: ignore[arg-type]


def _signal(stage: Stage, number: int) -> None:
    os.kill(stage._children[-1].pid, number)


def _move(source: Path, target: Path) -> None:
    for path in source.glob("bioforge.db*"):
        shutil.move(path, target / path.name)
