"""The backend echoes, and says to bioforge what a backend has to say."""

from __future__ import annotations

from collections.abc import Callable

from bioforge_echo import Echo, bioforge_backends

from bioforge.plugin import BackendContext, Request, RunControl, Started, Stop, Succeeded, Work
from bioforge.testing import ProjectFolder


def requests(number: int) -> list[Request]:
    body = b'{"input":"Who was Bj\xc3\xb6rk\'s teacher?","model":"any"}'
    return [Request(f"v1:{n:064x}", "/v1/responses", "any", body, f"a{n}", "bio") for n in range(number)]


def test_each_request_is_announced_and_then_answered() -> None:
    events = [event for group in Echo(BackendContext("", None)).execute(Work(iter(requests(2)))) for event in group]
    assert [type(event) for event in events] == [Started, Succeeded, Started, Succeeded]
    assert all(event.answer.text == "Who was Björk's teacher?" for event in events if isinstance(event, Succeeded))


def test_it_stops_when_it_is_asked_to() -> None:
    stop = Stop()
    groups = Echo(BackendContext("", None)).execute(Work(iter(requests(3)), control=RunControl(stop)))
    next(groups)
    stop.raise_level()
    assert sum(isinstance(event, Started) for group in groups for event in group) == 0


def test_a_project_is_answered_by_it_once(make_project: Callable[..., ProjectFolder]) -> None:
    project = make_project(toml={"backend": {"name": "echo"}, "provider": {"base_url": "http://127.0.0.1"}})
    project.run("run").ok()
    assert {record["response_text"] for record in project.records()} >= {"Björk: Icelandic singer"}
    project.assert_nothing_paid_twice()
    assert project.reasons() == {}
    assert project.charged() == 0


def test_the_hook_names_the_backend() -> None:
    assert bioforge_backends() == {"echo": Echo}
