"""Query databases and files with DuckDB: exact values, no access to anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bioforge.plugin import Artist, BadRow

Read = Callable[..., list[Artist | BadRow]]
Refused = Callable[..., str]

CSV = "id,name,born\n0,Abbey,1852\n007,Björk,1965\n3,Absalon,\n"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "it's [1].csv"
    path.write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode())
    return path


@pytest.fixture
def museum(tmp_path: Path) -> Path:
    path = tmp_path / "museum.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE people AS SELECT 7 AS artist_id, 'Björk' AS artist_name")
        connection.execute("CREATE SCHEMA old")
        connection.execute("CREATE TABLE old.people AS SELECT 'Abbey' AS artist_name")
        connection.execute("CREATE VIEW v AS SELECT 'Absalon' AS artist_name")
    return path


def names(rows: list[Artist | BadRow]) -> list[str]:
    return [row.artist_name for row in rows if isinstance(row, Artist)]


def test_a_query_over_a_file(csv: Path, read: Read) -> None:
    query = "SELECT id AS artist_id, name AS artist_name, born FROM input WHERE born IS NOT NULL ORDER BY born DESC"
    found = read(csv, "duckdb", query=query)
    assert [
        (row.artist_id, row.artist_name, row.columns["born"], row.line) for row in found if isinstance(row, Artist)
    ] == [
        ("007", "Björk", 1965, 1),
        ("0", "Abbey", 1852, 2),
    ]


@pytest.mark.parametrize("name", ["a[1].csv", "a*.csv", "a?.csv", "[x]/a**.csv"])
def test_a_name_that_looks_like_a_pattern_is_that_file_alone(name: str, tmp_path: Path, read: Read) -> None:
    for other in ("a1.csv", "axx.csv", "x/axx.csv"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_text(CSV.replace("Björk", "Somebody else"))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(CSV)
    columns = {"artist_id": "id", "artist_name": "name"}
    assert names(read(tmp_path / name, "duckdb", columns=columns)) == ["Abbey", "Björk", "Absalon"]


def test_parameters_of_the_reading_function(csv: Path, read: Read, refused: Refused) -> None:
    columns = {"artist_id": "id", "artist_name": "name"}
    for scan, born in (({}, [1852, 1965, None]), ({"all_varchar": True}, ["1852", "1965", None])):
        found = read(csv, "duckdb", columns=columns, scan=scan)
        assert [row.columns["born"] for row in found if isinstance(row, Artist)] == born
    error = refused(csv, "duckdb", scan={"delimitr": ";"})
    assert "delimitr" in error
    assert "scan = { all_varchar = true }" in error
    listed = read(csv, "duckdb", scan={"names": ["a", "artist_name", "c"], "delim": ",", "skip": 1, "header": False})
    assert names(listed) == ["Abbey", "Björk", "Absalon"]


def test_files_of_other_kinds(tmp_path: Path, read: Read, refused: Refused) -> None:
    (tmp_path / "a.jsonl").write_text('{"artist_name": "Björk", "tags": ["a", {"b": 1}], "at": "2020-01-02"}\n')
    pq.write_table(pa.table({"artist_name": ["Abbey"]}), tmp_path / "a.parquet")
    (tmp_path / "unnamed").write_bytes((tmp_path / "a.parquet").read_bytes())
    (found,) = read(tmp_path / "a.jsonl", "duckdb", query='SELECT artist_name, tags, "at" FROM input')
    assert isinstance(found, Artist)
    assert found.columns["at"] == "2020-01-02"
    assert json.dumps(found.columns["tags"])
    assert names(read(tmp_path / "a.parquet", "duckdb")) == names(read(tmp_path / "unnamed", "duckdb")) == ["Abbey"]
    (tmp_path / "a.json").write_text('{"artist_name": "Bj')
    assert "a.json cannot be read by DuckDB" in refused(tmp_path / "a.json", "duckdb")
    (tmp_path / "a.sqlite").write_bytes(b"SQLite format 3\0")
    assert 'reads only with an extension | reader = "sqlite"' in refused(tmp_path / "a.sqlite", "duckdb")


def test_a_database_is_only_read(museum: Path, read: Read, refused: Refused) -> None:
    before = museum.read_bytes()
    assert names(read(museum, table="people")) == ["Björk"]
    assert names(read(museum, table="old.people")) == ["Abbey"]
    assert names(read(museum, table="v")) == ["Absalon"]
    assert names(read(museum, query="SELECT artist_name FROM people UNION ALL FROM v")) == ["Björk", "Absalon"]
    assert "no table 'poeple' | did you mean 'people'?" in refused(museum, table="poeple")
    assert "has 2 tables: people, old.people" in refused(museum)
    assert [path.name for path in museum.parent.iterdir()] == ["museum.duckdb"]
    assert museum.read_bytes() == before


def test_a_file_called_db_is_what_it_is(museum: Path, read: Read) -> None:
    path = museum.rename(museum.with_suffix(".db"))
    assert names(read(path, table="v")) == ["Absalon"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT id,\n  nme FROM input", "query, line 2, column 3: Binder Error"),
        ("SELECT nme FROM input", 'Candidate bindings: "name"'),
        ("SELEC 1", "query, line 1, column 1: Parser Error"),
        ("SELECT name, name FROM input", "more than one column 'name'"),
        ("SELECT 1; SELECT 2", "query is 2 statements | expected one SELECT"),
        ("CREATE TABLE t (a INT)", "query is a CREATE"),
        ("COPY input TO 'out.csv'", "query is a COPY"),
        ("INSTALL httpfs", "expected one SELECT"),
        ("SET threads = 1", "query is a SET"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission Error"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT content AS artist_name FROM read_text('/etc/hostname')", "Permission Error"),
        ("SELECT * FROM 'http://127.0.0.1:9/a.csv'", "Permission Error"),
        ("SELECT * FROM glob('/*')", "Permission Error"),
        ("SELECT name AS artist_name, name::INTEGER AS n FROM input", "Conversion Error"),
    ],
)
def test_an_invalid_query_is_an_error(query: str, said: str, csv: Path, refused: Refused) -> None:
    assert said in refused(csv, "duckdb", query=query)
    assert sorted(path.name for path in csv.parent.iterdir()) == [csv.name]


def test_variables_of_the_program_are_no_tables(csv: Path, refused: Refused) -> None:
    query = "SELECT * FROM options"
    assert "Table with name options does not exist" in refused(csv, "duckdb", query=query)


def test_types_are_exact(csv: Path, read: Read) -> None:
    query = """
        SELECT 'A' AS artist_name,
            170141183460469231731687303715884105727::HUGEINT AS huge,
            340282366920938463463374607431768211455::UHUGEINT AS uhuge,
            123456789012345678901234567890123456789012345678901::BIGNUM AS big, NULL::BIGNUM AS no_big,
            1.10::DECIMAL(10, 2) AS price, TIMESTAMPTZ '2020-01-01 00:00:00+02' AS moment,
            TIMESTAMP_NS '2020-01-01 00:00:00.123456789' AS nano, DATE '0044-03-15' AS day, TIME '01:02:03.5' AS time,
            TIMETZ '01:02:03+02' AS time_there, INTERVAL '1 month 2 days' AS span, '101'::BIT AS bits,
            {'a': [1, NULL], 'b': MAP {'k': 1.5::DOUBLE}} AS nested, 'x'::ENUM ('x', 'y') AS choice,
            'NaN'::DOUBLE AS no_number, UUID '00000000-0000-0000-0000-000000000007' AS uuid, '\\xFF'::BLOB AS blob
    """
    (found,) = read(csv, "duckdb", query=query)
    assert isinstance(found, Artist)
    assert dict(found.columns) == {
        "huge": 2**127 - 1,
        "uhuge": 2**128 - 1,
        "big": int("1234567890" * 5 + "1"),
        "no_big": None,
        "price": "1.10",
        "moment": "2019-12-31T22:00:00+00:00",
        "nano": "2020-01-01T00:00:00.123456789",
        "day": "0044-03-15",
        "time": "01:02:03.500000",
        "time_there": "01:02:03+02",
        "span": "P1M2D",
        "bits": "101",
        "nested": {"a": [1, None], "b": {"k": 1.5}},
        "choice": "x",
        "no_number": None,
        "uuid": "00000000-0000-0000-0000-000000000007",
        "blob": "/w==",
    }


def test_times_do_not_depend_on_the_machine(csv: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "SELECT 'A' AS artist_name, TIMESTAMPTZ '2020-06-01 12:00:00+00' AS moment, moment::VARCHAR AS shown"
    first = read(csv, "duckdb", query=query)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert read(csv, "duckdb", query=query) == first


def test_a_sort_larger_than_its_memory_is_done_on_disk(csv: Path, read: Read) -> None:
    query = "SELECT repeat('x', 200) || hash(range) AS artist_name FROM range(300000) ORDER BY 1 LIMIT 1 OFFSET 299999"
    assert len(read(csv, "duckdb", query=query, memory_limit="64MB")) == 1


def test_a_file_that_is_not_a_database_is_an_error(museum: Path, refused: Refused) -> None:
    content = museum.read_bytes()
    for name, data, said in (
        ("text.duckdb", b"artist_name\nA\n", "text.duckdb is not a DuckDB database"),
        ("short.duckdb", content[:5_000], "short.duckdb cannot be opened: IO Error"),
    ):
        (museum.parent / name).write_bytes(data)
        assert said in refused(museum.parent / name)


def test_a_database_open_for_writing_elsewhere(tmp_path: Path, refused: Refused) -> None:
    import subprocess
    import sys

    path = tmp_path / "busy.duckdb"
    code = f"import duckdb; c = duckdb.connect({str(path)!r}); c.execute('CREATE TABLE t (a INT)'); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        error = refused(path) if path.stat().st_size else ""
        other.communicate(b"\n")
    assert "another process has it open for writing" in error
