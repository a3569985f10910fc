"""The same jobs at several sizes: does time, memory or the state grow faster than the rows?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from performance.batches import PATIENCE, WAITED
from performance.measuring import NotMeasured, Took, best, bioforge
from performance.projects import CHANGED, Bench, built, change_row, state_bytes
from performance.servers import embedded

SIZES = (10_000, 100_000, 1_000_000)
COMPRESSED = "compress_bodies = true"
COMPRESSED_ROWS = 100_000
"""The most that are bought a second time to see what compression saves: bytes for an answer do not depend on it."""
BATCH_ROWS = 1_000_000
"""The most that the embedded server is asked to take in batches."""
Say = Callable[[str, dict[str, Any]], None]


def scale(bench: Bench, rows: int, say: Say) -> dict[str, Any]:
    """Every job at one size, by its name: wall and processor seconds, peak memory; and what the state takes."""
    found: dict[str, Any] = {}

    def note(name: str, took: Took, **more: Any) -> None:
        found[name] = {**took.figures(), **more}
        say(name, found[name])

    def refuse(name: str, why: str) -> None:
        found[name] = {"skipped": why}
        say(name, found[name])

    with bench.project(rows) as root:
        note("first plan", bioforge(root, "plan"))
        note("`batch jsonl`", bioforge(root, "batch", "jsonl", "-o", "lines.jsonl"))
    whole = bench.built(rows)
    size = state_bytes(whole.root)
    note("run: every row asked", whole.took, requests=whole.requests, state=size)
    root = whole.root
    bioforge(root, "run")
    note("plan, nothing to do", best(3, lambda: bioforge(root, "plan")))
    note("run, nothing to do", best(3, lambda: bioforge(root, "run")))
    note("`status`", bioforge(root, "status"))
    note("`why` of one row", bioforge(root, "why", str(CHANGED)))
    note("`audit`", bioforge(root, "audit"))
    note("`export` as JSONL", bioforge(root, "export", "--format", "jsonl", "-o", "all.jsonl"))
    (root / "all.jsonl").unlink()
    with changed(bench, root, rows):
        before = bench.server.requests()
        took = bioforge(root, "run")
        note("run, one row changed", took, requests=bench.server.requests() - before)
    _batches(bench, rows, note, refuse)
    _compressed(bench, rows, note, refuse)
    return found


@contextmanager
def changed(bench: Bench, root: Path, rows: int) -> Iterator[None]:
    """One row says something else; afterwards it is as before, and the state knows."""
    change_row(root / "artists.csv")
    try:
        yield
    finally:
        (root / "artists.csv").unlink()
        (root / "artists.csv").hardlink_to(bench.input(rows))
        bioforge(root, "run")


def _batches(bench: Bench, rows: int, note: Callable[..., None], refuse: Callable[[str, str], None]) -> None:
    """Created while the server lets them lie, collected when it has executed them all."""
    made, fetched = "run by batches: created", "run by batches: collected"
    if rows > BATCH_ROWS:
        for name in (made, fetched):
            refuse(name, f"the embedded server is asked for {BATCH_ROWS:,} rows at most")
        return
    with ExitStack() as stack:
        data = stack.enter_context(TemporaryDirectory(dir=bench.folder, prefix="batches-"))
        try:
            with embedded("--data", data, "--batch-seconds", "86400") as server:
                root = stack.enter_context(bench.project(rows, server.url, backend="batch"))
                note(made, bioforge(root, "run", "--no-wait", expected=WAITED))
            # The same server again, that has waited long enough: neither half of the work takes the other's time.
            port = str(urlsplit(server.url).port)
            with embedded("--data", data, "--batch-seconds", "0", "--port", port) as server:
                batches = server.wait_for_batches(PATIENCE)
                note(fetched, bioforge(root, "run"), batches=len(batches), state=state_bytes(root))
        except (NotMeasured, RuntimeError, OSError) as error:
            refuse(fetched, f"not with {rows:,} rows: {bench.nowhere(str(error))}")


def _compressed(bench: Bench, rows: int, note: Callable[..., None], refuse: Callable[[str, str], None]) -> None:
    name = "run, bodies compressed"
    if rows > COMPRESSED_ROWS:
        refuse(name, f"only up to {COMPRESSED_ROWS:,} rows")
        return
    with bench.project(rows, bench.server.url, project=COMPRESSED) as root:
        try:
            bioforge(root, "plan", "--limit", "1")
        except NotMeasured:
            refuse(name, "this bioforge has no `compress_bodies`")
            return
        whole = built(root, bench.server)
        with closing(sqlite3.connect(root / "bioforge.db")) as db:
            (packed,) = db.execute("SELECT count(*) FROM responses WHERE typeof(body) = 'blob'").fetchone()
        if not packed:
            refuse(name, "this bioforge takes `compress_bodies` and packs nothing by it")
            return
        note(name, whole.took, requests=whole.requests, state=state_bytes(root))
        note("`export`, bodies compressed", bioforge(root, "export", "--format", "jsonl", "-o", "all.jsonl"))
