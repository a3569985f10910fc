"""Commands and flags as people use them: what they print, what they leave behind, how they end."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ENVIRONMENT, wait_until
from projects import ARTISTS, ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

KEY = "sk-test-0123456789abcdef"


def many(project: ProjectFolder, number: int) -> None:
    rows = "".join(f"{row},Artist {row},painter\n" for row in range(number))
    project.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def on(server: Simulator) -> dict[str, str]:
    return {"OPENAI_BASE_URL": server.base_url}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProjectFolder]:
    """A finished project for tests that only read."""
    with Simulator(SimulatorOptions()) as server:
        project = ProjectFolder(tmp_path_factory.mktemp("built"), server)
        project.run("run").ok()
        yield project


# ------------------------------------------------------------------------------------------------------------- init


def test_init_writes_a_project_that_runs_as_it_is(tmp_path: Path, server: Simulator) -> None:
    project = ProjectFolder(tmp_path, server)
    wrote = project.run("init", "my-project").ok()
    assert wrote.out.split() == [
        f"my-project/{name}" for name in ("bioforge.toml", "artists.csv", "prompts/bio.md", ".gitignore")
    ]
    assert wrote.err == "next: cd my-project && bioforge run\n"

    ran = project.run("run", "-f", "my-project", env={"OPENAI_API_KEY": ""}).ok()
    assert "done    5 of 5" in ran.err
    assert "(simulated: nothing was charged)" in ran.err
    assert project.charged() == 0, "the embedded simulator answered, not another server"
    assert len(records(project.read("my-project/out/bios.jsonl"))) == 5
    assert "up to date" in project.run("run", "-f", "my-project").ok().err


def test_init_does_not_overwrite(project: ProjectFolder) -> None:
    before = project.read("bioforge.toml")
    refused = project.run("init")
    assert refused.code == 2
    assert refused.err == (
        "error: . already has bioforge.toml, artists.csv; nothing was written\n"
        "hint: `bioforge init DIR` writes into another folder\n"
    )
    assert project.read("bioforge.toml") == before
    assert not (project.root / "prompts").exists()


def test_the_module_is_the_command(built: ProjectFolder) -> None:
    from bioforge import __version__

    ran = built.process("--version").ok()
    assert (ran.out, ran.err) == (f"bioforge {__version__}\n", "")


# ----------------------------------------------------------------------------------------------------------- status


def test_status_before_during_and_after_a_run(project: ProjectFolder) -> None:
    project.run("plan").ok()
    planned = project.run("status").ok().out
    assert planned == "test: 4 artists\nrecipe  fresh  stale\nbio         0  4 new\nspent: $0.00 for 0 answers\n"

    many(project, 60)
    with Simulator(SimulatorOptions(latency=0.2)) as slow:
        project.edit("bioforge.toml", project.server.base_url, slow.base_url)
        process = project.begin("run")
        wait_until(lambda: project.value("SELECT count(*) FROM responses") > 0, "the first answer")
        during = json.loads(project.run("status", "--format", "json").ok().out)
        exported = project.run("export").ok()
        process.signal(signal.SIGINT)
        process.end()
    assert [run["state"] for run in during["runs"]] == ["running"]
    assert 0 < during["recipes"][0]["fresh"] < 60
    assert 0 < len(records(exported.out)) < 60, "export works while a run goes on"

    after = project.run("status").ok().out
    assert re.search(r"^  1  interrupted +\d+ s ago +async +\d+ +\d+ +\$[\d.]+ +bioforge run$", after, re.MULTILINE)


def test_status_as_json(built: ProjectFolder) -> None:
    found = json.loads(built.run("status", "--format", "json").ok().out)
    assert found["project"] == "test"
    assert (found["artists"], found["removed"], found["bad_rows"], found["simulated"]) == (4, 0, 0, False)
    (recipe,) = found["recipes"]
    assert recipe == {
        "recipe": "bio",
        "variant": "",
        "in_project": True,
        "fresh": 4,
        "stale": {},
        "held": 0,
        "unplanned": 0,
    }
    assert found["money"]["paid"] == 4
    assert found["money"]["cost_usd"] == pytest.approx(built.value("SELECT sum(cost_usd) FROM responses"))
    (run,) = found["runs"]
    assert (run["id"], run["command"], run["state"], run["exit_code"]) == (1, "run", "finished", 0)
    assert (run["succeeded"], run["failed"]) == (4, 0)


def test_status_tells_of_bad_rows_and_of_recipes_that_left(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.write("artists.csv", ARTISTS + "5\n")
    project.edit("bioforge.toml", "[recipe.bio]", "[recipe.life]")
    assert project.run("plan", "-q").code == 0, "the same requests under another name have answers already"
    out = project.run("status").ok().out
    assert out.startswith("test: 4 artists, 1 bad row\n")
    assert "bio         4  -      not in the project file\n" in out
    assert "life        4  -\n" in out


# ------------------------------------------------------------------------------------------------------------ audit


def test_audit_as_text_and_json(built: ProjectFolder) -> None:
    text = built.run("audit").ok().out
    assert re.fullmatch(
        r"outcome    class  paid  attempts +cost\n"
        r"succeeded  -      yes          4  \$0\.00\d+\n"
        r"paid: 4 answers, \$0\.00\d+\n"
        r"rows paid twice: 0, paid answers lost: 0\n",
        text,
    )
    found = json.loads(built.run("audit", "--format", "json").ok().out)
    assert {name: found[name] for name in ("paid", "maybe_paid", "paid_twice", "lost", "in_flight")} == {
        "paid": 4, "maybe_paid": 0, "paid_twice": 0, "lost": 0, "in_flight": 0
    }  # fmt: skip
    assert [outcome["outcome"] for outcome in found["outcomes"]] == ["succeeded"]


def test_audit_names_what_nobody_can_know(tmp_path: Path) -> None:
    with Simulator(SimulatorOptions(script={"Absalon": ["drop_after"]})) as server:
        project = ProjectFolder(tmp_path, server)
        project.run("run").ok()
        assert project.charged() == 5
        text = project.run("audit").ok().out
    assert "maybe paid: 1 attempt may have been charged (no answer arrived), at most about $" in text
    assert "of these, resent: 1 (`maybe_paid = false` in [retry] never resends them)" in text
    assert text.endswith("rows paid twice: 0, paid answers lost: 0, maybe paid: 1 attempt\n")


# ----------------------------------------------------------------------------------------------------------- export


def test_export_as_json_lines(built: ProjectFolder) -> None:
    found = records(built.run("export").ok().out)
    assert [record["artist_id"] for record in found] == ["1", "2", "3", "0"], "in the order of the input"
    first, absalon = found[0], found[2]
    assert list(first) == [
        "artist_id", "artist_name", "artist_data", "recipe", "request", "response_text", "response_id", "created",
        "model", "usage", "cost_usd", "error",
    ]  # fmt: skip
    assert first["request"]["max_output_tokens"] == 400
    assert first["request"]["hash"] == built.value("SELECT request_hash FROM targets WHERE id = 1")
    assert (first["error"], first["recipe"]) == (None, "bio")
    assert "artist_data" not in absalon, "keys are absent where they are empty"


def test_export_as_csv_reads_back_as_csv(built: ProjectFolder) -> None:
    rows = list(csv.DictReader(io.StringIO(built.run("export", "-F", "csv").ok().out, newline="")))
    assert [row["artist_name"] for row in rows] == ["Björk", "Abakanowicz, Magdalena", "Absalon", "Abbey, Edwin Austin"]
    assert rows[3]["artist_data"] == "American\npainter"
    assert all(row["response_text"] and row["error_class"] == "" for row in rows)


def test_export_as_markdown(built: ProjectFolder) -> None:
    out = built.run("export", "--format", "markdown").ok().out
    headings = [line for line in out.splitlines() if line.startswith("#")]
    assert headings == ["# Björk", "# Abakanowicz, Magdalena", "# Absalon", "# Abbey, Edwin Austin"]


def test_export_to_a_file_takes_the_format_from_its_name(built: ProjectFolder) -> None:
    ran = built.run("export", "-o", "copies/bios.csv").ok()
    assert (ran.out, ran.err) == ("", "")
    assert built.read("copies/bios.csv").startswith("artist_id,artist_name,")
    folder = built.run("export", "-F", "markdown-folder", "-o", "pages").ok()
    assert folder.err == "4 files written to pages\n"
    assert len(list((built.root / "pages").glob("*.md"))) == 4


def test_export_of_a_selection(built: ProjectFolder) -> None:
    assert [r["artist_id"] for r in records(built.run("export", "--select", "[12]").ok().out)] == ["1", "2"]
    assert [r["artist_id"] for r in records(built.run("export", "--select", "3", "--select", "0").ok().out)] == [
        "3", "0"
    ]  # fmt: skip


def test_export_keeps_spreadsheets_from_calculating(project: ProjectFolder) -> None:
    project.write("artists.csv", 'artist_id,artist_name\n1,"=HYPERLINK(""http://x"")"\n2,@sum\n3,plain\n')
    project.run("run").ok()
    names = lambda *flags: [  # noqa: E731
        row["artist_name"] for row in csv.DictReader(io.StringIO(project.run("export", "-F", "csv", *flags).ok().out))
    ]
    assert names() == ['=HYPERLINK("http://x")', "@sum", "plain"]
    assert names("--escape-formulas") == ['\'=HYPERLINK("http://x")', "'@sum", "plain"]
    assert project.run("export", "--escape-formulas").code == 2, "JSON has no formulas"


def test_export_of_failures_has_what_was_received(tmp_path: Path) -> None:
    script = {"Absalon": ["incomplete"], "Björk": ["bad_request"]}
    with Simulator(SimulatorOptions(script=script)) as server:
        project = ProjectFolder(tmp_path, server)
        assert project.run("run").code == 1
    björk, absalon = records(project.run("export", "--failed").ok().out)
    assert absalon["error"]["class"] == "truncated"
    assert absalon["response_text"], "the truncated text is there"
    assert absalon["cost_usd"] > 0
    assert björk["error"] == {
        "class": "bad_request",
        "code": "invalid_prompt",
        "message": "This request is refused for what it says. (simulated fault: bad_request)",
    }
    assert "response_text" not in björk
    everybody = {record["artist_id"]: record for record in records(project.run("export").ok().out)}
    assert "response_text" not in everybody["3"], "a truncated text does not pass for an answer"
    assert everybody["3"]["error"]["class"] == "truncated"
    assert everybody["2"]["error"] is None


def test_export_by_recipe_and_of_former_recipes(project: ProjectFolder) -> None:
    project.configure(more='[recipe.haiku]\nmodel = "gpt-6-luna"\ninput = "A haiku about {{ artist_name }}"')
    project.run("run").ok()
    assert {r["recipe"] for r in records(project.run("export", "--recipe", "haiku").ok().out)} == {"haiku"}
    assert len(records(project.run("export").ok().out)) == 8

    project.configure()
    project.run("plan").ok()
    assert {r["recipe"] for r in records(project.run("export").ok().out)} == {"bio"}
    assert len(records(project.run("export", "--all").ok().out)) == 8


@pytest.mark.parametrize(
    "arguments",
    [
        ("export",),
        pytest.param(("export", "-F", "csv"), marks=pytest.mark.slow),
        pytest.param(("status",), marks=pytest.mark.slow),
    ],
)
def test_export_into_a_pipe_that_closes(project: ProjectFolder, arguments: tuple[str, ...]) -> None:
    many(project, 300)
    project.run("run").ok()
    command = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" | head -n 1', "-", sys.executable, "-m", "bioforge", *arguments],
        cwd=project.root,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert command.stderr == "", "no traceback, no complaint"
    assert command.stdout.count("\n") == 1
    assert command.returncode in (0, 1)


def test_a_reader_of_texts_that_leaves_does_not_stop_the_run(project: ProjectFolder) -> None:
    many(project, 40)
    with project.start("run", "--print") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("Simulated answer")
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 0, err
    assert "Traceback" not in err
    assert project.value("SELECT count(*) FROM responses") == 40


# ---------------------------------------------------------------------------------------------------------- plugins


def test_plugins_lists_what_is_built_in(built: ProjectFolder) -> None:
    ran = built.run("plugins", env={"BIOFORGE_LOAD_PLUGINS": ""}).ok()
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["plugin", "version", "api", "source", "provides"]
    assert [line[0] for line in lines[1:]] == [
        "bioforge.readers",
        "bioforge.writers",
        "bioforge.backends.openai",
    ]
    found = json.loads(built.run("plugins", "--format", "json", env={"BIOFORGE_LOAD_PLUGINS": ""}).ok().out)
    assert found["problems"] == []
    assert found["plugins"][2]["provides"]["bioforge_backends"][:2] == ["threads", "async"]


# --------------------------------------------------------------------------------------------------------- simulate


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulate_serves_any_client_until_it_is_told_to_end(built: ProjectFolder, number: signal.Signals) -> None:
    from openai import OpenAI

    ledger = f"ledger-{number.name}.jsonl"
    with built.start("simulate", "--port", "0", "--ledger", ledger) as process:
        assert process.stderr is not None
        ready = process.stderr.readline()
        address = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+/v1) \(Ctrl-C ends it\)\n", ready)
        assert address, ready
        with OpenAI(base_url=address[1], api_key="any") as client:
            for _ in range(2):
                answer = client.responses.create(model="gpt-6-luna", input="Björk")
        assert answer.output_text.startswith("Simulated answer")
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.stderr.read().splitlines() == [
            f"try: OPENAI_BASE_URL={address[1]} OPENAI_API_KEY=any bioforge run",
            "served 2 answers; repeated answers to the same request: 1",
        ]
    assert len(records(built.read(ledger))) == 2


# -------------------------------------------------------------------------------------------------------- run flags


def test_concurrency_is_how_many_requests_are_in_flight(project: ProjectFolder) -> None:
    many(project, 40)
    project.run("run", "-j", "2").ok()
    assert {row[0] for row in project.rows("SELECT DISTINCT worker FROM attempts")} <= {"W01", "W02"}
    assert project.value("SELECT count(*) FROM attempts") == 40


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_max_failures_stops_after_so_many_failures(tmp_path: Path, backend: str) -> None:
    with Simulator(SimulatorOptions(faults={"bad_request": 1.0})) as server:
        project = ProjectFolder(tmp_path, server)
        many(project, 20)
        ran = project.run("run", "--max-failures", "2", "-j", "1", "--backend", backend)
    assert ran.code == 1
    assert "2 targets failed, the limit of --max-failures 2" in ran.err
    # the next one was announced already, and then not sent
    assert project.value("SELECT count(*) FROM attempts WHERE error_class <> 'interrupted'") == 2
    assert {**project.reasons(), "interrupted": 0} == {"failed": 2, "new": 17, "interrupted": 0}


def test_a_budget_is_kept_and_the_next_run_goes_on(project: ProjectFolder) -> None:
    ran = project.run("run", "-j", "1", "--max-cost", "0.0003")
    assert ran.code == 75
    assert "warning: the plan costs more than the budget of $0.0003; the run stops before exceeding it" in ran.err
    assert "stopped  the budget of $" in ran.err
    spent = project.value("SELECT sum(cost_usd) FROM responses")
    assert 0 < spent <= 0.0003
    charged = project.charged()
    assert 1 <= charged < 4
    assert project.reasons() == {"new": 4 - charged}
    (run,) = project.rows("SELECT state, stopped_by, exit_code FROM runs")
    assert run == ("stopped", "budget", 75)

    project.run("run").ok()
    assert project.charged() == 4, "what was paid for was not asked again"


def test_a_budget_needs_a_known_price(project: ProjectFolder) -> None:
    project.edit("bioforge.toml", '"gpt-6-luna"', '"my-own-model"')
    refused = project.run("run", "--max-cost", "1")
    assert refused.code == 2
    assert refused.err.endswith(
        "error: the price of model 'my-own-model' is unknown, so a budget of $1 cannot be kept\n"
        "hint: leave out --max-cost and max_cost_usd, or use a model whose price is known\n"
    )
    assert project.server.ledger.counts.requests == 0
    project.run("run").ok()


def test_print_writes_each_text_and_nothing_else_to_stdout(project: ProjectFolder) -> None:
    ran = project.run("run", "--print").ok()
    texts = {row[0] for row in project.rows("SELECT text FROM responses")}
    assert len(texts) == 4
    assert sorted(ran.out.splitlines()) == sorted(line for text in texts for line in text.splitlines())
    assert project.run("run", "--print").ok().out == ""


def test_verbose_explains_each_target_and_logs_each_attempt(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "Icelandic singer", "Icelandic composer")
    project.write("artists.csv", project.read("artists.csv") + "5,Édith Piaf,,1915\n")
    err = project.run("run", "-v").ok().err
    assert [line for line in err.splitlines() if line.startswith("explain:")] == [
        "explain: bio 1 Björk: changed (column artist_data)",
        "explain: bio 5 Édith Piaf: new",
    ]
    attempts = re.findall(r"debug   attempt  worker=W\d\d artist=(\d) recipe=bio attempt=1 seconds=\S+ outcome=", err)
    assert sorted(attempts) == ["1", "5"]


def test_json_logs_are_json_on_every_line(tmp_path: Path) -> None:
    script = {"Absalon": ["server_error"], "Björk": ["bad_request"]}
    with Simulator(SimulatorOptions(script=script)) as server:
        project = ProjectFolder(tmp_path, server)
        project.configure(more="[[output]]\npath = 'out.jsonl'")
        ran = project.run("run", "--log-format", "json", "--log-file", "run.log", env={"OPENAI_API_KEY": KEY})
    assert ran.code == 1
    lines, logged = records(ran.err), records(project.read("run.log"))
    for line in lines:
        assert list(line)[:3] == ["timestamp", "level", "event"]
    for found in (lines, logged):
        attempts = [line for line in found if line["event"] == "attempt"]
        assert len(attempts) == 4, "two answers at once, one after a failure"
        for line in attempts:
            assert line["worker"].startswith("W")
            assert {line["artist"], str(line["attempt"])} <= set("0123456")
            assert line["seconds"] >= 0
        (failed,) = [line for line in found if line["event"] == "failed"]
        assert (failed["level"], failed["artist"], failed["error"], failed["status"]) == (
            "warning", "1", "bad_request", 400
        )  # fmt: skip
    (plan,) = [line for line in lines if line["event"] == "plan"]
    assert (plan["requests"], plan["simulated"], [group["reason"] for group in plan["groups"]]) == (4, False, ["new"])
    (finished,) = [line for line in lines if line["event"] == "finished"]
    assert (finished["succeeded"], finished["failed"], finished["retries"]) == (3, 1, 1)
    (written,) = [line for line in lines if line["event"] == "written"]
    assert len(records(project.read("out.jsonl"))) == 4, "the failed one too, with its error"
    assert (written["path"].endswith("out.jsonl"), written["records"]) == (True, 4)
    assert not [line["event"] for line in lines if "  " in line["event"]], "no columns of a table"


def test_json_logs_have_the_plan_and_the_result_as_fields(project: ProjectFolder) -> None:
    project.configure(more="[[output]]\npath = 'out.jsonl'")
    project.write("artists.csv", ARTISTS + "5\n")
    ran = project.run("run", "--log-format", "json", "-v", "--log-file", "run.log").ok()
    lines = records(ran.err)
    events = {line["event"]: line for line in lines}
    assert not [event for event in events if "  " in event or event.startswith(("recipe", "done", "bio", "wrote"))]
    assert (events["input"]["artists"], events["input"]["new"], events["input"]["bad_rows"]) == (4, 4, 1)
    assert [row["line"] for row in events["input"]["examples"]] == [7]
    (group,) = events["plan"]["groups"]
    assert (group["recipe"], group["variant"], group["reason"]) == ("bio", "", "new")
    assert (group["targets"], group["requests"]) == (4, 4)
    assert events["plan"]["cost_usd"] == pytest.approx(group["cost_usd"])
    assert isinstance(group["cost_usd"], float)
    targets = [line for line in lines if line["event"] == "target"]
    assert [(line["artist"], line["reason"]) for line in targets] == [(n, "new") for n in "1230"]
    logged = records(project.read("run.log"))
    assert [line["event"] for line in logged if line["event"] in events] == [line["event"] for line in lines]
    finished, result = events["finished"], events["result"]
    assert (finished["succeeded"], finished["replaced"], finished["failures"]) == (4, 0, {})
    assert (events["written"]["path"], events["written"]["records"]) == ("out.jsonl", 4)
    assert lines[-1] == result
    assert (result["run"], result["exit_code"], result["fresh"], result["skipped"], result["left"]) == (1, 0, 4, 0, [])


def test_json_logs_of_runs_that_fail_or_send_nothing(tmp_path: Path) -> None:
    with Simulator(SimulatorOptions(script={"Björk": ["bad_request"]})) as server:
        project = ProjectFolder(tmp_path, server)
        lines = records(project.run("run", "--log-format", "json").err)
        project.run("run").ok()
        plan, result = records(project.run("run", "--log-format", "json").ok().err)
    assert lines[-1]["exit_code"] == 1
    (group,) = lines[-1]["left"]
    assert (group["recipe"], group["reason"], group["targets"], group["example"]) == ("bio", "failed", 1, "1")
    assert [line["failures"] for line in lines if line["event"] == "finished"] == [{"bad_request": 1}]
    assert (plan["event"], plan["fresh"], plan["groups"]) == ("plan", True, [])
    assert (result["event"], result["run"], result["fresh"], result["exit_code"]) == ("result", None, 4, 0)


def test_json_logs_keep_warnings_beside_the_plan(project: ProjectFolder) -> None:
    ran = project.run("run", "--log-format", "json", "--select", "1", "--select", "77", "--max-cost", "0.0001")
    warnings = [line["event"] for line in records(ran.err) if line["level"] == "warning"]
    assert "no artist of the input matches --select 77" in warnings
    assert "the plan costs more than the budget of $0.0001; the run stops before exceeding it" in warnings


def test_a_dry_run_logs_its_plan_as_fields(project: ProjectFolder) -> None:
    ran = project.run("run", "-n", "--log-format", "json").ok()
    assert [line["event"] for line in records(ran.err)][:2] == ["input", "plan"]


def test_errors_are_json_too_where_logs_are(project: ProjectFolder) -> None:
    ran = project.run("run", "--log-format", "json", "boi")
    assert ran.code == 2
    (line,) = records(ran.err)
    assert (line["level"], line["event"], line["hint"]) == (
        "error", "no recipe 'boi' in bioforge.toml", "did you mean 'bio'?"
    )  # fmt: skip
    assert project.run("run", "boi").err.startswith("error: "), "and text again afterwards"


def test_a_log_file_is_appended_to(project: ProjectFolder) -> None:
    ran = project.run("run", "--log-file", "run.log").ok()
    assert "attempt  worker" not in ran.err, "stderr stays as it is"
    first = len(records(project.read("run.log")))
    project.run("run", "-B", "--select", "1", "--log-file", "run.log").ok()
    assert len(records(project.read("run.log"))) >= first + 2 >= 5


def test_the_key_is_nowhere(project: ProjectFolder) -> None:
    project.configure(more="[[output]]\npath = 'out.jsonl'")
    env = {"OPENAI_API_KEY": KEY}
    ran = project.run("run", "-v", "--log-file", "run.log", env=env).ok()
    for command in ("status", "audit", "plan", "export", "why 1"):
        shown = project.run(*command.split(), env=env).ok()
        assert KEY not in shown.out + shown.err
    assert KEY not in ran.out + ran.err
    for path in project.root.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


# ------------------------------------------------------------------------------------------------ account and limits


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_an_exhausted_quota_stops_the_run_and_fails_nobody(tmp_path: Path, server: Simulator, backend: str) -> None:
    with Simulator(SimulatorOptions(quota_after=3)) as poor:
        project = ProjectFolder(tmp_path, poor)
        many(project, 12)
        ran = project.run("run", "--backend", backend, "-j", "1")
        assert project.charged() == 3
    assert ran.code == 75
    assert "You exceeded your current quota" in ran.err
    assert "→ add credit or raise the spend limit" in ran.err
    assert "failed" not in project.reasons()
    assert sum(project.reasons().values()) == 9
    assert project.rows("SELECT state, stopped_by FROM runs") == [("stopped", "quota")]

    project.run("run", "--backend", backend, env=on(server)).ok()
    assert len(server.ledger) == 9
    assert project.value("SELECT count(*) FROM results WHERE state = 'fresh'") == 12


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_an_invalid_key_stops_before_anything_is_paid(project: ProjectFolder, backend: str) -> None:
    ran = project.run("run", "--backend", backend, env={"OPENAI_API_KEY": "sk-invalid-0123456789"})
    assert ran.code == 2
    assert ran.err.endswith("→ set a valid key in the variable that api_key_env names (default: OPENAI_API_KEY)\n")
    assert "sk-invalid-0123456789" not in ran.err
    assert project.charged() == 0
    assert "failed" not in project.reasons()
    project.run("run", "--backend", backend).ok()


def test_a_missing_key_is_said_before_anything_is_sent(project: ProjectFolder) -> None:
    project.edit("bioforge.toml", project.server.base_url, "https://api.example.org/v1")
    ran = project.run("run", env={"OPENAI_API_KEY": ""})
    assert ran.code == 2
    assert ran.err.endswith(
        "error: no API key for https://api.example.org/v1: OPENAI_API_KEY is not set\n"
        'hint: export OPENAI_API_KEY=…, or write it into .env, or set base_url = "simulator" to try without one\n'
    )
    project.run("plan", env={"OPENAI_API_KEY": ""}).ok()


def test_a_key_in_dotenv_is_read_and_the_environment_wins(project: ProjectFolder) -> None:
    project.write(".env", "OPENAI_API_KEY=sk-invalid-from-dotenv\n")
    assert project.run("run", env={"OPENAI_API_KEY": ""}).code == 2
    project.run("run", env={"OPENAI_API_KEY": KEY}).ok()


def test_an_overriding_environment_is_noted(project: ProjectFolder, server: Simulator) -> None:
    project.edit("bioforge.toml", server.base_url, "https://api.example.org/v1")
    ran = project.run("run", env=on(server)).ok()
    assert ran.err.startswith(
        f"note: provider.base_url from OPENAI_BASE_URL: {server.base_url!r}"
        " (the project file says 'https://api.example.org/v1')\n"
    )
    assert project.charged() == 4
    quiet = project.run("run", env={**on(server), "OPENAI_MODEL": "gpt-6-luna"}).ok()
    assert "OPENAI_MODEL" not in quiet.err, "what changes nothing is not worth a line"


# ------------------------------------------------------------------------------------------------------- selections


def test_a_selection_that_matches_nobody_is_said(project: ProjectFolder) -> None:
    ran = project.run("run", "--select", "77", "--select", "9*").ok()
    assert ran.err.splitlines() == [
        "input: 4 artists (4 new)",
        "warning: no artist of the input matches --select 77",
        "warning: no artist of the input matches --select 9*",
        "test: nothing to do for this selection",
        "4 more stale targets outside this run; `bioforge plan` lists them",
    ]
    planned = project.run("plan", "--select", "77").ok()
    assert planned.out.splitlines() == [
        "warning: no artist of the input matches --select 77",
        "test: nothing to do for this selection",
    ]
    project.run("run", "--select", "1").ok()
    assert "warning" not in project.run("run", "--select", "1").ok().err
