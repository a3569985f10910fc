"""Rows as people really have them become artists; what cannot become one is named with its line, and nothing else."""

from __future__ import annotations

import csv
import gzip
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bioforge.core.errors import InputError
from bioforge.core.text import derived_id, file_stem
from bioforge.core.types import Artist, BadRow
from bioforge.readers.csv import LONGEST_VALUE
from bioforge.readers.plugin import bioforge_readers

EXAMPLES = Path(__file__).parents[2] / "examples"


def read(content: str | bytes, format: str = "csv", **options: object) -> list[Artist | BadRow]:
    data = content.encode() if isinstance(content, str) else content
    return list(bioforge_readers()[format](io.BytesIO(data), "artists", options))


def names(rows: list[Artist | BadRow]) -> list[str]:
    return [row.artist_name for row in rows if isinstance(row, Artist)]


def bad(rows: list[Artist | BadRow]) -> list[tuple[int, str]]:
    return [(row.line, row.message) for row in rows if isinstance(row, BadRow)]


def refusal(content: str | bytes, format: str = "csv", **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        read(content, format, **options)
    return caught.value


# ----------------------------------------------------------------------------------------------------- CSV as it is


def test_a_row_becomes_an_artist_with_its_further_columns_in_order():
    assert read("artist_id,born,artist_name,country,artist_data\nb,1965,Björk,Iceland,Singer\n") == [
        Artist("b", "Björk", "Singer", {"born": "1965", "country": "Iceland"}, "artists", 2)
    ]


def test_a_file_from_excel_reads_like_any_other():
    content = (
        '\ufeffartist_id, artist_name ,artist_data\r\n0,"Piaf, Édith",  Chanson  \r\n\r\n,,\r\n2,"""Weird Al""",x\r\n'
    )
    rows = read(content)
    assert [(row.artist_id, row.artist_name, row.artist_data, row.line) for row in rows] == [
        ("0", "Piaf, Édith", "Chanson", 2),
        ("2", '"Weird Al"', "x", 5),
    ]


def test_line_numbers_count_physical_lines_whatever_stands_between():
    content = '# by hand\nartist_id,artist_name,artist_data\n\n1,A,"two\nlines\r\n\rfour"\n# note, "quoted\n2\n3,C,\n'
    rows = read(content)
    assert [(type(row).__name__, row.line) for row in rows] == [("Artist", 4), ("BadRow", 9), ("Artist", 10)]
    assert rows[0].artist_data == "two\nlines\r\n\rfour"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_every_kind_of_line_end_is_one(end):
    rows = read(end.join(["artist_name,n", "# no", "A,1", "", '"B', 'b",2', "C"]))
    assert names(rows) == ["A", f"B{end}b"]
    assert bad(rows) == [(7, "found 1 field, expected 2")]


def test_a_hash_is_a_comment_only_where_a_row_begins():
    content = 'artist_name,artist_data\n# comment\nA,# text\nB,"first\n# second"\n"#C",x\n'
    assert [(row.artist_name, row.artist_data) for row in read(content)] == [
        ("A", "# text"), ("B", "first\n# second"), ("#C", "x")
    ]  # fmt: skip
    assert names(read("artist_name\n#1 Dads\n", comment="")) == ["#1 Dads"]
    assert names(read("artist_name\n// no\nA\n", comment="//")) == ["A"]


def test_comments_far_into_a_long_file_keep_the_count():
    lines = ["artist_name,artist_data"]
    for number in range(5_000):
        lines += [f"# before {number}", f'A{number},"one\n# two {number}"']
    rows = read("\n".join(lines))
    assert len(rows) == 5_000
    assert rows[-1].line == 2 + 4_999 * 3 + 1
    assert rows[-1].artist_data == "one\n# two 4999"


def test_other_delimiters_quotes_and_encodings():
    assert names(read("artist_id;artist_name\n1;A,B\n", delimiter=";")) == ["A,B"]
    assert names(read("artist_id\tartist_name\n1\tA,B\n", "tsv")) == ["A,B"]
    assert names(read("artist_id\tartist_name\n1\tA\n", delimiter="tab")) == ["A"]
    assert names(read("artist_id,artist_name\n1,'A,B'\n", quote="'")) == ["A,B"]
    assert names(read('artist_id,artist_name\n1,"A\n', quote="")) == ['"A']
    for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"):
        content = "artist_name,artist_data\r\nBjörk,\r\n".encode(encoding)
        assert names(read(content, encoding=encoding)) == ["Björk"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_auto_finds_the_delimiter_in_the_first_row(delimiter):
    rows = read(
        f'# a;b;c;d\nartist_id{delimiter}"artist_name"{delimiter}"a,b;c|d"\n1{delimiter}A{delimiter}x\n',
        delimiter="auto",
    )
    assert names(rows) == ["A"]


def test_without_a_header_the_width_of_the_first_row_names_the_columns():
    assert names(read("Björk\nÉdith Piaf\n", header=False)) == ["Björk", "Édith Piaf"]
    two = read("\n# x\nBjörk,Singer\nPiaf\n", header=False)
    assert (two[0].artist_data, two[0].line, bad(two)) == ("Singer", 3, [(4, "found 1 field, expected 2")])
    assert read("1,Björk,Singer\n", header=False) == [Artist("1", "Björk", "Singer", {}, "artists", 1)]
    four = read("1,Björk,Singer,1965,x\n", header=False, columns={"born": "column_4"})
    assert four[0].columns == {"born": "1965", "column_5": "x"}
    assert read("", header=False) == []


def test_a_column_without_a_name_gets_a_number():
    assert read("artist_name,,x,\nA,1,2,3\n")[0].columns == {"column_2": "1", "x": "2", "column_4": "3"}


def test_a_header_alone_is_no_artists():
    assert read("artist_id,artist_name\n") == []


def test_a_value_of_a_megabyte_is_a_value():
    long = "x" * 1_000_000
    assert read(f'artist_name,artist_data\nA,"{long}"\n')[0].artist_data == long


def test_the_examples_read_without_a_bad_row():
    with (EXAMPLES / "artists.csv").open("rb") as stream:
        rows = list(bioforge_readers()["csv"](stream, "artists.csv", {}))
    assert bad(rows) == []
    assert len({row.artist_id for row in rows}) == len(rows) >= 45
    assert {"Björk", "Édith Piaf", "久石譲", "Tyler, the Creator", '"Weird Al" Yankovic'} <= set(names(rows))
    assert any(not row.artist_data for row in rows)
    assert any("\n" in row.artist_data for row in rows)


# --------------------------------------------------------------------------------------------------------- bad rows


def test_one_bad_row_does_not_take_its_neighbours_with_it():
    content = b"artist_id,artist_name,artist_data\n1,A,\n2,,data\n3,C\n4,D,x,y\n5,Bj\xf6rk,\n6,F\0F,\n7,G,\n"
    rows = read(content)
    assert names(rows) == ["A", "G"]
    assert bad(rows) == [
        (3, "no artist_name"),
        (4, "found 2 fields, expected 3"),
        (5, "found 4 fields, expected 3"),
        (6, "artist_name has bytes that are not valid in this encoding: 'Bj\ufffdrk' (encoding = \"cp1252\"?)"),
        (7, "artist_name has a NUL character: 'F\\x00F'"),
    ]


def test_a_space_before_a_quote_is_named_as_the_reason():
    assert bad(read('artist_id,artist_name\n1, "Piaf, Édith"\n')) == [
        (2, "found 3 fields, expected 2; an opening quote must follow the delimiter without a space")
    ]


def test_a_quote_that_is_never_closed_is_told_where_it_opens():
    rows = read('artist_name,artist_data\nA,x\nB,"open\nC,x\nD,x\n')
    assert names(rows) == ["A"]
    assert bad(rows) == [(3, "a quote in this row is never closed; the rows in lines 4 to 5 could not be read")]
    assert bad(read('artist_name,artist_data\nB,"open')) == [(2, "a quote in this row is never closed")]


def test_a_quote_that_is_never_closed_takes_only_so_much_of_a_huge_file():
    line = "x," + "y" * 99_997 + "\n"
    rows = read('artist_name,artist_data\nA,"open\n' + line * (LONGEST_VALUE // len(line) + 10))
    ((number, message),) = bad(rows)
    assert number == 2
    assert "longer than 16,777,216 characters" in message
    assert 5 < len(names(rows)) < 12


def test_bad_bytes_in_one_block_do_not_make_a_later_row_bad():
    filler = b"x" * 70_000
    rows = read(b"artist_name,artist_data\nA,\xff\nB," + filler + b"\nC,ok\nD,\xff\n")
    assert names(rows) == ["B", "C"]
    assert [line for line, _ in bad(rows)] == [2, 5]


def test_ids_that_repeat_are_left_to_the_state():
    assert [row.artist_id for row in read("artist_id,artist_name\n1,A\n1,B\n")] == ["1", "1"]


# ------------------------------------------------------------------------------------------- inputs that are refused


@pytest.mark.parametrize(
    ("content", "options", "message", "hint"),
    [
        (
            "id,name,bio\n",
            {},
            "no column artist_name; found: id, name, bio",
            'columns = { artist_id = "id", artist_name = "name", artist_data = "bio" }',
        ),
        ("id;name\n1;X\n", {}, "no column artist_name", 'delimiter = ";"'),
        ('{"artist_name": "X"}\n', {}, "no column artist_name", 'reader = "jsonl"'),
        ("", {}, "has no header row", "name the columns"),
        ("# only\n\n", {}, "has no header row", "name the columns"),
        ('artist_name,"x\n', {}, "a quote in the header row is never closed", "quote"),
        ("artist_name,x,x\n", {}, "more than one column 'x'", "rename one of them"),
        ("artist_name,name\n", {"columns": {"artist_name": "name"}}, "a column 'artist_name'", "artist_name_old"),
        ("artist_name,bio\n", {"columns": {"artist_data": "boi"}}, "no column 'boi'", "did you mean 'bio'?"),
        ("artist_name\n", {"colums": {}}, "colums", "did you mean 'columns'?"),
        ("artist_name\n", {"columns": "name"}, "expected a table", "columns = {"),
        ("artist_name\n", {"columns": {"artist_name": 3}}, "columns.artist_name: found 3", ""),
        ("artist_name\n", {"columns": {"artist_data": "{{ x"}}, "columns.artist_data", "{{ dates }}"),
        ("artist_name\n", {"header": "no"}, "expected true or false", ""),
        ("artist_name\n", {"delimiter": ",,"}, "expected one character", "auto"),
        ("artist_name\n", {"delimiter": '"'}, "expected one character", "auto"),
        ("artist_name\n", {"quote": "''"}, "expected one character", ""),
        ("artist_name\n", {"comment": 1}, "expected text", "#"),
        ("artist_name\n", {"encoding": "utf-88"}, "'utf-88' is not a known text encoding", "utf-8"),
        ("artist_name\n", {"encoding": "base64"}, "'base64' is not a known text encoding", "utf-8"),
        ("artist_name\n".encode("utf-16"), {}, "is not valid in this encoding", 'encoding = "utf-16"'),
    ],
)  # fmt: skip
def test_an_input_that_cannot_be_meant_is_refused_with_the_way_out(content, options, message, hint):
    error = refusal(content, **options)
    assert message in error.message
    assert hint in error.hint


def test_options_are_checked_before_anything_is_read():
    with pytest.raises(InputError):
        bioforge_readers()["csv"](io.BytesIO(), "artists", {"colums": {}})
    assert names(read("artist_name\nA\n", strict=True)) == ["A"]


def test_a_packed_file_that_was_cut_short_is_refused():
    packed = gzip.compress(b"artist_name\n" + "".join(f"Artist {n}\n" for n in range(50_000)).encode())
    with gzip.open(io.BytesIO(packed[:-2_000])) as stream, pytest.raises(InputError) as caught:
        list(bioforge_readers()["csv"](stream, "artists.csv.gz", {}))
    assert "artists.csv.gz cannot be read to its end" in caught.value.message


# ---------------------------------------------------------------------------------------------------------- columns


def test_renaming_moves_columns_and_templates_leave_them():
    columns = {
        "artist_id": "id",
        "artist_name": "name",
        "artist_data": "{{ dates }} {{ place }}",
        "birthplace": "place",
    }
    assert read("id,name,dates,place\n7,Björk, 1965– ,Reykjavík\n", columns=columns) == [
        Artist("7", "Björk", "1965– Reykjavík", {"dates": "1965–", "birthplace": "Reykjavík"}, "artists", 2)
    ]


def test_names_can_be_swapped_replaced_and_used_twice():
    swapped = read(
        "artist_name,artist_data\nSinger,Björk\n", columns={"artist_name": "artist_data", "artist_data": "artist_name"}
    )
    assert (swapped[0].artist_name, swapped[0].artist_data) == ("Björk", "Singer")
    replaced = read("artist_name,artist_data\nBjörk,Singer\n", columns={"artist_data": "{{ artist_data }}!"})
    assert replaced[0].artist_data == "Singer!"
    twice = read("name\nBjörk\n", columns={"artist_id": "name", "artist_name": "name"})
    assert (twice[0].artist_id, twice[0].artist_name) == ("Björk", "Björk")
    spaced = read("artist_name,Place of birth\nA,Rome\n", columns={"artist_data": '{{ columns["Place of birth"] }}'})
    assert spaced[0].artist_data == "Rome"


def test_a_template_that_names_no_column_is_a_mistake_of_the_project():
    error = refusal("artist_name,dates\nA,1\n", columns={"artist_data": "{{ date }}"})
    assert "no column 'date'" in error.message
    assert error.hint == "did you mean 'dates'?"


def test_a_template_that_fails_on_a_row_keeps_that_row_out():
    rows = read("artist_name,born\nA,0\nB,4\n", columns={"artist_data": "{{ 8 // (born | int) }}"})
    assert bad(rows) == [(2, "the template for artist_data failed: integer division or modulo by zero")]
    assert names(rows) == ["B"]


# -------------------------------------------------------------------------------------------------------------- ids


def test_an_artist_without_an_id_gets_one_from_the_name_everywhere_the_same():
    for spelling in (unicodedata.normalize("NFC", "Björk"), unicodedata.normalize("NFD", "Björk")):
        assert read(f"artist_name\n{spelling}\n")[0].artist_id == "bjork-bca757a930"
    assert read("artist_id,artist_name\n,Björk\n")[0].artist_id == derived_id("Björk")
    assert derived_id("久石譲").startswith("久石譲-")
    assert derived_id("!!!").startswith("artist-")
    assert derived_id("Bjork") != derived_id("Björk")
    assert len(derived_id("x" * 1_000)) == 51


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=12), st.sampled_from(["A", "CON", "../x", "Björk", ""])), max_size=8))
@example([("A", "x"), ("a", "x"), ("c", "a-b"), ("b_c", "a"), ("x_1", "x"), ("1", "x"), (derived_id("x"), "x")])
@example([("..", ""), ("/", ""), ("\0", ""), ("", ""), (".", "")])
def test_file_names_are_safe_and_never_the_same_for_two_ids(pairs):
    by_id = dict(pairs)
    stems = [file_stem(artist_id, name) for artist_id, name in by_id.items()]
    assert len({stem.casefold() for stem in stems}) == len(by_id)
    for stem in stems:
        assert stem
        assert not stem.startswith(".")
        assert not set(stem) & set('/\\:*?"<>|\0')
        assert len(stem.encode()) < 240


# ------------------------------------------------------------------------------------------------------- JSON lines


def test_json_lines_keep_their_types_and_turn_numbers_into_ids():
    content = (
        '\ufeff# by hand\n\n{"artist_id": 0, "artist_name": " Björk ", "born": 1965, "tags": ["pop", {"x": null}]}\r\n'
        '{"artist_id": 12.0, "artist_name": 1984, "artist_data": {"a": "ö"}}\n'
        '{"artist_name": "Sep\u2028arated", "artist_data": null, "artist_id": null}'
    )
    rows = read(content, "jsonl")
    assert rows[0] == Artist("0", "Björk", "", {"born": 1965, "tags": ["pop", {"x": None}]}, "artists", 3)
    assert (rows[1].artist_id, rows[1].artist_name, rows[1].artist_data) == ("12", "1984", '{"a": "ö"}')
    assert (rows[2].artist_name, rows[2].artist_data, rows[2].line) == ("Sep\u2028arated", "", 5)
    assert rows[2].artist_id == derived_id("Sep\u2028arated")


def test_json_lines_are_renamed_and_computed_like_csv():
    columns = {"artist_name": "name", "artist_data": "{{ born }} {{ place.city }}"}
    rows = read(
        '{"name": "A", "born": 1, "place": {"city": "Rome"}}\n{"name": "B", "born": 2}\n'
        '{"name": "C", "artist_name": "D", "born": 1}\n',
        "ndjson",
        columns=columns,
    )
    assert rows[0].artist_data == "1 Rome"
    assert rows[0].columns == {"born": 1, "place": {"city": "Rome"}}
    assert bad(rows) == [
        (2, "the template for artist_data failed: 'place' is undefined"),
        (3, "artist_name is in the row twice: under this name, and as the column that is renamed to it"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"artist_name": "A",}', "not JSON: "),
        (b'{"artist_name": "A"', "not JSON: Expecting ',' delimiter at column 20"),
        (b'["A"]', 'not a JSON object: ["A"]'),
        (b"12", "not a JSON object: 12"),
        (b'{"artist_id": 1}', "no artist_name (found: artist_id)"),
        (b'{"artist_name": ""}', "no artist_name"),
        (b'{"artist_name": ["A"]}', "artist_name is a list, expected text or a number"),
        (b'{"artist_name": true}', "artist_name is true or false, expected text or a number"),
        (b'{"artist_name": "A", "artist_id": {}}', "artist_id is an object, expected text or a number"),
        (b'{"artist_name": "Bj\xf6rk"}', "bytes that are not valid in this encoding: "),
        (b'{"artist_name": "A\\u0000"}', "a NUL character in 'A\\x00'"),
        (b'{"artist_name": "A", "x": [{"\\uD83d": 1}]}', "half of a surrogate pair in '\\ud83d'"),
        (b'{"artist_name": "A", "x": NaN}', "not usable JSON: NaN is not a JSON number"),
        (b'{"artist_name": "A", "x": 1e999}', "not usable JSON: 1e999 is not a JSON number"),
        (b'{"artist_name": "A", "x": ' + b"9" * 5_000 + b"}", "not usable JSON: "),
        (b'{"artist_name": ' + b"[" * 100_000, "not usable JSON: nested too deeply"),
    ],
)
def test_a_line_that_is_no_artist_is_named(line, message):
    rows = read(b'{"artist_name": "before"}\n' + line + b'\n{"artist_name": "after"}\n', "jsonl")
    assert names(rows) == ["before", "after"]
    ((number, found),) = bad(rows)
    assert number == 2
    assert found.startswith(message)


def test_escapes_that_only_look_like_trouble_are_text():
    rows = read('{"artist_name": "a \\\\u0000 b", "artist_data": "\\ud83d\\ude00"}', "jsonl")
    assert (rows[0].artist_name, rows[0].artist_data) == ("a \\u0000 b", "😀")


def test_json_lines_in_which_nobody_has_a_name_are_refused_once():
    error = refusal('{"name": "A", "id": 1}\nbroken\n{"name": "B"}\n', "jsonl")
    assert "no column artist_name; found: name, id" in error.message
    refusal('{"title": "A"}\n' * 5_000, "jsonl")
    late = read('{"title": "A"}\n{"artist_name": "B"}\n', "jsonl")
    assert bad(late) == [(1, "no artist_name (found: title)")]
    assert names(late) == ["B"]
    assert bad(read("broken\n", "jsonl")) == [(1, "not JSON: Expecting value at column 1")]
    many = read("broken\n" * 1_500 + '{"artist_name": "A"}\n', "jsonl")
    assert (len(bad(many)), names(many)) == (1_500, ["A"])
    assert read("", "jsonl") == []


@pytest.mark.parametrize("content", ['[\n {"artist_name": "A"}\n]\n', '[{"artist_name": "A"}]'])
def test_a_json_array_is_told_apart_from_json_lines(content):
    assert "jq -c '.[]'" in refusal(content, "jsonl").hint


# --------------------------------------------------------------------------------------------------- for every input

_value = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=20).map(str.strip)
_row = st.tuples(_value, _value.filter(bool), _value, _value)


@settings(deadline=None)
@given(st.lists(_row, max_size=12), st.sampled_from([",", ";", "\t"]))
def test_what_the_csv_module_writes_reads_back_the_same(table, delimiter):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([("artist_id", "artist_name", "artist_data", "more"), *table])
    rows = read(text.getvalue(), delimiter=delimiter, comment="")
    assert [
        (row.artist_id, row.artist_name, row.artist_data, row.columns["more"]) for row in rows
    ] == [(artist_id or derived_id(name), name, data, more) for artist_id, name, data, more in table]  # fmt: skip


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _value,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(st.tuples(_value.filter(bool), _json), max_size=8), st.booleans())
def test_what_the_json_module_writes_reads_back_the_same(table, escaped):
    lines = [json.dumps({"artist_name": name, "more": more}, ensure_ascii=escaped) for name, more in table]
    rows = read("\n".join(lines), "jsonl")
    assert [(row.artist_name, row.columns["more"]) for row in rows] == table


_bytes = st.binary(max_size=200) | st.lists(
    st.sampled_from([b'"', b",", b"\n", b"\r", b"#", b"\0", b"\xff", b"\xc3", b"a", b" ", b"{", b'"artist_name"', b":", b"}"])
).map(b"".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(_bytes, st.sampled_from(["csv", "tsv", "jsonl"]), st.sampled_from(["utf-8", "utf-16", "cp932", "gb18030"]))
def test_whatever_the_bytes_are_rows_come_out_in_order_or_one_clear_refusal(content, format, encoding):
    header = b"artist_name,artist_data\n" if format == "csv" else b""
    if encoding == "utf-16":
        header = header.decode().encode("utf-16-le")
    for start in (b"", header):
        try:
            rows = read(start + content, format, encoding=encoding)
        except InputError:
            continue
        assert all(isinstance(row, Artist | BadRow) for row in rows)
        lines = [row.line for row in rows]
        assert lines == sorted(set(lines))
        for row in rows:
            json.dumps(
                [row.artist_name, row.artist_data] if isinstance(row, Artist) else row.message, ensure_ascii=False
            ).encode()
