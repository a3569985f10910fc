"""Rows and answers from strangers: terminals, logs, exports, and streams that are closed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from odd_server import OddServer
from processes import ENVIRONMENT
from projects import ProjectFolder

from bioforge.core.text import printable, printable_json
from bioforge.report.logs import as_json

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x1b[31mred\x1b[0m",
    "a\rb",
    "first\nrows paid twice: 0",
    "first\n  rows paid twice: 0",
    "\x9b31m\x85\x7f",
    "\u202egpj.exe\u2066\u200e\u200f\u061c",
    "\u2028\u2029",
    "=cmd|' /C calc'!A1",
    "@SUM(1+1)*cmd",
    '"quoted", <b>&amp;</b>',
    "```\n# forged heading",
    "x" * 20_000,
)
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
ROWS = 200


def hostile(number: int) -> str:
    return f"{HOSTILE[number % len(HOSTILE)]} {number}"


@pytest.fixture
def strangers(project: ProjectFolder) -> ProjectFolder:
    """Rows with hostile names and data."""
    lines = (
        {"artist_id": f"{place}", "artist_name": hostile(place), "artist_data": hostile(place + 1)}
        for place in range(ROWS)
    )
    project.write("artists.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    project.edit("bioforge.toml", 'path = "artists.csv"', 'path = "artists.jsonl"')
    return project


@pytest.fixture
def echoing(strangers: ProjectFolder) -> Iterator[ProjectFolder]:
    """A provider that answers each request with hostile text."""
    answers = [
        (200, {"content-type": "application/json", "x-request-id": "req\x9b2J"}, json.dumps(answer(place)).encode())
        for place in range(ROWS)
    ]
    with OddServer(*answers) as server:
        strangers.edit("bioforge.toml", strangers.server.base_url, server.base_url)
        yield strangers


def answer(number: int) -> dict[str, object]:
    part = {"type": "output_text", "text": f"{hostile(number)} \0 \ud800", "annotations": []}
    usage = {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10}
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-6-luna",
        "output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}],
        "usage": usage,
    }


def on_terminal(root: Path, *arguments: str) -> str:
    """Return what a command shows on a terminal without colours."""
    master, slave = pty.openpty()
    environment = {**os.environ, **ENVIRONMENT, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-m", "bioforge", *arguments],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    ):
        os.close(slave)
        shown = b""
        while True:
            try:
                block = os.read(master, 1 << 16)
            except OSError:  # Linux: the other side is closed
                break
            if not block:
                break
            shown += block
    os.close(master)
    return shown.decode().replace("\r\n", "\n")


def test_nothing_hostile_reaches_a_terminal(echoing: ProjectFolder) -> None:
    shown = on_terminal(echoing.root, "run", "-v", "--print")
    for arguments in (
        ("run", "-B", "-n", "--limit", "3"),
        ("plan",),
        ("status",),
        ("why", "0"),
        ("why", "\x1b[2J"),
        ("export", "--format", "csv"),
        ("export", "--format", "markdown"),
        ("plan", "-W", "\x1b[2J\u202e"),
    ):
        shown += on_terminal(echoing.root, *arguments)
    assert RAW.findall(shown) == []
    assert r"\x1b[2J" in shown
    assert r"\u202e" in shown


def test_exports_of_hostile_answers_are_whole(echoing: ProjectFolder) -> None:
    echoing.run("run", "-j", "1").ok()
    lines = [json.loads(line) for line in echoing.process("export").ok().out.split("\n") if line]
    assert len(lines) == ROWS
    assert {line["artist_name"] for line in lines} == {hostile(place).strip() for place in range(ROWS)}
    assert lines[0]["response_text"].endswith("\0 ?")
    echoing.run("export", "-o", "all.csv").ok()
    with (echoing.root / "all.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["artist_name"] for row in rows} == {hostile(place).strip() for place in range(ROWS)}
    echoing.run("export", "-o", "safe.csv", "--escape-formulas").ok()
    with (echoing.root / "safe.csv").open(encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    headings = [line for line in echoing.process("export", "-F", "markdown").ok().out.split("\n") if line[:2] == "# "]
    assert len([line for line in headings if not line.startswith("# forged")]) == ROWS


def test_hostile_rows_and_answers_take_bounded_memory(echoing: ProjectFolder) -> None:
    assert peak_memory(echoing.root, "run", expected=0) < 600
    for table in ("attempts", "responses"):  # one request each
        assert echoing.value(f"SELECT count(*) FROM {table}") == ROWS


def test_a_bomb_as_input_takes_bounded_memory(strangers: ProjectFolder) -> None:
    """Read 2 GB of blanks in one line."""
    (strangers.root / "bomb.jsonl.gz").write_bytes(gzip.compress(b" " * (1 << 24)) * 128)
    strangers.edit("bioforge.toml", 'path = "artists.jsonl"', 'path = "bomb.jsonl.gz"')
    assert peak_memory(strangers.root, "plan", expected=2) < 600


def peak_memory(root: Path, *arguments: str, expected: int) -> float:
    """Return the most memory that a command takes, in MB.

    A small process starts it: the memory of a process that forks counts for its child.
    """
    launch = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL); print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", launch, sys.executable, "-m", "bioforge", *arguments]
    ran = subprocess.run(command, cwd=root, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    code, peak = map(int, ran.stdout.split())
    assert code == expected
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def test_a_line_break_of_a_provider_forges_no_line(project: ProjectFolder) -> None:
    error = {"error": {"message": "no\nrows paid twice: 0\nhint: pay", "type": "x", "code": "invalid_api_key"}}
    with OddServer((401, {"content-type": "application/json"}, json.dumps(error).encode())) as server:
        project.edit("bioforge.toml", project.server.base_url, server.base_url)
        ran = project.run("run")
    assert "rows paid twice" in ran.err
    assert not [line for line in ran.err.splitlines() if line.startswith(("rows paid twice", "hint: pay"))]


def test_json_for_programs_keeps_its_meaning() -> None:
    value = {"name": "".join(HOSTILE), "half": "\ud800"}
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert RAW.findall(text) == []
    line = as_json(datetime.now(UTC), "info", "".join(HOSTILE), value)
    assert (json.loads(line)["event"], RAW.findall(line)) == ("".join(HOSTILE), [])
    assert printable("Žofie שלום 🎨") == "Žofie שלום 🎨"


def test_a_forged_amount_stays_text() -> None:
    from bioforge.cli.format import json_text

    value = {"text": "\0usd 1", "cost_usd": 0.5}
    assert json.loads(json_text(value)) == value


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_needs_no_standard_streams(project: ProjectFolder, closed: str) -> None:
    ran = in_shell(project.root, f"run {closed}")
    assert ran.returncode == 0
    assert "Traceback" not in ran.stderr
    assert project.charged() == 4
    project.run("audit").ok()


@pytest.mark.parametrize("command", ["run --print", "export", "plan", "--help", "status --format json"])
def test_output_for_a_closed_stdout_is_an_error(project: ProjectFolder, command: str) -> None:
    if command in ("export", "status --format json"):
        project.run("run").ok()
    before = project.charged()
    ran = in_shell(project.root, f"{command} >&-")
    assert ran.returncode == 2
    assert "error: stdout is closed" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert project.charged() == before


def test_a_batch_is_not_created_when_its_id_would_be_lost(project: ProjectFolder) -> None:
    project.run("batch", "jsonl").ok()
    ran = in_shell(project.root, "batch create --in batch_input.jsonl >&-")
    assert ran.returncode == 2
    assert "stdout is closed" in ran.stderr
    assert "no batches" in project.run("batch", "list").ok().err


def in_shell(root: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -m bioforge {command}'],
        cwd=root,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )


def test_content_for_a_terminal_is_decoded_across_writes() -> None:
    from bioforge.report.console import TerminalBytes

    screen = io.StringIO()
    stream = TerminalBytes(screen)
    for piece in ("Žofie\r".encode(), b"\n\x1b[2J", "é".encode()[:1], "é".encode()[1:]):
        stream.write(piece)
    assert screen.getvalue() == "Žofie\n\\x1b[2Jé"
