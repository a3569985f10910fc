"""Answers become files other programs read, written as a whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioforge.core.errors import ConfigError, OutputError
from bioforge.core.files import atomic_write
from bioforge.writers.csv import CSV_COLUMNS
from bioforge.writers.plugin import bioforge_writers

BJORK: Mapping[str, object] = {
    "artist_id": "bjork",
    "artist_name": "Björk",
    "artist_data": "Singer",
    "recipe": "bio",
    "request": {"model": "gpt-6-luna", "input": "Björk"},
    "response_text": "Björk sings.\nShe is from Iceland.\n",
    "response_id": "resp_1",
    "created": "2026-11-21T08:00:00+00:00",
    "model": "gpt-6-luna-2026",
    "usage": {"input_tokens": 12, "output_tokens": 9},
    "cost_usd": 0.000025,
    "error": None,
}
FACTS: Mapping[str, object] = {
    **BJORK,
    "recipe": "facts",
    "variant": "temperature=0.2",
    "response_text": '{"born": 1965}',
    "parsed": {"born": 1965, "quote": "```"},
}
FAILED: Mapping[str, object] = {
    "artist_id": "0",
    "artist_name": "Tyler, the\nCreator",
    "recipe": "bio",
    "error": {"class": "rate_limit", "code": None, "message": "too many\nrequests"},
}


def write(name: str, *records: Mapping[str, object], **options: object) -> str:
    stream = io.BytesIO()
    bioforge_writers()[name](iter(records), stream, options)
    assert not stream.closed
    return stream.getvalue().decode()


def table(text: str, **arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), **arguments))


def files(*records: Mapping[str, object]) -> dict[str, str]:
    writer = bioforge_writers()["markdown-folder"]
    assert writer.writes_folder
    return {name: content.decode() for name, content in writer(iter(records), {})}


# ---------------------------------------------------------------------------------------------------------- formats


def test_json_lines_hold_each_record_as_it_is():
    lines = write("jsonl", BJORK, FAILED).splitlines()
    assert [json.loads(line) for line in lines] == [BJORK, FAILED]
    assert '"artist_name": "Björk"' in lines[0]
    assert write("ndjson", BJORK) == write("jsonl", BJORK)
    assert write("jsonl") == ""


def test_half_a_surrogate_pair_from_a_model_does_not_stop_an_export():
    broken = {**BJORK, "response_text": "a\ud83d"}
    assert [json.loads(line) for line in write("jsonl", broken, BJORK).splitlines()] == [broken, BJORK]
    assert table(write("csv", broken))[0]["response_text"] == "a?"
    assert "a?" in write("md", broken)
    assert "a?" in next(iter(files(broken).values()))


def test_csv_has_fixed_columns_for_every_record():
    rows = table(write("csv", BJORK, FACTS, FAILED))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert rows[0]["response_text"] == BJORK["response_text"]
    assert (rows[0]["input_tokens"], rows[0]["output_tokens"], rows[0]["cost_usd"]) == ("12", "9", "2.5e-05")
    assert (rows[0]["parsed"], rows[0]["error_class"], rows[0]["variant"]) == ("", "", "")
    assert json.loads(rows[1]["parsed"]) == FACTS["parsed"]
    assert (rows[2]["error_class"], rows[2]["error_message"]) == ("rate_limit", "too many\nrequests")


def test_csv_columns_can_be_chosen():
    rows = table(write("csv", BJORK, columns=["artist_name", "usage", "error_code", "request"]))
    assert list(rows[0]) == ["artist_name", "usage", "error_code", "request"]
    assert json.loads(rows[0]["usage"]) == BJORK["usage"]


def test_csv_for_spreadsheets():
    assert write("csv", BJORK, bom=True).startswith("\ufeffartist_id,")
    assert write("csv", BJORK, delimiter=";").startswith("artist_id;artist_name;")
    assert write("tsv", BJORK).startswith("artist_id\tartist_name\t")
    assert write("csv", BJORK, delimiter="tab") == write("tsv", BJORK)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-M-", "@home", "\tx", "\rx"])
def test_formulas_are_kept_as_they_are_unless_asked(name):
    record = {**BJORK, "artist_name": name, "cost_usd": -1.0}
    assert table(write("csv", record))[0]["artist_name"] == name
    escaped = table(write("csv", record, formulas="escape"))[0]
    assert (escaped["artist_name"], escaped["cost_usd"], escaped["artist_id"]) == (f"'{name}", "-1.0", "bjork")


_text = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(_text, _text), max_size=8), st.sampled_from(["csv", "tsv"]))
def test_whatever_the_texts_are_the_csv_module_reads_them_back(texts, name):
    records = [{"artist_id": "1", "artist_data": data, "response_text": text, "error": None} for data, text in texts]
    rows = table(write(name, *records), delimiter="\t" if name == "tsv" else ",")
    assert [(row["artist_data"], row["response_text"]) for row in rows] == texts


def test_markdown_has_a_section_an_artist():
    assert write("markdown", BJORK, FAILED) == (
        "# Björk\n\nBjörk sings.\nShe is from Iceland.\n\n# Tyler, the Creator\n\n> No text: rate_limit, too many requests\n"
    )
    assert write("md") == ""


def test_markdown_names_the_recipes_of_an_artist_with_several_texts():
    text = write("md", BJORK, FACTS)
    assert text.startswith("# Björk\n\n## bio\n\nBjörk sings.")
    assert '\n\n## facts (temperature=0.2)\n\n````json\n{\n  "born": 1965,\n  "quote": "```"\n}\n````\n' in text
    assert text.count("# Björk") == 1


def test_markdown_leaves_names_and_texts_as_they_are():
    text = write("md", {**BJORK, "artist_name": "*NSYNC_ <b>", "response_text": "  # a *b* <c> & `d`"})
    assert text == "# *NSYNC_ <b>\n\n  # a *b* <c> & `d`\n"


def test_a_folder_has_a_file_an_artist_with_front_matter():
    found = files(BJORK, {**FAILED, "response_text": "Text."})
    assert list(found) == ["bjork_bjork.md", "tyler-the-creator_0.md"]
    assert found["bjork_bjork.md"] == (
        '---\nartist_id: "bjork"\nartist_name: "Björk"\nrecipe: "bio"\nmodel: "gpt-6-luna-2026"\n'
        'created: "2026-11-21T08:00:00+00:00"\nresponse_id: "resp_1"\ncost_usd: 2.5e-05\n---\n\n'
        "# Björk\n\nBjörk sings.\nShe is from Iceland.\n"
    )
    assert 'recipes: ["bio", "facts"]' in files(BJORK, FACTS)["bjork_bjork.md"]


def test_files_never_leave_their_folder_nor_overwrite_each_other():
    ids = [
        "../../etc/passwd",
        "/x",
        "..",
        "",
        "A",
        "a",
        "CON",
        "nul",
        "a b",
        "a/b",
        "a\\b",
        "x" * 400,
        "x" * 401,
        "é",
        "É",
    ]
    found = files(*({**BJORK, "artist_id": artist_id, "artist_name": "../" + artist_id} for artist_id in ids))
    assert len({name.casefold() for name in found}) == len(ids)
    for name in found:
        assert Path(name).name == name
        assert not name.startswith(".")
        assert name.split(".")[0].upper() not in {"CON", "NUL"}
        assert len(name.encode()) <= 255


def test_records_are_written_one_at_a_time():
    pulled: list[int] = []

    def endless() -> Iterator[Mapping[str, object]]:
        for number in range(1_000_000_000):
            pulled.append(number)
            yield {**BJORK, "artist_id": str(number)}

    produced = bioforge_writers()["markdown-folder"](endless(), {})
    assert next(produced)[0] == "bjork_0.md"
    assert len(pulled) == 2

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("jsonl", "csv", "md"):
        pulled.clear()
        with pytest.raises(OSError, match="No space left"):
            bioforge_writers()[name](endless(), Full(), {})
        assert len(pulled) < 1_000


@pytest.mark.parametrize(
    ("name", "options", "message", "hint"),
    [
        ("jsonl", {"indent": 2}, "indent: this writer has no such option", "it has no options"),
        ("csv", {"colums": []}, "colums: this writer has no such option", "did you mean 'columns'?"),
        ("csv", {"columns": ["text"]}, "'text' is not a column of a record", "response_text"),
        ("csv", {"columns": "artist_id"}, "expected a list of names", "columns = "),
        ("csv", {"columns": [["x"]]}, "['x'] is not a column of a record", ""),
        ("csv", {"delimiter": ";;"}, "expected one character", "tab"),
        ("csv", {"bom": "yes"}, "expected true or false", ""),
        ("csv", {"formulas": "drop"}, "formulas: found 'drop'", '"escape"'),
        ("md", {"split": True}, "split: this writer has no such option", 'ends in "/"'),
        ("markdown-folder", {"split": True}, "split", ""),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_anything_is_written(name, options, message, hint):
    writer = bioforge_writers()[name]
    stream = io.BytesIO()
    arguments = ((), options) if getattr(writer, "writes_folder", False) else ((), stream, options)
    with pytest.raises(ConfigError) as caught:
        writer(*arguments)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert stream.getvalue() == b""


# ------------------------------------------------------------------------------------------------- files as a whole


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "out.jsonl"
    with atomic_write(path) as stream:
        stream.write(b"one")
    with atomic_write(path, durable=False) as stream:
        stream.write(b"two")
        stream.flush()
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["out.jsonl"]


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_a_block_that_fails_changes_nothing(tmp_path, raised):
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_write(path) as stream:
            stream.write(b"new")
            raise raised

    with pytest.raises(raised):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_permissions_stay_and_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "new") as stream:
            stream.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o604)
    with atomic_write(tmp_path / "new") as stream:
        stream.write(b"y")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


def test_a_link_keeps_pointing_where_it_did(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "out.csv")
    for content in (b"one", b"two"):
        with atomic_write(tmp_path / "link") as stream:
            stream.write(content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "out.csv").read_bytes() == content


def test_devices_and_pipes_are_written_to_and_never_replaced():
    with atomic_write(Path("/dev/null")) as stream:
        stream.write(b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    reading, writing = os.pipe()
    with atomic_write(Path(f"/dev/fd/{writing}")) as stream:
        stream.write(b"through")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"through"


def refusal(path: Path) -> OutputError:
    with pytest.raises(OutputError) as caught, atomic_write(path) as stream:
        stream.write(b"x" * 100_000)
    assert "the state is intact" in caught.value.hint
    assert "`bioforge export` writes it again" in caught.value.hint
    return caught.value


def test_what_the_system_refuses_is_said_with_what_to_do(tmp_path):
    assert refusal(tmp_path).message == f"cannot write {tmp_path}: Is a directory"
    (tmp_path / "file").touch()
    assert "a part of the path is a file" in refusal(tmp_path / "file" / "out.csv").hint
    assert "File name too long" in refusal(tmp_path / ("x" * 300)).message
    assert "free space on the disk" in refusal(Path("/dev/full")).hint
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_may_not_be_written_to_is_said(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        error = refusal(tmp_path / "closed" / "out.csv")
    finally:
        if is_root:
            os.seteuid(0)
    assert error.message.endswith("Permission denied")
    assert "check the permissions" in error.hint
