"""What a tool's day came to, counted from the server's ledger and what the gate saw; nothing a tool says is believed.

The text of an answer follows from its body (`bioforge.simulator.text`): whether a row has the answer to its own, present
request is not a matter of opinion.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gate import GENERATING, Seen

from bioforge.simulator import SimulatorOptions
from bioforge.simulator.answers import answer
from bioforge.simulator.request_bodies import CHAT, RESPONSES, canonical

GRACE = 0.25
"""Seconds before the death of a process within which an answer counts as in flight: it was handed to the kernel of the
machine, and a process on a busy one had no chance to make it durable. How often only this explains it is `just`."""

ROW = re.compile(r"\br\d{4}\b")

_UNDISTURBED = SimulatorOptions()
_EXPECTED: dict[str, str] = {}

_REFUSED = "I'm sorry, I cannot write about this."


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    name: str
    data: str


@dataclass(slots=True)
class Evidence:
    """All that is known at the end, from the server's side of the wire."""

    charges: Sequence[Mapping[str, Any]]
    seen: Sequence[Seen]
    bodies: Mapping[str, Mapping[str, Any]]
    deaths: Sequence[float]
    """When a process was killed by the harness."""
    fetchable: Mapping[tuple[str, str], Mapping[str, Any]]
    """Batch and `custom_id` to body, for all lines in result files that the server holds."""
    run_starts: Sequence[float]


@dataclass(slots=True)
class Counts:
    """One cell's numbers; rows unless it says otherwise."""

    rows: int = 0
    answered: int = 0
    """Rows with the whole answer to their present request."""
    charges: int = 0
    twice: int = 0
    """Charges for a body that had been charged before."""
    in_flight: int = 0
    """Of these: no earlier answer to the body could be known, by anybody."""
    just: int = 0
    """Of these: the answer was handed over, less than `GRACE` before the process was killed."""
    lost: int = 0
    """Rows whose answer was handed over, or could be fetched, and is neither in the output nor kept elsewhere."""
    wrong: int = 0
    """Texts that are not the answer to the row's present request."""
    unfit: int = 0
    """Texts that are cut off or a refusal, shown as if they were the answer."""
    needless: int = 0
    """Requests of reruns for bodies whose answer was there to be had."""
    unknown: list[str] = field(default_factory=list)
    """`request_id` of each charge whose answer nobody got."""

    @property
    def avoidable(self) -> int:
        return self.twice - self.in_flight


def text_of(answer: object) -> str | None:
    """The whole text of an answer of either endpoint; None where it is none, or is cut off or a refusal."""
    if not isinstance(answer, dict):
        return None
    if "output" in answer:
        if answer.get("status") != "completed":
            return None
        parts = [part for item in answer["output"] or () if item.get("type") == "message" for part in item["content"]]
        if any(part.get("type") != "output_text" for part in parts):
            return None
        return "".join(part["text"] for part in parts)
    choices = answer.get("choices") or [{}]
    if choices[0].get("finish_reason") != "stop":
        return None
    content = choices[0].get("message", {}).get("content")
    return content if isinstance(content, str) else None


def expected(digest: str, body: Mapping[str, Any]) -> str:
    """What the server says to this body, if nothing happens to the answer."""
    if digest not in _EXPECTED:
        endpoint = CHAT if "messages" in body else RESPONSES
        reply = answer(endpoint, body, _UNDISTURBED)
        _EXPECTED[digest] = text_of(reply.body) or ""
    return _EXPECTED[digest]


def row_of(body: Mapping[str, Any]) -> str | None:
    found = ROW.search(canonical(body))
    return found[0] if found else None


def count(
    evidence: Evidence,
    rows: Iterable[Row],
    prompt: str,
    results: Mapping[str, str],
    kept: Iterable[tuple[str, str]] = (),
) -> Counts:
    """`kept`: rows and texts that are not in the tool's output, and can be had from it."""
    rows = list(rows)
    counts = Counts(rows=len(rows), charges=len(evidence.charges))
    known_at = _known(evidence)
    _count_charges(evidence, known_at, counts)
    _count_rows(evidence, known_at, rows, prompt, results, kept, counts)
    _count_needless(evidence, known_at, counts)
    return counts


def _known(evidence: Evidence) -> dict[str, float]:
    """When each charge's answer could be known to its tool, by request id; charges that are missing never could."""
    delivered = {seen.request_id: seen for seen in evidence.seen if seen.delivered is not None and seen.request_id}
    known: dict[str, float] = {}
    for charge in evidence.charges:
        if charge["batch_id"] is not None:
            if (charge["batch_id"], charge["custom_id"]) in evidence.fetchable:
                known[charge["request_id"]] = charge["time"]
            continue
        seen = delivered.get(charge["request_id"])
        if seen is None or charge["delivered"] in ("truncated", "malformed", "dropped"):
            continue
        assert seen.delivered is not None
        if not any(seen.began < death < seen.delivered + GRACE for death in evidence.deaths):
            known[charge["request_id"]] = seen.delivered
    return known


def _count_charges(evidence: Evidence, known_at: Mapping[str, float], counts: Counts) -> None:
    known_bodies: set[str] = set()
    handed_over = {
        seen.request_id
        for seen in evidence.seen
        if seen.delivered and not any(seen.began < death < seen.delivered for death in evidence.deaths)
    }
    just: set[str] = set()
    charged: Counter[str] = Counter()
    for charge in evidence.charges:
        digest = charge["body_sha256"]
        if charged[digest]:
            counts.twice += 1
            counts.in_flight += digest not in known_bodies
            counts.just += digest in just and digest not in known_bodies
        charged[digest] += 1
        if charge["request_id"] in known_at:
            known_bodies.add(digest)
        else:
            counts.unknown.append(charge["request_id"])
            if charge["request_id"] in handed_over and charge["delivered"] == "yes":
                just.add(digest)


def _usable(evidence: Evidence, known_at: Mapping[str, float]) -> dict[str, float]:
    """Bodies with a whole answer that could be known, and since when."""
    answers: dict[str, bytes] = {seen.request_id: seen.answer for seen in evidence.seen if seen.request_id}
    since: dict[str, float] = {}
    for charge in evidence.charges:
        name, digest = charge["request_id"], charge["body_sha256"]
        if name not in known_at or digest not in evidence.bodies:
            continue
        if charge["batch_id"] is not None:
            text = text_of(evidence.fetchable[charge["batch_id"], charge["custom_id"]])
        else:
            text = text_of(_parsed(answers[name]))
        if text == expected(digest, evidence.bodies[digest]):
            since[digest] = min(known_at[name], since.get(digest, known_at[name]))
    return since


def _count_rows(
    evidence: Evidence,
    known_at: Mapping[str, float],
    rows: Sequence[Row],
    prompt: str,
    results: Mapping[str, str],
    kept: Iterable[tuple[str, str]],
    counts: Counts,
) -> None:
    usable = _usable(evidence, known_at)
    present: defaultdict[str, dict[str, str]] = defaultdict(dict)
    by_id = {row.id: row for row in rows}
    for digest, body in evidence.bodies.items():
        row = by_id.get(row_of(body) or "")
        if row is not None and all(words in canonical(body) for words in (prompt, row.name, row.data)):
            present[row.id][digest] = _plain(expected(digest, body))
    charged = {charge["body_sha256"] for charge in evidence.charges}
    there = list(kept)
    for row in rows:
        text, own = _plain(results.get(row.id, "")), present[row.id]
        if text and any(text == whole for digest, whole in own.items() if digest in charged):
            counts.answered += 1
            continue
        if text:
            # At half its length an answer is cut; a shorter piece of it would be no coincidence either.
            cut = any(whole.startswith(text[: len(whole) // 4]) for whole in own.values())
            if cut or text.startswith(_REFUSED):
                counts.unfit += 1
            else:
                counts.wrong += 1
        to_be_had = any(row.id == name and _plain(text) in own.values() for name, text in there)
        counts.lost += not to_be_had and any(digest in usable for digest in own)
    counts.wrong += sum(bool(text) and row_id not in by_id for row_id, text in results.items())


def unanswered(seen: Iterable[Seen], deaths: Sequence[float]) -> tuple[int, int]:
    """Return the calls that were received and whose outcome did not arrive: certainly, and at most.

    Between the two are calls whose answer was handed over less than `GRACE` before the process was killed.
    """
    certain = most = 0
    for call in seen:
        if call.method != "POST" or call.path not in GENERATING:
            continue
        lost = call.unclear or call.delivered is None or (call.status == 200 and _parsed(call.answer) is None)
        just = not lost and any(call.began < death < (call.delivered or 0.0) + GRACE for death in deaths)
        certain += lost
        most += lost or just
    return certain, most


def _plain(text: str) -> str:
    """White space aside: how a tool joins the parts of an answer is a matter of taste."""
    return " ".join(text.split())


def _count_needless(evidence: Evidence, known_at: Mapping[str, float], counts: Counts) -> None:
    usable = _usable(evidence, known_at)
    uploads: dict[str, Seen] = {}
    created: set[str] = set()
    for seen in evidence.seen:
        digests: Sequence[str] = ()
        if seen.method == "POST" and seen.path in GENERATING:
            digests = seen.digests
        elif seen.method == "POST" and seen.path == "/v1/files":
            uploads[str((_parsed(seen.answer) or {}).get("id"))] = seen
        elif seen.method == "POST" and seen.path == "/v1/batches" and seen.status == 200:
            batch = _parsed(seen.answer) or {}
            if batch.get("id") not in created and (upload := uploads.get(str(batch.get("input_file_id")))):
                created.add(str(batch.get("id")))
                digests = upload.digests
        if seen.run:
            start = evidence.run_starts[seen.run]
            counts.needless += sum(usable.get(digest, start) < start for digest in digests)


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
