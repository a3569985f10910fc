"""A project from code: plan, run and results agree with the commands."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from projects import ProjectFolder

from bioforge.api import BadArgument, BioforgeError, ConfigError, Progress, Project, StateError, Stop
from bioforge.core.errors import UsageError


@pytest.fixture
def opened(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    return Project.load(project.root)


def test_plan_run_results(project: ProjectFolder, opened: Project) -> None:
    plan = opened.plan()
    assert plan.requests == 4
    assert plan.cost_usd is not None
    assert project.charged() == 0

    result = opened.run()
    assert (result.exit_code, result.fresh, result.left) == (0, 4, [])
    assert project.charged() == 4
    assert opened.plan().requests == 0

    records = {record["artist_id"]: record for record in opened.results()}
    assert set(records) == {"0", "1", "2", "3"}
    assert "Björk" in str(records["1"]["response_text"])
    assert all(record["error"] is None for record in records.values())
    assert [record["artist_id"] for record in opened.results(select="1")] == ["1"]
    project.assert_ledger_equals_state()


def test_commands_and_library_share_the_state(project: ProjectFolder, opened: Project) -> None:
    project.run("run", "--select", "1").ok()
    assert opened.plan().requests == 3
    opened.run(select=["2", "3"])
    assert project.reasons() == {"new": 1}


def test_selection_and_always_make(project: ProjectFolder, opened: Project) -> None:
    assert opened.run("bio", limit=2).left_out == 2
    assert opened.run(select="reason:new").exit_code == 0
    assert opened.run(select="1", always_make=True).exit_code == 0
    assert project.charged() == 5


def test_arguments_win_over_the_file(project: ProjectFolder, opened: Project) -> None:
    loaded = Project.load(project.root / "bioforge.toml", backend="threads", concurrency=2, max_cost=1.5, strict=True)
    config = loaded.config
    assert (config.backend.name, config.limits.concurrency, config.limits.max_cost_usd) == ("threads", 2, 1.5)
    assert config.input.strict
    assert opened.config.backend.name == "async"
    assert loaded.recipes == ["bio"]
    assert loaded.run().exit_code == 0


def test_progress_is_called_for_every_group(opened: Project) -> None:
    seen: list[Progress] = []
    opened.run(progress=seen.append)
    last = seen[-1]
    assert (last.done, last.total, last.failed) == (4, 4, 0)
    assert last.cost_usd > 0
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)


def test_failures_are_in_the_result(project: ProjectFolder) -> None:
    from bioforge.simulator import Simulator, SimulatorOptions

    with Simulator(SimulatorOptions(script={"Absalon": ["refusal"]})) as server:
        folder = ProjectFolder(project.root, server)
        loaded = Project.load(folder.root, backend="async")
        seen: list[Progress] = []
        result = loaded.run(progress=seen.append)
    assert result.exit_code == 1
    assert [(group.reason, group.targets) for group in result.left] == [("failed", 1)]
    assert seen[-1].failures == {"refusal": 1}
    (failed,) = loaded.results(failed=True)
    assert failed["error"] is not None


def test_it_can_be_stopped_from_another_thread(project: ProjectFolder, opened: Project) -> None:
    stop = Stop()
    stopper = threading.Thread(target=stop.raise_level)
    stopper.start()
    stopper.join()
    result = opened.run(stop=stop)
    assert (result.exit_code, result.interrupted) == (130, True)
    assert project.charged() == 0
    assert opened.run().exit_code == 0


def test_results_can_be_read_during_a_run(opened: Project) -> None:
    opened.run()
    other = Project.load(opened.config.path)
    records = other.results()
    assert next(records)["artist_id"] is not None
    assert opened.run(always_make=True).exit_code == 0
    assert len(list(records)) == 3


def test_invalid_arguments(project: ProjectFolder, opened: Project, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe 'boi'"):
        opened.plan("boi")
    with pytest.raises(BadArgument, match="limit: expected a whole number from 1, found 0"):
        opened.run(limit=0)
    with pytest.raises(UsageError, match="no such reason"):
        opened.results(select="reason:odd")
    with pytest.raises(StateError, match="there is no state yet"):
        list(opened.results())
    with pytest.raises(ConfigError, match=r"no such project file|no bioforge\.toml"):
        Project.load(tmp_path / "nowhere" / "bioforge.toml")
    with pytest.raises(BioforgeError, match="--backend"):
        Project.load(project.root, backend="")
    assert project.charged() == 0
