"""Statements for sets of rows: one row at a time, or many rows in one statement.

One at a time is cheapest. Many in one release the interpreter once instead of once per row, which counts while other
threads run Python.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from bioforge.core.reasons import Reason

Row = tuple[object, ...]

_LARGEST = 64
"""Highest number of rows in one statement, a power of two, so that SQLite keeps the few statements prepared."""


class Insert:
    """`INSERT INTO table (columns) VALUES …`, with a clause after the values."""

    def __init__(self, table: str, columns: str, rest: str = "") -> None:
        self._begin = f"INSERT INTO {table} ({columns}) VALUES "
        self._row = _row(len(columns.split(",")))
        self._rest = f" {rest}"

    def sql(self, number: int = 1) -> str:
        """Return the statement for this many rows; 0 for one row at a time."""
        return self._begin + ", ".join([self._row] * number) + self._rest

    def run(self, connection: sqlite3.Connection, rows: Sequence[Row], together: bool = False) -> None:
        if together:
            _together(connection, self, rows)
        else:
            connection.executemany(self.sql(), rows)


class Update:
    """`UPDATE table SET … WHERE …`; in both, `{name}` is a value of the row.

    `values` are the names in the order of the row's values, each used once and in this order (Python 3.12.1 takes
    numbered parameters for named ones); the last one identifies the row. `index` finds it.
    """

    def __init__(self, table: str, values: str, sets: str, where: str, index: str = "") -> None:
        self._names = [name.strip() for name in values.split(",")]
        self._table, self._sets, self._where = table, sets, where
        self._index = f"INDEXED BY {index}" if index else ""

    def sql(self, number: int = 0) -> str:
        """For so many rows in one statement; 0: for one row at a time."""
        if not number:
            places = dict.fromkeys(self._names, "?")
            return f"UPDATE {self._table} SET {self._sets} WHERE {self._where}".format(**places)
        places = {name: f"new_rows.{name}" for name in self._names}
        update = f"UPDATE {self._table} {self._index} SET {self._sets} FROM new_rows WHERE {self._where}"
        rows = ", ".join([_row(len(self._names))] * number)
        return f"WITH new_rows ({', '.join(self._names)}) AS (VALUES {rows}) {update.format(**places)}"

    def run(self, connection: sqlite3.Connection, rows: Sequence[Row], together: bool = False) -> None:
        # where one row is changed twice the order counts, and one statement has none
        if together and len({row[-1] for row in rows}) == len(rows):
            _together(connection, self, rows)
        else:
            connection.executemany(self.sql(), rows)


def _together(connection: sqlite3.Connection, statement: Insert | Update, rows: Sequence[Row]) -> None:
    done = 0
    while done < len(rows):
        number = min(_LARGEST, 1 << ((len(rows) - done).bit_length() - 1))
        connection.execute(_sql(statement, number), tuple(chain.from_iterable(rows[done : done + number])))
        done += number


@lru_cache(maxsize=256)
def _sql(statement: Insert | Update, number: int) -> str:
    return statement.sql(number)


def _row(number: int) -> str:
    return f"({', '.join('?' * number)})"


START_REQUESTS = Insert(
    "requests",
    "request_hash, endpoint, model, body, state, created_at, batch, attempts",
    "ON CONFLICT (request_hash) DO UPDATE SET state = excluded.state, attempts = attempts + 1, batch = excluded.batch",
)
START_ATTEMPTS = Insert(
    "attempts",
    "id, request_hash, target, run, number, reason, backend, worker, started_at, client_request_id, batch",
)
END_ATTEMPTS = Update(
    "attempts",
    "new_seconds, new_outcome, new_paid, new_class, new_code, new_message, new_status, new_request_id, new_body, attempt",
    "seconds = {new_seconds}, outcome = {new_outcome}, paid = {new_paid}, error_class = {new_class},"
    " error_code = {new_code}, error_message = {new_message}, http_status = {new_status},"
    " request_id = {new_request_id}, body = {new_body}",
    "id = {attempt}",
)
END_REQUESTS = Update(
    "requests",
    "new_state, new_response, new_class, new_code, new_message, digest",
    "state = {new_state}, response = coalesce({new_response}, response), error_class = {new_class},"
    " error_code = {new_code}, error_message = {new_message}, batch = NULL",
    "request_hash = {digest}",
    index="sqlite_autoindex_requests_1",
)
INSERT_RESPONSES = Insert(
    "responses",
    "id, request_hash, attempt, created_at, usable, response_id, model, service_tier, text, parsed, validation,"
    " error_class, error_code, error_message, input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_usd, body",
)
VALIDATE_RESPONSES = Update(
    "responses",
    "new_usable, new_parsed, new_validation, new_class, new_code, new_message, response",
    "usable = {new_usable}, parsed = {new_parsed}, validation = {new_validation}, error_class = {new_class},"
    " error_code = {new_code}, error_message = {new_message}",
    "id = {response}",
)
INVALID_ATTEMPTS = Update(
    "attempts",
    "new_class, new_code, new_message, attempt",
    "outcome = 'unusable', error_class = {new_class}, error_code = {new_code}, error_message = {new_message}",
    "id = {attempt}",
)
BUILD_TARGETS = Update(
    "targets",
    "new_response, digest",
    "built_response = {new_response}, built_definition = definition, built_row = row_hash, held = 0, detail = NULL,"
    " built_upstream = upstream, reason_before = NULL, detail_before = NULL,"
    f" reason = CASE WHEN reason = '{Reason.REMOVED}' THEN reason END",
    "request_hash = {digest}",
    index="targets_by_request",
)
FAIL_TARGETS = Update(
    "targets",
    "new_reason, new_detail, new_held, digest",
    "reason = {new_reason}, detail = {new_detail}, held = {new_held}, reason_before = NULL, detail_before = NULL",
    f"request_hash = {{digest}} AND reason IS NOT NULL AND reason <> '{Reason.REMOVED}'",
    index="targets_by_request",
)
BATCH_TARGETS = Update(
    "targets",
    "new_batch, digest",
    f"reason_before = reason, detail_before = detail, reason = '{Reason.IN_BATCH}', detail = {{new_batch}}",
    f"request_hash = {{digest}} AND reason IS NOT NULL AND reason NOT IN ('{Reason.REMOVED}', '{Reason.IN_BATCH}')",
    index="targets_by_request",
)
GIVE_BACK_TARGETS = Update(
    "targets",
    "digest",
    f"reason = coalesce(reason_before, '{Reason.NEW}'), detail = detail_before, reason_before = NULL, detail_before = NULL",
    f"request_hash = {{digest}} AND reason = '{Reason.IN_BATCH}'",
    index="targets_by_request",
)
