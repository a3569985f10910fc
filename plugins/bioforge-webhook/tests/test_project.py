"""Run and export projects with the writer, with kills and interrupts, and check the costs."""

from __future__ import annotations

import signal
import threading

from conftest import SECRET
from receiver import Answer, Post, Receiver
from standardwebhooks import Webhook

from bioforge.testing import KILLED, MakeProject, ProjectFolder, wait_until

ENVIRONMENT = {"WEBHOOK_SECRET": SECRET}


def artists(number: int) -> str:
    rows = (f"{artist},Artist {artist},painter\n" for artist in range(1, number + 1))
    return "artist_id,artist_name,artist_data\n" + "".join(rows)


def delivering(make_project: MakeProject, receiver: Receiver, number: int, **options: object) -> ProjectFolder:
    output = {
        "path": "out/deliveries.db",
        "writer": "webhook",
        "url": receiver.url,
        "secret_env": "WEBHOOK_SECRET",
        "first_delay": 0.001,
        **options,
    }
    return make_project({"artists.csv": artists(number)}, toml={"output": [output]})


def test_a_run_delivers_what_is_new(make_project: MakeProject, receiver: Receiver) -> None:
    project = delivering(make_project, receiver, 3)
    assert "delivered 3, 0 before" in project.run("run", env=ENVIRONMENT).ok().err
    for post in receiver.posts:
        record = Webhook(SECRET).verify(post.body, dict(post.headers))
        assert record["recipe"] == "bio"
        assert record["response_text"]
    project.edit("artists.csv", "Artist 2,painter", "Artist 2,sculptor")
    assert "delivered 1, 2 before" in project.run("run", env=ENVIRONMENT).ok().err
    project.run("run", env=ENVIRONMENT).ok()
    assert receiver.delivered == ["1", "2", "2", "3"]
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in project.root.rglob("*") if path.is_file())


def test_a_failure_is_exit_code_1_and_the_next_run_pays_nothing(make_project: MakeProject, receiver: Receiver) -> None:
    project = delivering(make_project, receiver, 6, max_attempts=1)
    receiver.answer = lambda post: 503 if post.artists[0] in ("2", "5") else 204
    ran = project.run("run", env=ENVIRONMENT).failed(1)
    assert "2 of 6 records could not be delivered" in ran.err
    assert project.charged() == 6

    receiver.forget()
    receiver.answer = lambda post: 204
    assert "delivered 2, 4 before" in project.run("run", env=ENVIRONMENT).ok().err
    assert receiver.delivered == ["2", "5"]
    assert project.charged() == 6, "a delivery is no reason to ask anything again"
    project.assert_ledger_equals_state()


def test_a_mistake_is_reported_before_anything_is_sent(make_project: MakeProject, receiver: Receiver) -> None:
    project = delivering(make_project, receiver, 3, batch=0)
    assert "batch" in project.run("run", env=ENVIRONMENT).failed(2).err
    project = delivering(make_project, receiver, 3)
    assert "WEBHOOK_SECRET is not set" in project.run("run", env={"WEBHOOK_SECRET": ""}).failed(2).err
    assert (project.charged(), receiver.posts) == (0, [])


def test_an_export_delivers_with_the_options_of_the_output(make_project: MakeProject, receiver: Receiver) -> None:
    project = delivering(make_project, receiver, 3)
    project.run("run", env=ENVIRONMENT).ok()
    (project.root / "out" / "deliveries.db").unlink()
    ran = project.run("export", "-F", "webhook", "-o", "out/deliveries.db", "--select", "2", env=ENVIRONMENT).ok()
    assert "delivered 1, 0 before" in ran.err
    assert receiver.delivered == ["1", "2", "2", "3"]
    assert "webhook-signature" in receiver.posts[-1].headers


def test_after_a_kill_only_requests_in_flight_are_repeated(make_project: MakeProject, receiver: Receiver) -> None:
    project = delivering(make_project, receiver, 30, concurrency=3, timeout=60)
    held = threading.Event()
    holding: list[str] = []

    def hold_from_the_tenth(post: Post) -> Answer:
        if post.number > 10:
            holding.append(post.artists[0])
            held.wait(60)
        return 204

    receiver.answer = hold_from_the_tenth
    running = project.start("run", env=ENVIRONMENT)
    wait_until(lambda: len(holding) == 3 or running.gone(), "three requests in flight")
    running.kill()
    assert running.end().code == KILLED
    held.set()
    wait_until(lambda: len(receiver.taken) == 13, "the receiver has accepted them")

    receiver.answer = lambda post: 204
    ran = project.process("run", env=ENVIRONMENT).ok()
    assert "delivered 20, 10 before" in ran.err
    assert set(receiver.delivered) == {str(artist) for artist in range(1, 31)}
    twice = {record["artist_id"] for post in receiver.taken for record in post.records} & set(holding)
    assert len(receiver.duplicates()) == len(twice) == 3
    assert set(receiver.duplicates().values()) == {2}
    assert project.charged() == 30
    project.assert_ledger_equals_state()


def test_after_an_interrupt_nothing_is_repeated(make_project: MakeProject, receiver: Receiver) -> None:
    project = delivering(make_project, receiver, 30, concurrency=3, timeout=60)
    held = threading.Event()

    def hold_from_the_tenth(post: Post) -> Answer:
        if post.number > 10:
            held.wait(60)
        return 204

    receiver.answer = hold_from_the_tenth
    running = project.start("run", env=ENVIRONMENT)
    wait_until(lambda: len(receiver.posts) == 13 or running.gone(), "three requests in flight")
    running.signal(signal.SIGINT)
    held.set()
    running.end().failed(130)

    receiver.answer = lambda post: 204
    project.process("run", env=ENVIRONMENT).ok()
    assert receiver.delivered == sorted(str(artist) for artist in range(1, 31))
    assert receiver.duplicates() == {}
