"""Projects of somebody else: where the key goes, which files are read, and which code runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from odd_server import OddServer
from test_wrong_setups import ANSWER

from bioforge.api import Client, Config, ProviderConfig
from bioforge.core.errors import UsageError
from bioforge.testing import ProjectFolder

KEY = {"OPENAI_API_KEY": "sk-secret-0123456789", "NO_PROXY": "", "no_proxy": ""}
FAR = "http://provider.example/v1"
SAID = "key from OPENAI_API_KEY goes to provider.example"


def project(root: Path, server: OddServer, base_url: str = FAR, **provider: object) -> ProjectFolder:
    tables: dict[str, Any] = {
        "project": {"name": "test"},
        "provider": {"base_url": base_url, **provider},
        "input": {"path": "artists.csv"},
        "recipe": {"bio": {"model": "m", "input": "{{ artist_name }}"}},
        "retry": {"first_delay": 0.001},
    }
    return ProjectFolder(root, server, None, tables)  # type: ignore[arg-type]


def through(server: OddServer) -> Mapping[str, str]:
    """Return an environment with a key, in which the server is the proxy for every host."""
    return {**KEY, "HTTP_PROXY": server.base_url.removesuffix("/v1")}


@pytest.mark.parametrize("command", [["run", "--backend", name] for name in ("async", "threads", "batch", "auto")])
@pytest.mark.parametrize("host", ["provider.example", "127.evil.example", "192.168.1.20", "10.0.0.1:8000"])
def test_a_key_goes_nowhere_by_plain_http(tmp_path: Path, command: list[str], host: str) -> None:
    with OddServer(ANSWER) as server:
        ran = project(tmp_path, server, f"http://{host}/v1").run(*command, env=through(server))
        assert ran.code == 2, ran.err
        assert f"would go to {host.partition(':')[0]} unencrypted" in ran.err
        assert "allow_http = true" in ran.err
        assert not server.asked


def test_batch_commands_send_no_key_by_plain_http(tmp_path: Path) -> None:
    with OddServer(ANSWER) as server:
        ran = project(tmp_path, server).run("batch", "list", env=through(server))
        assert (ran.code, "unencrypted" in ran.err) == (2, True), ran.err
        folder = project(tmp_path, server)
        (tmp_path / "bioforge.toml").unlink()
        ran = folder.run("batch", "status", "batch_1", env={**through(server), "OPENAI_BASE_URL": FAR})
        assert (ran.code, "unencrypted" in ran.err) == (2, True), ran.err
        assert not server.asked


def test_the_library_sends_no_key_by_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with OddServer(ANSWER) as server:
        for name, value in through(server).items():
            monkeypatch.setenv(name, value)
        refused = Client(Config(model="m", provider=ProviderConfig(base_url=FAR)))
        with refused as client, pytest.raises(UsageError, match="unencrypted") as caught:
            client.generate_sync("x")
        assert "ProviderConfig(allow_http=True)" in caught.value.hint
        assert not server.asked
        with Client(Config(model="m", provider=ProviderConfig(base_url=FAR, allow_http=True))) as client:
            client.generate_sync("x")
        assert [path for _, path, _ in server.asked] == [f"{FAR}/responses"]


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_the_host_of_a_key_is_named_once(tmp_path: Path, backend: str) -> None:
    with OddServer(ANSWER) as server:
        folder = project(tmp_path, server, allow_http=True)
        assert SAID not in folder.run("plan", env=through(server)).err
        ran = folder.run("run", "--backend", backend, env=through(server)).ok()
        assert ran.err.count(SAID) == 1, ran.err
        assert {path for _, path, _ in server.asked} == {f"{FAR}/responses"}
        assert SAID not in folder.run("run", "-B", "--backend", backend, env=through(server)).ok().err
        folder.edit("bioforge.toml", "provider.example", "another.example")
        again = folder.run("run", "-B", "--backend", backend, env=through(server)).ok().err
        assert "key from OPENAI_API_KEY goes to another.example" in again
    with OddServer(ANSWER) as server:
        assert "goes to" not in project(tmp_path / "near", server, server.base_url).run("run", env=KEY).ok().err


def test_files_outside_the_project_are_named_in_one_line(tmp_path: Path) -> None:
    with OddServer(ANSWER) as server:
        folder = project(tmp_path / "project", server, server.base_url)
        for name in ("rules.md", "people.csv", "schema.json"):
            (tmp_path / name).write_text(
                {"schema.json": '{"type": "string"}'}.get(name, "artist_id,artist_name\n1,Ann\n")
            )
        (folder.root / "link.md").symlink_to(tmp_path / "rules.md")
        assert "outside the project" not in folder.run("plan", env=KEY).ok().err
        folder.edit("bioforge.toml", '"artists.csv"', '"../people.csv"')
        line = f"note: outside the project: {tmp_path / 'people.csv'}\n"
        for command in ("plan", "run"):
            assert line in folder.run(command, env=KEY).ok().err
        folder.edit("bioforge.toml", 'model = "m"', 'model = "m"\ninstructions = "link.md"\nschema = "../schema.json"')
        names = ", ".join(str(tmp_path / name) for name in ("people.csv", "rules.md", "schema.json"))
        assert f"note: outside the project: {names}\n" in folder.run("plan", env=KEY).err


@pytest.mark.parametrize("command", [["plan", "--safe"], ["run", "--safe"], ["--safe", "run"], ["--safe", "gc"]])
@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('model = "m"', 'model = "m"\nschema = "evil:Model"', "recipe.bio.schema: evil:Model is code of the project"),
        ('model = "m"', 'model = "m"\nscore = "evil:points"', "recipe.bio.score: evil:points is code of the project"),
        ('model = "m"', 'model = "m"\ninstructions = "../rules.md"', "rules.md is outside the project"),
        ('"artists.csv"', '"../*.csv"', "people.csv is outside the project"),
        ('name = "test"', 'name = "test"\nstate = "../state.db"', "state.db is outside the project"),
        ("[retry]", '[[output]]\npath = "../out.csv"\n\n[retry]', "out.csv is outside the project"),
    ],
)
def test_safe_runs_no_code_and_uses_no_other_file(
    tmp_path: Path, command: list[str], old: str, new: str, named: str
) -> None:
    for name in ("rules.md", "people.csv"):
        (tmp_path / name).write_text("artist_id,artist_name\n1,Ann\n")
    with OddServer(ANSWER) as server:
        folder = project(tmp_path / "project", server, server.base_url)
        folder.write("evil.py", "from pathlib import Path\nPath('ran').touch()\n")
        folder.edit("bioforge.toml", old, new)
        ran = folder.run(*command, env=KEY)
        assert ran.code == 2, ran.err
        assert named in ran.err
        assert not server.asked
        assert not (folder.root / "ran").exists()
        assert not (tmp_path / "state.db").exists()


def test_safe_reads_no_dotenv(tmp_path: Path) -> None:
    with OddServer(ANSWER) as server, OddServer(ANSWER) as other:
        folder = project(tmp_path, server, server.base_url)
        folder.write(".env", f"OPENAI_BASE_URL={other.base_url}\nOPENAI_API_KEY=sk-theirs-0123456789\n")
        folder.run("run", "--safe", env=KEY).ok()
        folder.run("--safe", "run", "-B", env=KEY).ok()
        assert server.asked
        assert not other.asked
        folder.run("resume", "--safe", env=KEY).ok()
        folder.run("run", "-B", env=KEY).ok()
        assert other.asked, "a command without --safe reads it again"
