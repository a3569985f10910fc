"""Log lines: for people or for machines, whole, and without secrets."""

from __future__ import annotations

import io
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from bioforge.core.errors import UsageError
from bioforge.report.logs import as_line, colourful, configure, mask

AT = datetime(2026, 11, 21, 7, 41, 2, 123456, UTC)


@pytest.fixture(autouse=True)
def untouched():
    yield
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestConsole:
    def test_a_line_for_people(self, capsys):
        configure().logger.info("paused", seconds=1.5, why="rate limit", artist="42", n=3, on=None, empty="")
        line = capsys.readouterr().err
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d info    paused  seconds=1\.5 why='rate limit' artist=42 n=3 on=null empty=''\n", line
        )

    def test_details_only_when_verbose(self, capsys):
        configure().logger.debug("attempt")
        assert capsys.readouterr().err == ""
        configure(verbose=True).logger.debug("attempt")
        assert "debug   attempt" in capsys.readouterr().err

    def test_nothing_from_outside_reaches_the_terminal_raw(self):
        line = as_line(AT, "info", "a\x1b[2Jb", {"text": "one\ntwo\x07"})
        assert "\x1b" not in line
        assert "\n" not in line
        assert line.endswith(r"  text=one\ntwo\x07")

    def test_a_traceback_follows(self, capsys):
        logger = configure().logger
        try:
            raise ValueError("wrong")
        except ValueError:
            logger.exception("broken")
        first, *rest = capsys.readouterr().err.splitlines()
        assert first.endswith("error   broken")
        assert rest[-1] == "ValueError: wrong"

    def test_colours_only_on_a_terminal_that_wants_them(self):
        assert colourful(Terminal(), {})
        assert not colourful(Terminal(), {"NO_COLOR": "1"})
        assert not colourful(Terminal(), {"TERM": "dumb"})
        assert not colourful(io.StringIO(), {})
        closed = io.StringIO()
        closed.close()
        assert not colourful(closed, {})

    def test_colours(self):
        assert as_line(AT, "warning", "x", {"a": 1}, colours=True).count("\x1b[0m") == 3


class TestJson:
    def test_one_object_a_line(self, capsys):
        configure("json").logger.debug("attempt", artist="Björk\n", seconds=0.25, tags={"a": [1]})
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        found = json.loads(line)
        assert list(found)[:3] == ["timestamp", "level", "event"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("timestamp"))
        assert found == {
            "level": "debug",
            "event": "attempt",
            "artist": "Björk\n",
            "seconds": 0.25,
            "tags": {"a": [1]},
        }


class TestSecrets:
    @pytest.mark.parametrize("format", ["console", "json"])
    def test_no_key_in_any_place(self, format, capsys, tmp_path):
        logs = configure(format, log_file=tmp_path / "log", secrets=["plain-secret-key", None, "x"])
        try:
            raise RuntimeError("with sk-abcdef123456 inside")
        except RuntimeError:
            logs.logger.exception(
                "key sk-abcdef123456 refused",
                message="Incorrect API key provided: sk-abcd*****3456.",
                api_key="anything",
                headers={"Authorization": "Bearer abc.def", "x-api-key": "q", "x": ["sk-abcdef123456"]},
                error=ValueError("plain-secret-key"),
                api_key_env="OPENAI_API_KEY",
                max=1,
            )
        logs.close()
        written = capsys.readouterr().err + (tmp_path / "log").read_text()
        for secret in ("sk-a", "3456", "anything", "abc.def", "plain-secret-key", '"q"'):
            assert secret not in written
        assert written.count("OPENAI_API_KEY") == 2
        assert "max" in written

    def test_ordinary_words_stay(self):
        assert mask({"text": "a risk-averse task-oriented bearer of news", "input_tokens": 3}) == {
            "text": "a risk-averse task-oriented bearer of news",
            "input_tokens": 3,
        }


class TestFile:
    def test_it_has_everything_as_json_and_grows(self, tmp_path, capsys):
        for number in (1, 2):
            logs = configure(log_file=tmp_path / "run.log")
            assert logs.every_attempt
            logs.logger.debug("attempt", number=number)
            logs.close()
        assert [json.loads(line)["number"] for line in (tmp_path / "run.log").read_text().splitlines()] == [1, 2]
        assert capsys.readouterr().err == ""

    def test_one_that_cannot_be_written(self, tmp_path):
        with pytest.raises(UsageError, match=r"cannot write the log file .*: Is a directory"):
            configure(log_file=tmp_path)

    def test_a_full_disk_does_not_stop_the_run(self, capsys):
        logs = configure(log_file=Path("/dev/full"))
        logs.logger.info("one")
        logs.logger.info("two")
        assert "the log file /dev/full ends here: No space left on device" in capsys.readouterr().err


def test_a_stderr_that_nobody_reads(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    configure().logger.error("nobody hears this")


def test_lines_can_be_sent_elsewhere(capsys):
    logs, lines = configure(), []
    logs.redirect(lines.append)
    logs.logger.info("above")
    logs.redirect(None)
    logs.logger.info("below")
    assert len(lines) == 1
    assert "above" in lines[0]
    assert "below" in capsys.readouterr().err


def test_plugins_log_through_structlog(capsys):
    configure("json")
    structlog.get_logger("a_plugin").warning("hello", who="plugin")
    assert json.loads(capsys.readouterr().err)["who"] == "plugin"
