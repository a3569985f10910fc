"""Options of the simulator: latency, limits and faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bioforge.simulator.batch_faults import check_batch_faults
from bioforge.simulator.faults import Script, check_faults, check_script


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch of `number_of_requests` requests answered 503, after `start_after_requests` others."""

    start_after_requests: int
    number_of_requests: int

    def __post_init__(self) -> None:
        _at_least("start_after_requests", self.start_after_requests, 0)
        _at_least("number_of_requests", self.number_of_requests, 1)

    def covers(self, number: int) -> bool:
        """Return True if the outage hits this request; `number` counts requests from 1."""
        return self.start_after_requests < number <= self.start_after_requests + self.number_of_requests


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """All options; the default is an instant, unlimited server without faults.

    Invalid values raise ValueError, naming the option and the value.
    """

    latency: float = 0.0
    """Median latency of charged answers in seconds; refusals are immediate."""

    latency_sigma: float = 0.0
    """Sigma of the log-normal latency; 0 for constant, 0.7 is like the real API."""

    requests_per_minute: int | None = None
    """Size of the request bucket, refilled evenly over a minute. None: no limit and no headers."""

    tokens_per_minute: int | None = None
    """Size of the token bucket. A request takes its estimated input or its output limit, whichever is larger."""

    seed: int = 0
    """Seed of faults and latencies; texts do not depend on it."""

    quota_after: int | None = None
    """Number of charged answers after which every request gets 429 `insufficient_quota`."""

    outage: Outage | None = None
    """A stretch of requests answered 503."""

    faults: Mapping[str, float] = field(default_factory=dict)
    """Probability of each fault for an attempt: `{"rate_limit": 0.05}`. Names: `bioforge.simulator.FAULTS`."""

    script: Script = field(default_factory=dict)
    """Scripted faults, like `{"Absalon": ["rate_limit", "ok"]}`: each body whose canonical JSON contains the text has
    these faults at its first attempts. Later attempts and other bodies follow `faults`. A function gets the parsed body
    and the number of the attempt, and returns a name or None."""

    retry_after: float = 1.0
    """Seconds in the `retry-after` header of the fault `rate_limit`."""

    hang_seconds: float = 30.0
    """Seconds that the fault `hang` delays an answer."""

    several_parts: bool | float = 0.2
    """Share of responses with a reasoning item first and the text in two parts; True is all, False none."""

    ledger: str | Path | None = None
    """JSON Lines file to which each charge is written before its answer is sent. None: in memory only."""

    batch_seconds: float = 2.0
    """Seconds from a batch's creation to its completion; its lines are answered at an even pace. 0: as fast as
    possible."""

    batch_window_seconds: float = 86_400.0
    """Length of the completion window of 24 hours, in seconds."""

    batch_cancel_seconds: float = 0.0
    """Seconds that a batch is `cancelling`."""

    batch_creations_per_hour: int = 2000
    """Limit of batches created per hour."""

    batch_enqueued_tokens: int | None = None
    """Limit of estimated input tokens in a model's unfinished batches. None: no limit."""

    batch_token_refusal: Literal["failed", "create"] = "failed"
    """For a batch over that limit: `failed` lets it fail after its creation, `create` refuses the creation."""

    batch_script: Sequence[str] = ()
    """Faults of the first batches, each a text like `"lines_missing=0.1+wrong_counts"` or `"ok"`."""

    batch_faults: str = ""
    """Faults of all batches beyond the script. Names: `bioforge.simulator.BATCH_FAULTS`."""

    data: str | Path | None = None
    """Folder for files and batches, which a later server continues. None: a temporary folder."""

    def __post_init__(self) -> None:
        for name in ("latency", "latency_sigma", "retry_after", "hang_seconds", "batch_seconds"):
            _at_least(name, getattr(self, name), 0)
        for name in ("batch_window_seconds", "batch_cancel_seconds", "batch_creations_per_hour"):
            _at_least(name, getattr(self, name), 0)
        _at_least("batch_enqueued_tokens", self.batch_enqueued_tokens, 1)
        if self.batch_token_refusal not in ("failed", "create"):
            raise ValueError(f"batch_token_refusal must be 'failed' or 'create', not {self.batch_token_refusal!r}")
        check_batch_faults(self.batch_script, self.batch_faults)
        for name in ("requests_per_minute", "tokens_per_minute"):
            _at_least(name, getattr(self, name), 1)
        _at_least("quota_after", self.quota_after, 0)
        if not 0 <= self.several_parts <= 1:
            raise ValueError(f"several_parts must be True, False or from 0 to 1, not {self.several_parts!r}")
        check_faults(self.faults)
        check_script(self.script)


def _at_least(name: str, value: float | None, minimum: int) -> None:
    # "not >=" also refuses NaN.
    if value is not None and not value >= minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value!r}")
