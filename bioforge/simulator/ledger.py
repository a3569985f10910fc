"""The ledger of all charged answers, with counts of requests; independent of what clients record."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from io import TextIOWrapper
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

from bioforge.simulator.answers import Bill, answer_id

Delivered = Literal["yes", "dropped", "truncated", "malformed", "hang"]

BATCH_TIER = "batch"

NO_ANSWER = 0
"""The counted status of requests whose connection was closed without an answer."""

_Kind = tuple[str, str, str, Delivered, str | None]
"""Endpoint, model, service tier, delivery and batch id."""

_Row = tuple[float, int, str | None, bytes, int, int, int, _Kind]
"""Time, request number, client request id or `custom_id` of a batch line, digest, occurrence, input and output tokens,
kind."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One charged answer."""

    sequence: int
    """Position in the ledger, from 1."""
    time: float
    """Unix time, seconds."""
    request_id: str
    client_request_id: str | None
    """The `X-Client-Request-Id` header; None without it."""
    endpoint: str
    model: str
    """The model snapshot that answered."""
    body_sha256: str
    """SHA-256 of the body as JSON with sorted keys, no spaces and no escaped letters, in hexadecimal."""
    input_tokens: int
    output_tokens: int
    response_id: str
    delivered: Delivered
    """Delivery of the answer: complete, dropped, truncated, malformed, or late (`hang`)."""
    service_tier: str
    """`batch` for batch lines."""
    batch_id: str | None = None
    custom_id: str | None = None
    """The `custom_id` of the batch line; None, like `batch_id`, for single requests."""


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Counts of requests to `/v1/…`."""

    requests: int
    statuses: Mapping[int, int]
    """By HTTP status; 0 for connections closed without an answer."""
    faults: Mapping[str, int]
    """By fault; `limit`, `quota` and `outage` for other refusals."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all charges."""

    charges: int
    bodies: int
    """Different request bodies among them: `charges - bodies` were charged more than once."""
    input_tokens: int
    output_tokens: int
    delivered: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """Counts of batches and uploads."""

    created: int = 0
    """Created batches, including those whose creation answer was lost."""
    uploads: int = 0
    """Stored files of any purpose."""


class Ledger:
    """Charges and counts. Written only by the server's thread, readable from any."""

    def __init__(self, path: str | Path | None = None) -> None:
        # tuples with shared kinds and derived ids: a million charges as dataclasses would take a gigabyte
        self._rows: list[_Row] = []
        self._kinds: dict[_Kind, _Kind] = {}
        self._prefix = f"req_{token_hex(8)}"
        self._numbers = 0
        self._created = 0
        self._uploads = 0
        self._statuses: Counter[int] = Counter()
        self._faults: Counter[str] = Counter()
        self._path = path
        self._file: TextIOWrapper | None = None

    def open(self) -> None:
        """Open the ledger file, if configured, for appending."""
        if self._path is not None and self._file is None:
            _check_ledger(Path(self._path))
            # line-buffered: a line is written before its answer is sent
            self._file = Path(self._path).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def next_number(self) -> int:
        """Return a new number for a request or a batch line, from 1."""
        self._numbers += 1
        return self._numbers

    def request_id(self, number: int) -> str:
        """Return the `x-request-id` of the request with this number."""
        return f"{self._prefix}{number:016x}"

    def charge(
        self,
        time: float,
        number: int,
        name: str | None,
        bill: Bill,
        delivered: Delivered = "yes",
        *,
        batch_id: str | None = None,
    ) -> None:
        """Add a charge, to the file first.

        `number` is the request's; `name` is the client request id, or the `custom_id` for a batch line.
        """
        tier = bill.service_tier if batch_id is None else BATCH_TIER
        kind = (bill.endpoint, bill.model, tier, delivered, batch_id)
        row = (
            time,
            number,
            name,
            bill.digest,
            bill.occurrence,
            bill.input_tokens,
            bill.output_tokens,
            self._kinds.setdefault(kind, kind),
        )
        if self._file is not None:
            self._file.write(_line(self._charge(len(self._rows) + 1, row)))
        self._rows.append(row)

    def count(self, status: int, fault: str | None) -> None:
        self._statuses[status] += 1
        if fault is not None:
            self._faults[fault] += 1

    def count_batch(self) -> None:
        self._created += 1

    def count_upload(self) -> None:
        self._uploads += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._rows)

    def entries(self) -> list[Charge]:
        return list(self.stream())

    def stream(self) -> Iterator[Charge]:
        """Yield the current charges."""
        for place in range(len(self._rows)):
            yield self._charge(place + 1, self._rows[place])

    def lines(self) -> Iterator[str]:
        """Yield the current charges as JSON Lines."""
        return map(_line, self.stream())

    @property
    def counts(self) -> RequestCounts:
        statuses = dict(self._statuses)
        return RequestCounts(sum(statuses.values()), statuses, dict(self._faults))

    @property
    def batches(self) -> BatchCounts:
        return BatchCounts(self._created, self._uploads)

    def totals(self) -> Totals:
        rows = self._rows[:]
        return Totals(
            charges=len(rows),
            bodies=len({row[3] for row in rows}),
            input_tokens=sum(row[5] for row in rows),
            output_tokens=sum(row[6] for row in rows),
            delivered=dict(Counter(row[7][3] for row in rows)),
        )

    def summary(self) -> dict[str, Any]:
        """Return counts and totals as JSON data."""
        return {
            "counts": asdict(self.counts),
            "totals": asdict(self.totals()),
            "batches": asdict(self.batches),
        }

    def _charge(self, sequence: int, row: _Row) -> Charge:
        time, number, name, digest, occurrence, input_tokens, output_tokens, kind = row
        endpoint, model, tier, delivered, batch_id = kind
        return Charge(
            sequence=sequence,
            time=time,
            request_id=self.request_id(number),
            client_request_id=name if batch_id is None else None,
            endpoint=endpoint,
            model=model,
            body_sha256=digest.hex(),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            response_id=answer_id(endpoint, digest, occurrence),
            delivered=delivered,
            service_tier=tier,
            batch_id=batch_id,
            custom_id=None if batch_id is None else name,
        )


def _check_ledger(path: Path) -> None:
    """Raise `FileExistsError` for a file with other content than charges."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        first = stream.readline(1 << 16)
    try:
        known = not first or json.loads(first).keys() >= {"body_sha256", "sequence"}
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise FileExistsError(errno.EEXIST, "exists and is not a ledger of the simulator: name another file", str(path))


def _line(charge: Charge) -> str:
    return json.dumps({name: getattr(charge, name) for name in _NAMES}) + "\n"


_NAMES = tuple(field.name for field in fields(Charge))
