"""Real kills, between edits: whatever was in flight is maybe paid, and the end is that of a project without a history."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from chains import ChainFolder, Script, chain
from hypothesis import given
from hypothesis import strategies as st
from processes import Child, wait_until

from .effort import examples
from .test_histories import DATA, NAMES, Files, results

_edits = st.lists(
    st.tuples(st.sampled_from(sorted(NAMES)), st.sampled_from(DATA), st.integers(0, 1), st.sampled_from([1, 2])),
    min_size=2, max_size=4,
)  # fmt: skip


def _wait_for(project: ChainFolder, process: Child, number: int) -> None:
    wait_until(lambda: project.server.ledger.counts.requests >= number or process.gone(), "a request")


@pytest.mark.slow
@examples(4, shrinks=False)
@given(_edits, st.sampled_from(["async", "threads", "batch"]), st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_killed_between_edits_it_comes_to_the_same_end(
    edits: list[tuple[str, str, int, int]], backend: str, moments: list[int]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        files = Files()
        options = {"latency": 0.005, "latency_sigma": 0.5, "batch_seconds": 0.0}
        with chain(folder / "old", script=Script(), **options) as project:
            for (artist, data, files.prompt, files.samples), more in zip(edits, moments, strict=False):
                files.rows[artist] = data
                files.write(project)
                until = project.server.ledger.counts.requests + more
                process = project.begin("run", "--backend", backend)
                _wait_for(project, process, until)
                if not process.gone():
                    process.kill()
                process.end()
                if (project.root / "bioforge.db").exists():
                    assert project.value("PRAGMA integrity_check") == "ok"
            project.run("run").ok()
            project.assert_money_is_explained()
            charged = project.charged()
            project.run("run").ok()
            assert project.charged() == charged
            with chain(folder / "clean", script=Script()) as clean:
                files.write(clean)
                clean.run("run").ok()
                assert results(project) == results(clean)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
