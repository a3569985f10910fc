"""Input from the web: fetched once, asked for again with its validators, read again only when it changed."""

from __future__ import annotations

import pytest
import responses
from projects import ARTISTS, ProjectFolder

URL = "https://museum.example/artists.csv"


@pytest.fixture
def web() -> responses.RequestsMock:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock  # type: ignore[misc]


@pytest.fixture
def remote(project: ProjectFolder) -> ProjectFolder:
    project.edit("bioforge.toml", 'path = "artists.csv"', f'path = "{URL}"')
    return project


def test_not_modified_means_nothing_to_read(remote: ProjectFolder, web: responses.RequestsMock) -> None:
    stamp = "Sat, 21 Nov 2026 07:00:00 GMT"
    web.get(URL, body=ARTISTS, headers={"ETag": '"one"', "Last-Modified": stamp})
    remote.run("run").ok()
    assert remote.charged() == 4
    assert remote.rows("SELECT etag, last_modified FROM inputs") == [('"one"', stamp)]
    generation = remote.value("SELECT value FROM facts WHERE name = 'generation'")

    web.replace("GET", URL, status=304)
    again = remote.run("run").ok()
    asked = web.calls[-1].request.headers
    assert (asked["If-None-Match"], asked["If-Modified-Since"]) == ('"one"', stamp)
    assert "up to date" in again.err
    assert remote.value("SELECT value FROM facts WHERE name = 'generation'") == generation

    web.replace("GET", URL, body=ARTISTS.replace("singer", "composer"), headers={"ETag": '"two"'})
    remote.run("run").ok()
    assert remote.charged() == 5


def test_a_server_that_fails_costs_nothing_and_says_so(remote: ProjectFolder, web: responses.RequestsMock) -> None:
    web.get(URL, status=503)
    ran = remote.run("run")
    assert ran.code == 2
    assert "503" in ran.err
    assert "hint:" in ran.err
    assert remote.charged() == 0


def test_a_token_in_the_address_is_not_kept(remote: ProjectFolder, web: responses.RequestsMock) -> None:
    remote.edit("bioforge.toml", URL, f"{URL}?token=s3cret")
    web.get(URL, body=ARTISTS + "5,,no name,1900\n")
    ran = remote.run("run").ok()
    assert "1 bad row" in ran.err
    assert "s3cret" not in ran.err
    assert b"s3cret" not in (remote.root / "bioforge.db").read_bytes()
