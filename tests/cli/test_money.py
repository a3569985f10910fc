"""Stories in which money could go astray: refusals, acceptances, forgetting, budgets, and telling pretence from real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import ARTISTS, ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

NO_KEY = {"OPENAI_API_KEY": ""}


def audit(project: ProjectFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.run("audit", "--format", "json").ok().out)
    return found


def text(project: ProjectFolder, artist: str) -> str:
    return str(project.value("SELECT text FROM results WHERE artist_id = ?", artist))


def ask(project: ProjectFolder, old: str, new: str) -> None:
    project.edit("bioforge.toml", f"Write a {old}.", f"Write a {new}.")


@pytest.fixture
def keyless(project: ProjectFolder) -> ProjectFolder:
    """A provider that is not on loopback needs a key, and nothing is sent without one."""
    project.edit("bioforge.toml", project.server.base_url, "https://provider.example/v1")
    return project


def test_a_refused_limit_leaves_nothing_behind(keyless: ProjectFolder) -> None:
    assert keyless.run("run", "--limit", "3", env=NO_KEY).code == 2
    keyless.edit("bioforge.toml", "https://provider.example/v1", keyless.server.base_url)
    keyless.run("run", "--limit", "1").ok()
    assert keyless.charged() == 1


def test_a_refused_always_make_forces_nothing(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("bioforge.toml", project.server.base_url, "https://provider.example/v1")
    assert project.run("run", "-B", env=NO_KEY).code == 2
    assert project.run("plan", "-q").code == 0


def test_an_accepted_answer_is_not_exchanged_for_a_later_one(project: ProjectFolder) -> None:
    project.run("run").ok()
    first = text(project, "1")
    ask(project, "biography", "portrait")
    project.run("accept", "--yes").ok()
    ask(project, "portrait", "poem")
    project.run("run").ok()
    assert text(project, "1") != first
    ask(project, "poem", "portrait")
    assert project.run("plan", "-q").code == 0
    project.run("run").ok()
    assert text(project, "1") == first
    assert project.charged() == 8


def test_forgetting_one_answer_leaves_what_was_accepted_for_others(project: ProjectFolder) -> None:
    project.run("run").ok()
    ask(project, "biography", "portrait")
    project.run("accept", "--yes").ok()
    project.run("forget", "1", "--yes").ok()
    assert project.reasons() == {"forgotten": 1}


def test_forgetting_again_and_again_keeps_the_books(project: ProjectFolder) -> None:
    for _ in range(3):
        project.run("run", "--select", "1").ok()
        project.run("forget", "1", "--yes").ok()
    found = audit(project)
    assert (found["lost"], found["paid_twice"], found["forgotten"], found["paid"]) == (0, 0, 3, 3)
    assert found["forgotten_cost_usd"] == pytest.approx(found["cost_usd"])


class TestAFailingServer:
    @pytest.fixture
    def server(self) -> Iterator[Simulator]:
        # the second time it is asked about Absalon, and then no more
        with Simulator(SimulatorOptions(script={"Absalon": ["ok", "bad_request"]})) as running:
            yield running

    def test_asking_again_on_purpose_stays_on_purpose_when_it_takes_two_runs(self, project: ProjectFolder) -> None:
        project.run("run").ok()
        assert project.run("run", "-B", "--select", "3").code == 1
        project.run("run").ok()
        found = audit(project)
        assert (found["paid_twice"], found["forced_again"]) == (0, 1)


class TestARefusingServer:
    @pytest.fixture
    def server(self) -> Iterator[Simulator]:
        script = {"Absalon": ["refusal"] * 9, "Abbey": ["refusal"] * 9}
        with Simulator(SimulatorOptions(script=script)) as running:
            yield running

    def test_a_refused_answer_is_held_and_never_passes_for_success(self, project: ProjectFolder) -> None:
        assert project.run("run").code == 1
        assert project.charged() == 4
        for arguments in ((), ("--select", "reason:failed"), ("--select", "3")):
            assert project.run("run", *arguments).code == 1
        assert project.charged() == 4
        (group,) = project.plan()["groups"]
        assert (group["reason"], group["detail"], group["targets"], group["requests"]) == ("failed", "refusal", 2, 0)
        failed = [json.loads(line) for line in project.run("export", "--failed", "-F", "jsonl").ok().out.splitlines()]
        assert [record["error"]["class"] for record in failed] == ["refusal", "refusal"]


def test_a_budget_without_an_output_limit_sends_one_first(tmp_path: Path) -> None:
    with Simulator(SimulatorOptions(latency=0.01)) as server:
        project = ProjectFolder(tmp_path, server)
        rows = "".join(f"{number},Artist {number},painter\n" for number in range(200))
        project.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
        project.edit("bioforge.toml", "max_output_tokens = 400", "temperature = 0.5")
        ran = project.run("run", "--max-cost", "0.001", "-j", "32")
    assert ran.code == 75, ran.err
    assert 0.0005 < project.value("SELECT sum(cost_usd) FROM responses") <= 0.001
    assert "budget" in ran.err


def test_resume_keeps_to_what_is_left_of_the_budget(project: ProjectFolder) -> None:
    # an answer costs about $0.00005, and four times that is set aside for each: the last one no longer fits
    assert project.run("run", "--max-cost", "0.00028").code == 75
    refused = project.run("resume")
    assert refused.code == 2
    assert "stopped at its budget" in refused.err
    project.run("resume", "--max-cost", "1").ok()
    assert project.charged() == 4


def test_simulated_answers_do_not_pass_for_real_ones(project: ProjectFolder) -> None:
    real = project.server.base_url
    project.edit("bioforge.toml", real, "simulator")
    project.run("run").ok()
    assert project.charged() == 0
    project.edit("bioforge.toml", '"simulator"', f'"{real}"')
    assert project.reasons() == {"changed": 4}
    project.run("run").ok()
    assert project.charged() == 4


@pytest.mark.parametrize("content", ["artist_id,artist_name\n", "artist_id,artist_name\n1,\n2,\n"])
def test_an_input_without_one_good_row_removes_nobody(project: ProjectFolder, content: str) -> None:
    project.configure(more="[[output]]\npath = 'out.jsonl'")
    project.run("run").ok()
    project.write("artists.csv", content)
    ran = project.run("run")
    assert ran.code == 2
    assert len(project.read("out.jsonl").splitlines()) == 4
    assert project.value("SELECT count(*) FROM artists WHERE removed_at IS NOT NULL") == 0
    project.write("artists.csv", ARTISTS)
    project.run("run").ok()
    assert project.charged() == 4


def test_a_limited_plan_has_the_price_of_what_it_would_send(project: ProjectFolder) -> None:
    whole, limited = project.plan(), project.plan("--limit", "1")
    assert (whole["requests"], limited["requests"]) == (4, 1)
    assert limited["cost_usd"] < whole["cost_usd"]
    project.run("plan", "--limit", "1", "--out", "one.plan").ok()
    assert json.loads(project.read("one.plan").splitlines()[0])["targets"] == 1
    project.run("run", "--plan", "one.plan").ok()
    assert project.charged() == 1


def test_two_recipes_that_ask_alike_pay_once(project: ProjectFolder) -> None:
    recipe = project.read("bioforge.toml").split("[recipe.bio]\n")[1].split("[retry]")[0]
    project.configure(more=f"[recipe.twin]\n{recipe}")
    planned = project.plan()
    assert planned["requests"] == 4
    ran = project.run("run").ok()
    assert project.charged() == 4
    assert "4 of 4" in ran.err
    assert "left" not in ran.err


def test_a_template_that_gives_another_text_each_time_is_refused(project: ProjectFolder) -> None:
    project.edit("bioforge.toml", "{{ artist_name }}", "{{ [artist_name, artist_id] | random }}")
    ran = project.run("run")
    assert ran.code == 2
    assert "No filter named 'random'" in ran.err
    assert "same text every time" in ran.err


def test_a_damaged_plan_is_refused(project: ProjectFolder) -> None:
    project.run("plan", "--out", "a.plan").ok()
    header = project.read("a.plan").splitlines()[0]
    project.write("a.plan", f"{header}\n{{}}\n")
    ran = project.run("run", "--plan", "a.plan")
    assert ran.code == 2
    assert "line 2: not a line of a plan" in ran.err
    assert project.charged() == 0


def test_dry_run_of_always_make_shows_what_is_fresh_too(project: ProjectFolder) -> None:
    project.run("run").ok()
    ran = project.run("run", "-n", "-B", "--select", "1").ok()
    assert ran.out.count('"url"') == 1
    assert project.run("plan", "-q").code == 0


def test_a_key_that_the_provider_repeats_is_neither_shown_nor_kept(project: ProjectFolder) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Telltale(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": {"message": f"wrong key: {self.headers['Authorization']}"}}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Telltale) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            project.edit("bioforge.toml", project.server.base_url, f"http://127.0.0.1:{server.server_port}/v1")
            ran = project.run("run", "-v", env={"OPENAI_API_KEY": "my-very-secret-key"})
        finally:
            server.shutdown()
            thread.join()
    assert ran.code == 2, ran.err
    assert "wrong key" in ran.err
    assert "my-very-secret-key" not in ran.err
    assert b"my-very-secret-key" not in (project.root / "bioforge.db").read_bytes()
