"""Run the writer contract, without the parts about replacing delivered records."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from bioforge_webhook import BIOFORGE_API, bioforge_writers
from receiver import Receiver

from bioforge.testing import WriterContract


class TestWebhook(WriterContract):
    suffix = "db"
    name = "webhook"
    replaces = False
    wrong_options = (
        ({"batch": 0}, "batch"),
        ({"url": "example.org"}, "url"),
        ({"url": 3}, "url"),
        ({"secret_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
        ({"headers": {"Authorization": "Bearer abc"}}, "headers_env"),
        ({"headers_env": {"Authorization": "NO_SUCH_VARIABLE"}}, "NO_SUCH_VARIABLE"),
        ({"timeout": "20"}, "timeout"),
        ({"failed": "yes"}, "failed"),
    )

    @pytest.fixture(autouse=True)
    def _receiver(self) -> Iterator[None]:
        with Receiver() as self.receiver:
            # one at a time, so that the order is defined
            self.options = {"url": self.receiver.url, "failed": True, "concurrency": 1, "timeout": 10}
            yield

    def writer(self) -> Any:
        return bioforge_writers()["webhook"]

    def read(self, path: Path) -> Sequence[Mapping[str, Any]]:
        assert path.is_file()
        return [record for post in self.receiver.taken for record in post.records]

    def test_memory_does_not_grow_with_the_output(self, tmp_path: Path) -> None:
        pytest.skip("the receiver of the test is in this process; see test_writer.py")


def test_the_version_of_the_contract() -> None:
    assert BIOFORGE_API == 1


def test_loading_the_plugin_imports_no_http_library() -> None:
    code = "import bioforge_webhook, sys; print({'requests', 'tenacity', 'urllib3'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
