"""Message Batches of the test server: requests, end and results."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server_rules import REFUSALS, wrong_params

if TYPE_CHECKING:
    from server import AnthropicServer

A_DAY = 86_400.0


@dataclass
class Job:
    """A batch. `fate` has words: `expired`, `canceled`, `errored`, `busy` (an error that goes away), `refusal`, each for
    a share of its requests (`expired=0.5`); `lines_missing=1` and `lines_twice=1` for so many lines; `download_cut` for
    the first download; `lost`, `unsent`, `refused`, `overloaded` for its creation; `slow` for one that does not end."""

    id: str
    created: float
    requests: list[dict[str, Any]]
    fate: dict[str, float]
    ends: float
    status: str = "in_progress"
    ended: float | None = None
    cancel_initiated: float | None = None
    archived: bool = False
    results: list[dict[str, Any]] = field(default_factory=list)

    def shown(self, base_url: str) -> dict[str, Any]:
        """Return the API's object."""
        kinds = Counter(entry["result"]["type"] for entry in self.results)
        has_results = self.status == "ended" and not self.archived
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.status,
            "request_counts": {
                "processing": 0 if self.status == "ended" else len(self.requests),
                **{kind: kinds[kind] for kind in ("succeeded", "errored", "canceled", "expired")},
            },
            "created_at": _time(self.created),
            "expires_at": _time(self.created + A_DAY),
            "ended_at": _time(self.ended),
            "cancel_initiated_at": _time(self.cancel_initiated),
            "archived_at": _time(self.ended) if self.archived else None,
            "results_url": f"{base_url}/v1/messages/batches/{self.id}/results" if has_results else None,
        }

    def lines(self) -> list[bytes]:
        """Return the results in another order than the requests."""
        lines = [json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in self.results]
        random.Random(self.id).shuffle(lines)
        del lines[: int(self.fate.get("lines_missing", 0))]
        return lines + lines[: int(self.fate.get("lines_twice", 0))]

    def take(self, word: str) -> bool:
        """Return True the first time the fate has this word."""
        return self.fate.pop(word, None) is not None


class Batches:
    """All batches of a server, oldest first. Hold the server's lock to call a method."""

    def __init__(self, server: AnthropicServer) -> None:
        self._server = server
        self.by_id: dict[str, Job] = {}
        self._folder: Path | None = None
        self._lag: dict[str, int] = {}
        self._created = 0

    def next_fate(self) -> dict[str, float]:
        script = self._server.settings.batch_script
        words = script[self._created] if self._created < len(script) else "ok"
        self._created += 1
        parts = (word.partition("=") for word in words.split("+"))
        return {name: float(share or 1.0) for name, _, share in parts if name != "ok"}

    def create(self, entries: Sequence[Mapping[str, Any]], fate: dict[str, float]) -> Job:
        now = time.time()
        seconds = A_DAY if "slow" in fate else self._server.settings.batch_seconds
        job = Job(f"msgbatch_{len(self.by_id) + 1:06d}", now, [dict(entry) for entry in entries], fate, now + seconds)
        self.by_id[job.id] = job
        self._lag[job.id] = self._server.settings.list_lag
        self._keep(job)
        return job

    def listed(self) -> list[Job]:
        """Return batches newest first, without those too recent to be listed."""
        found = []
        for job in reversed(self.by_id.values()):
            if self._lag.get(job.id, 0) > 0:
                self._lag[job.id] -= 1
            else:
                found.append(job)
        return found

    def proceed(self) -> None:
        """End batches whose time has passed."""
        now = time.time()
        for job in self.by_id.values():
            if job.status != "ended" and (now >= job.ends or job.status == "canceling"):
                self.end(job)

    def cancel(self, job: Job) -> None:
        if job.status == "in_progress":
            job.status, job.cancel_initiated = "canceling", time.time()
            job.fate.setdefault("canceled", 1.0)
            self._keep(job)

    def delete(self, job: Job) -> None:
        del self.by_id[job.id]
        if self._folder is not None:
            (self._folder / f"{job.id}.json").unlink()

    def end(self, job: Job) -> None:
        """Answer and charge the requests that its fate does not fail."""
        shares = [(word, job.fate[word]) for word in _KINDS if word in job.fate]
        places = list(range(len(job.requests)))
        random.Random(len(job.requests)).shuffle(places)
        kinds: dict[int, str] = {}
        for word, share in shares:
            for place in [place for place in places if place not in kinds][: round(share * len(job.requests))]:
                kinds[place] = word
        for place, entry in enumerate(job.requests):
            job.results.append({"custom_id": entry["custom_id"], "result": self._result(job, entry, kinds.get(place))})
        job.status, job.ended = "ended", time.time()
        self._keep(job)

    def _result(self, job: Job, entry: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
        if kind in ("expired", "canceled"):
            return {"type": kind}
        params, scripted = entry["params"], None
        content = json.dumps(params, ensure_ascii=False).encode()
        if kind is None:
            scripted = self._server._fault(content.decode(), content.hex())
        fault = {"errored": "bad_request", "busy": "overloaded"}.get(kind or "", kind or scripted)
        wrong = wrong_params(params, in_batch=True)
        if fault in REFUSALS or wrong is not None:
            _, error, words = REFUSALS["bad_request" if wrong else str(fault)]
            response = {
                "type": "error",
                "error": {"type": error, "message": wrong or words},
                "request_id": "req_in_batch",
            }
            return {"type": "errored", "error": response}
        message, charge = self._server.answer(params, content, entry["custom_id"], "batch", job.id, fault)
        self._server.charge(charge)
        return {"type": "succeeded", "message": message}

    # ------------------------------------------------------------------------------------------------------ on disk

    def load(self, folder: Path) -> None:
        self._folder = folder / "batches"
        self._folder.mkdir(exist_ok=True)
        for path in sorted(self._folder.glob("msgbatch_*.json")):
            job = Job(**json.loads(path.read_text()))
            self.by_id[job.id] = job
            self._created += 1
            if job.status != "ended" and "slow" not in job.fate:
                job.ends = job.created + self._server.settings.batch_seconds

    def _keep(self, job: Job) -> None:
        if self._folder is not None:
            path = self._folder / f"{job.id}.json"
            new = path.with_suffix(".new")
            new.write_text(json.dumps(vars(job)))
            new.replace(path)


_KINDS = ("expired", "canceled", "errored", "busy", "refusal", "max_tokens")


def _time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
