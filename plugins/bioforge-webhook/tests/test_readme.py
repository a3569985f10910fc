"""Check README.md: its project delivers to its receiver, and its table lists every option."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from bioforge_webhook.options import WebhookOptions
from conftest import SECRET, Deliver, bios
from pydantic.fields import FieldInfo

from bioforge.plugin import OutputError
from bioforge.testing import MakeProject, wait_until

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_the_project_delivers_to_the_receiver(
    make_project: MakeProject, deliver: Deliver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    (tmp_path / "receiver.py").write_text(block("python"), "utf-8")
    (tmp_path / "taken.txt").touch()
    with (
        (tmp_path / "taken.txt").open("wb") as taken,
        subprocess.Popen(
            [sys.executable, tmp_path / "receiver.py"],
            stdout=taken,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PORT": str(port), "WEBHOOK_SECRET": SECRET, "PYTHONUTF8": "1"},
        ) as receiver,
    ):
        try:
            wait_until(lambda: listens(port) or receiver.poll() is not None, "the receiver of the README")
            url = f"http://127.0.0.1:{port}/hooks/bios"
            text = block("toml").replace("https://example.org/hooks/bios", url)
            assert url in text
            project = make_project(toml=text + '[provider]\nbase_url = "{base_url}"\n')
            ran = project.run("run", env={"WEBHOOK_SECRET": SECRET}).ok()
            assert "wrote out/deliveries.db (delivered 4, 0 before)" in ran.err
            (project.root / "out" / "deliveries.db").unlink()
            project.run("run", env={"WEBHOOK_SECRET": SECRET}).ok()

            with pytest.raises(OutputError, match="401"):  # without the secret
                deliver(bios(1), url=url, stop_after=1)
            monkeypatch.setenv("OTHER", SECRET[:-5] + "AAAA=")
            with pytest.raises(OutputError, match="401"):
                deliver(bios(1), url=url, secret_env="OTHER", stop_after=1)
        finally:
            receiver.terminate()
    lines = (tmp_path / "taken.txt").read_text("utf-8").splitlines()
    ids = [line.split()[0] for line in lines if re.match(r"[0-3] ", line)]
    assert sorted(ids) == ["0", "1", "2", "3"], "posted twice, and acted on once"


def test_the_receiver_is_short() -> None:
    assert len(block("python").splitlines()) <= 25


def test_every_option_is_in_the_table_with_its_default() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \|(.*?)\| .* \|$", README.split("## Options")[1].split("\n## ")[0], re.MULTILINE)
    )
    assert list(rows) == list(WebhookOptions.model_fields)
    for name, field in WebhookOptions.model_fields.items():
        assert rows[name].strip(" `") in defaults(field), name


def defaults(field: FieldInfo) -> tuple[str, ...]:
    if field.default is None:
        return ("", "the url")
    return (json.dumps(field.default), f"{field.default:g}" if isinstance(field.default, float) else "")
