"""Scenarios: what may happen to a job, each as a short story told to a stage. Those of batches are in `batch_scenarios`."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.bioforge import Bioforge
from gate import MOMENTS, Strike
from stage import HERE, ROWS, Stage, Staging, biggest, make_read_only, make_writable, used

Play = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    play: Play
    kinds: tuple[str, ...]
    """`calls`, `batch`, or both."""
    options: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False
    """Whether repeats draw other moments: only then are there repeats."""
    only: str = ""
    """Beginning of the names of the tools it is for."""
    hopeless: int = 0
    """Rows that nothing can answer."""
    disk: int = 0
    """Bytes of a file system of its own for the tool's folder, where one can be had; 0: it needs none."""

    @property
    def what(self) -> str:
        return " ".join((self.play.__doc__ or "").split())


ALL: dict[str, Scenario] = {}


def scenario(
    name: str,
    title: str,
    kinds: str = "calls batch",
    *,
    random: bool = False,
    only: str = "",
    hopeless: int = 0,
    disk: int = 0,
    **options: Any,
) -> Callable[[Play], Play]:
    def register(play: Play) -> Play:
        ALL[name] = Scenario(name, title, play, tuple(kinds.split()), options, random, only, hopeless, disk)
        return play

    return register


@scenario("clean", "nothing happens")
def clean(stage: Stage) -> None:
    """The command runs to its end, and is given once more."""
    stage.run()
    stage.finish()


@scenario("kill", "kill -9 while sending", "calls", random=True)
def kill(stage: Stage) -> None:
    """At a random request, before the server gets it, after it has worked on it, or up to 50 ms after its answer was
    handed over, the tool is killed with kill -9."""
    at, moment = stage.draw.randint(1, ROWS), stage.draw.choice(MOMENTS)
    stage.run_killed(at, moment, delay=stage.draw.uniform(0, 0.05))
    stage.finish()


@scenario("kill-thrice", "kill -9 three times in a row", "calls", random=True)
def kill_thrice(stage: Stage) -> None:
    """The same, and the two runs after it are killed as well."""
    for _ in range(3):
        at, moment = stage.draw.randint(1, 10), stage.draw.choice(MOMENTS)
        stage.run_killed(at, moment, delay=stage.draw.uniform(0, 0.05))
    stage.finish()


@scenario(
    "dropped",
    "answers lost on the way",
    "calls",
    script={f"r{place:04}": ["drop_after"] for place in (2, 9, 15, 21, 28)},
)
def dropped(stage: Stage) -> None:
    """Five requests are worked on and charged, and the connection closes without an answer."""
    stage.run()
    stage.finish()


@scenario(
    "timeouts",
    "timeouts after processing",
    "calls",
    script={f"r{place:04}": ["hang"] for place in (2, 9, 15, 21)},
    hang_seconds=6.0,
)
def timeouts(stage: Stage) -> None:
    """Four requests are worked on and charged, and the answer comes after 6 seconds, when tools that can be told a
    timeout (3 seconds) have given up."""
    stage.run()
    stage.finish()


@scenario(
    "bodies",
    "truncated and malformed bodies",
    "calls",
    script={f"r{place:04}": [fault] for place, fault in ((1, "truncated"), (8, "malformed"), (13, "truncated"),
                                                         (17, "malformed"), (22, "malformed"), (26, "malformed"))},
)  # fmt: skip
def bodies(stage: Stage) -> None:
    """Two answers end in the middle, four are a 200 that is no answer; all six are charged."""
    stage.run()
    stage.finish()


@scenario("storm", "storm of 429 with Retry-After", "calls", faults={"rate_limit": 0.5}, retry_after=0.5)
def storm(stage: Stage) -> None:
    """Every second try is answered 429 with a Retry-After of half a second."""
    stage.run()
    stage.finish()


@scenario("storm-bare", "storm of 429 without", "calls", faults={"rate_limit_bare": 0.5})
def storm_bare(stage: Stage) -> None:
    """Every second try is answered 429, without a word about when to come back."""
    stage.run()
    stage.finish()


@scenario("quota", "quota exhausted in the middle", quota_after=15)
def quota(stage: Stage) -> None:
    """After 15 answers all requests, or lines of the batch, are answered 429 `insufficient_quota`. Then credit is
    added."""
    stage.run()
    stage.server.restart(quota_after=None)
    stage.gate.upstream = stage.server.url
    stage.finish()


@scenario("outage", "outage of six seconds", "calls")
def outage(stage: Stage) -> None:
    """From the tenth request on, everything is answered 503 for six seconds: a minute, scaled by ten. Who has
    ended before is started again when it is over."""
    begun: list[float] = []

    def down(number: int) -> bool:
        if number == 10:
            begun.append(time.time())
        return bool(begun) and time.time() < begun[0] + 6.0

    stage.gate.down = down
    stage.run()
    stage.gate.down = lambda number: False
    stage.finish()


@scenario(
    "unusable",
    "refusals and truncation",
    hopeless=3,
    script={"r0003": ["refusal"] * 50, "r0007": ["incomplete"] * 50, "r0011": ["content_filter"] * 50},
)
def unusable(stage: Stage) -> None:
    """One row is refused, one cut at its token limit and one by the content filter, however often they are asked; all
    are charged. 27 rows can be answered."""
    stage.run()
    stage.finish()


@scenario("items", "several output items", several_parts=1.0)
def items(stage: Stage) -> None:
    """Every answer has a reasoning item first and its text in two parts (with the Responses API; in chat completions
    there is nothing like it)."""
    stage.run()
    stage.finish()


@scenario("disk-full", "disk full", random=True, disk=256 << 20)
def disk_full(stage: Stage) -> None:
    """The folder is a file system of its own, and is filled up but for a part of what a clean run takes there between its
    first request and its end, or, in each third play, of what it takes before the first one: full before anything was
    sent. Then there is room. (Who is not root gets a limit for each file instead, by RLIMIT_FSIZE.)"""
    measure = used if stage.own_disk else biggest
    sizes: list[int] = []
    with Staging(stage.adapter, {}, 0, disk=ALL["disk-full"].disk) as calm:
        before = measure(calm.folder)
        calm.gate.watch = lambda seen: sizes.append(measure(calm.folder))
        calm.run()
        sizes.append(measure(calm.folder))
    first, most = sizes[0], max(sizes)
    part = (0.5, 0.2, None, 0.8, 0.35)[stage.repeat % 5]
    limit = before + (first - before) // 3 if part is None else first + int(part * (most - first))
    stage.notes["bytes"] = [first, limit, most]
    if not stage.own_disk:
        stage.run(f"fsize={limit}")
    else:
        filler = stage.folder / "filler"
        filler.write_bytes(bytes(max(0, ALL["disk-full"].disk - limit)))
        stage.run()
        filler.unlink()
    stage.finish()


@scenario("read-only", "read-only folder")
def read_only(stage: Stage) -> None:
    """Killed in the middle, the tool is started where it may write to nothing in its folder; then it may again."""
    killed_somewhere(stage)
    make_read_only(stage.folder)
    stage.run("dac")
    make_writable(stage.folder)
    stage.finish()


@scenario("clock", "clock jumps")
def clock(stage: Stage) -> None:
    """The wall clock jumps two days ahead a second after the start, the tool is killed in the middle, and goes on two
    days before the truth."""
    shifted = {"PYTHONPATH": str(HERE / "shift"), "MONEY_SAFETY_CLOCK": "1:172800"}
    killed_somewhere(stage, shifted)
    stage.run(env={**shifted, "MONEY_SAFETY_CLOCK": "0:-172800"})
    stage.finish()


@scenario("two", "two runs at once", batch_seconds=3.0)
def two(stage: Stage) -> None:
    """The same command is given twice in the same folder, at the same moment. (Batches take three seconds here.)"""
    second = stage.begin()
    stage.run()
    stage.end(second)
    stage.finish()


@scenario("input", "input changed while running")
def input_changed(stage: Stage) -> None:
    """While it runs, one row changes and one is added."""
    kind: dict[str, Any] = {"path": "^/v1/files$"} if stage.adapter.batch else {}
    stage.at_request(5 - 4 * stage.adapter.batch, stage.change_rows, **kind)
    stage.run()
    stage.gate.strike = None
    stage.finish()


@scenario("prompt", "prompt changed, then reverted")
def prompt(stage: Stage) -> None:
    """A run, one with another prompt, and one with the first prompt again."""
    before = stage.prompt
    stage.run()
    stage.change_prompt("Write one sentence about this artist, in the style of a museum label.")
    stage.run()
    if not stage.complete():
        stage.finish()
    stage.change_prompt(before)
    stage.run()
    stage.finish()


BEFORE_MIGRATIONS = ("f6dd534^", "4f7d325^")
"""The commits before the migrations 0002 (batches) and 0003 (richer recipes)."""


@scenario("upgrade", "a newer version over an older state", random=True, only="bioforge")
def upgrade(stage: Stage) -> None:
    """An older bioforge, from before the migration 0002 or 0003, is killed in the middle; this one goes on."""
    commit = BEFORE_MIGRATIONS[stage.repeat % 2]
    source = stage.folder.parent / "older"
    source.mkdir()
    packed = subprocess.run(["git", "archive", commit, "bioforge"], cwd=HERE.parent.parent, capture_output=True)
    subprocess.run(["tar", "-x"], cwd=source, input=packed.stdout, check=True)
    knows_batches = (source / "bioforge" / "backends" / "auto.py").exists()
    backend = stage.adapter.name.removeprefix("bioforge-")
    backend = backend if knows_batches or backend in ("threads", "async") else "async"
    older = Bioforge(backend, source)
    newer, stage.adapter = stage.adapter, older
    stage.prepare()
    killed_somewhere(stage)
    stage.adapter = newer
    stage.prepare()
    stage.finish()


def killed_somewhere(stage: Stage, env: Mapping[str, str] | None = None) -> None:
    """A run that dies in the middle: at the 12th request, or once the batch is created."""
    kind: dict[str, Any] = {"path": "^/v1/batches$"} if stage.adapter.batch else {}
    stage.gate.aim(Strike(1 if stage.adapter.batch else 12, "delivered", stage.kill, delay=0.02, **kind))
    stage.run(env=env)
    stage.gate.strike = None
