"""Read a DuckDB database, or another file that DuckDB can read (as the table `input`), with a query.

The query can read this file only: no other files, network or extensions. Nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from bioforge.plugin import Artist, BadRow, InputError, RowError, artists
from bioforge_tables import column_names, file_kinds
from bioforge_tables.batches import ROWS, Row, numbered_rows
from bioforge_tables.databases import chosen_table, quoted
from bioforge_tables.options import DuckDBOptions, ScanValue

_SCANS = {
    "csv": "read_csv",
    "tsv": "read_csv",
    "txt": "read_csv",
    "json": "read_json",
    "jsonl": "read_json",
    "ndjson": "read_json",
    "parquet": "read_parquet",
}
"""DuckDB's function for each suffix."""

_DATABASES = (".duckdb", ".ddb", ".db")
_INTEGERS = ("UHUGEINT", "BIGNUM")
_AS_TEXT = (*_INTEGERS, "BIT", "TIME WITH TIME ZONE")
"""Types without an exact Arrow type; DuckDB casts them to text."""

_LINE = re.compile(r"^LINE (\d+): ", re.MULTILINE)
_SUGGESTION = re.compile(r"^(?:Did you mean|Candidate).*$", re.MULTILINE)


def read(path: Path, source: str, options: DuckDBOptions) -> Iterator[Artist | BadRow]:
    """Yield the rows of the query, table or file. Raises `InputError` with DuckDB's message and its position."""
    with (
        TemporaryDirectory(prefix="bioforge-") as folder,
        closing(_connection(folder, options.memory_limit)) as connection,
    ):
        if file_kinds.is_duckdb(path):
            _attach(connection, path, source)
            query = options.query or f"SELECT * FROM {_table(connection, options.table, source)}"
        else:
            _scan(connection, path, source, options)
            query = options.query or "SELECT * FROM input"
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        with _input_errors(source, asked=options.query is not None):
            relation = _relation(connection, query, source)
            names = column_names.checked(relation.columns, source)
            rows = numbered_rows(_exact(relation).to_arrow_reader(ROWS), column_names.own_columns(options.columns))
            integers = [name for name, kind in zip(names, relation.types, strict=True) if str(kind) in _INTEGERS]
            yield from artists(_with_integers(rows, integers), source, options.columns, names)


def _connection(folder: str, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """Open an in-memory database without extensions and secrets.

    Times with zones are in UTC, so that they are equal on every machine.
    """
    try:
        connection = duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
                "allow_persistent_secrets": False,
                "python_enable_replacements": False,
                "memory_limit": memory_limit,
                "temp_directory": folder,
            },
        )
    except duckdb.Error as error:
        raise InputError(f"[input] memory_limit: {_first_line(error)}", 'memory_limit = "1GB"') from error
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")  # standard output is for data
    return connection


# ------------------------------------------------------------------------------------------------------- databases


def _attach(connection: duckdb.DuckDBPyConnection, path: Path, source: str) -> None:
    try:
        connection.execute(f"ATTACH {_literal(str(path))} AS input (READ_ONLY)")
        connection.execute("USE input")
    except duckdb.Error as error:
        locked = "lock" in str(error).lower()
        raise InputError(
            f"{source} cannot be opened: {_first_line(error)}",
            "another process has it open for writing: try again after that has ended"
            if locked
            else "check that it is complete, unencrypted and not written by a newer DuckDB than the installed one",
        ) from error


def _table(connection: duckdb.DuckDBPyConnection, wanted: str | None, source: str) -> str:
    """Return the SQL name of the table. Tables outside the schema `main` are called `schema.table`."""
    found: dict[str, dict[str, str]] = {"BASE TABLE": {}, "VIEW": {}}
    for schema, name, kind in connection.execute(
        "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_catalog = 'input'"
        " ORDER BY table_schema <> 'main', table_schema, table_name"
    ).fetchall():
        shown = name if schema == "main" else f"{schema}.{name}"
        found.setdefault(kind, {})[shown] = f"input.{quoted(schema)}.{quoted(name)}"
    chosen = chosen_table(wanted, list(found["BASE TABLE"]), list(found["VIEW"]), source)
    return {**found["VIEW"], **found["BASE TABLE"]}[chosen]


# ------------------------------------------------------------------------------------------------------ other files


def _scan(connection: duckdb.DuckDBPyConnection, path: Path, source: str, options: DuckDBOptions) -> None:
    """Create the view `input` over the file."""
    kind, remedy = file_kinds.identify(path)
    function = (
        "read_parquet" if kind == "a Parquet file" else _SCANS.get(path.suffix.lower().removeprefix("."), "read_csv")
    )
    if not kind and path.suffix.lower() in _DATABASES:
        raise InputError(f"{source} is not a DuckDB database", "check that it is complete and was written by DuckDB")
    if kind and kind != "a Parquet file":
        raise InputError(f"{source} is {kind}, which DuckDB reads only with an extension", remedy)
    if options.table not in (None, "input"):
        raise InputError(f"{source} is a single file, whose table is called input", "remove [input] table")
    parameters = "".join(f", {name} = {_sql(value)}" for name, value in options.scan.items())
    try:
        connection.execute(f"CREATE VIEW input AS SELECT * FROM {function}({_literal(_escaped(path))}{parameters})")
        # DuckDB checks the pattern and the opened path
        connection.execute(f"SET allowed_paths = [{_literal(_escaped(path))}, {_literal(str(path))}]")
    except duckdb.Error as error:
        raise InputError(
            f"{source} cannot be read by DuckDB: {_first_line(error)}",
            f"set parameters of {function} in [input] scan, like scan = {{ all_varchar = true }}"
            if function == "read_csv"
            else file_kinds.remedy_for(path, kind or f"a .{path.suffix.lstrip('.')} file"),
        ) from error


def _escaped(path: Path) -> str:
    """Escape a path for DuckDB's glob patterns."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _sql(value: ScanValue) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return _literal(value) if isinstance(value, str) else str(value)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# ---------------------------------------------------------------------------------------------------------- queries


def _relation(connection: duckdb.DuckDBPyConnection, query: str, source: str) -> duckdb.DuckDBPyRelation:
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        found = f"{len(statements)} statements" if len(statements) != 1 else f"a {statements[0].type.name}"
        raise InputError(f"{source}: [input] query is {found}", "expected one SELECT")
    try:
        return connection.sql(query)  # `execute` would load the whole result
    except duckdb.Error:
        connection.execute(query)  # raises the same error with its position
        raise


def _exact(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    kinds = [str(kind) for kind in relation.types]
    if not any(kind in _AS_TEXT for kind in kinds):
        return relation
    columns = (
        f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" if kind in _AS_TEXT else quoted(name)
        for name, kind in zip(relation.columns, kinds, strict=True)
    )
    return relation.project(", ".join(columns))


def _with_integers(rows: Iterator[Row], names: list[str]) -> Iterator[Row]:
    """Convert integers that were cast to text back."""
    if not names:
        yield from rows
        return
    for line, row in rows:
        if isinstance(row, RowError):
            yield line, row
        else:
            yield line, {**row, **{name: int(row[name]) for name in names if row[name] is not None}}


@contextmanager
def _input_errors(source: str, *, asked: bool) -> Iterator[None]:
    """Raise errors of DuckDB as `InputError` with the position in the query."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        message = str(error)
        place = found = ""
        if asked and (line := _LINE.search(message)):
            shown, _, below = message[line.end() :].partition("\n")
            found = f", line {line[1]}"
            place = f", column {below.find('^') - len(line[0]) + 1}" if "^" in below and "..." not in shown else ""
        suggestions = _SUGGESTION.search(message)
        hint = suggestions[0] if suggestions else "expected one SELECT over " + ("its tables" if asked else "the file")
        where = f"{source}: [input] query{found}{place}" if asked else source
        raise InputError(f"{where}: {_first_line(error)}", hint) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()
