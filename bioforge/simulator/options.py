"""Options of the simulator: how fast, how limited and how faulty it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bioforge.simulator.batch_faults import check_batch_faults
from bioforge.simulator.faults import Script, check_faults, check_script


@dataclass(frozen=True, slots=True)
class Outage:
    """The server answers `start_after_requests` requests, then 503 to the next `number_of_requests`."""

    start_after_requests: int
    number_of_requests: int

    def __post_init__(self) -> None:
        _at_least("start_after_requests", self.start_after_requests, 0)
        _at_least("number_of_requests", self.number_of_requests, 1)

    def covers(self, number: int) -> bool:
        """`number`: place of a request among all that ask for an answer, from 1."""
        return self.start_after_requests < number <= self.start_after_requests + self.number_of_requests


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """Everything that can be set; the default is an instant, unlimited, faultless server.

    Wrong values raise ValueError with a sentence that names the option and what was found.
    """

    latency: float = 0.0
    """Median seconds until a charged answer is ready; refusals are immediate."""

    latency_sigma: float = 0.0
    """Sigma of the log-normal distribution of the latency, 0 for constant; 0.7 looks like the real API."""

    requests_per_minute: int | None = None
    """Size of the request bucket, refilled evenly over a minute. None: no limit, and no headers about it."""

    tokens_per_minute: int | None = None
    """Size of the token bucket. A request takes its estimated input or its output limit, if that is more."""

    seed: int = 0
    """Chooses which requests meet a fault and how long answers take. Texts do not depend on it."""

    quota_after: int | None = None
    """After so many charged answers every request gets 429 `insufficient_quota`."""

    outage: Outage | None = None
    """A stretch of requests that are all answered 503."""

    faults: Mapping[str, float] = field(default_factory=dict)
    """Probability of each fault for one try: `{"rate_limit": 0.05}`. Names: `bioforge.simulator.FAULTS`."""

    script: Script = field(default_factory=dict)
    """Faults told in advance, as in `{"Absalon": ["rate_limit", "ok"]}`: each body in which the text occurs
    meets them in order, one for each try; afterwards, and elsewhere, `faults` decide. The text is looked for
    in the body's canonical JSON. A function gets the parsed body and the try's number, and returns a name or
    None."""

    retry_after: float = 1.0
    """Seconds the fault `rate_limit` names in its `retry-after` header."""

    hang_seconds: float = 30.0
    """How long the fault `hang` holds an answer back."""

    several_parts: bool | float = 0.2
    """Share of responses with a reasoning item first and the text in two parts; True is all, False none."""

    ledger: str | Path | None = None
    """JSON Lines file that gets each charge before its answer is sent. None: the ledger is in memory only."""

    batch_seconds: float = 2.0
    """Seconds from a batch's creation to its completion; its lines are answered at an even pace between. 0: as
    fast as they can be."""

    batch_window_seconds: float = 86_400.0
    """Seconds that stand for the completion window of 24 hours."""

    batch_cancel_seconds: float = 0.0
    """How long a batch is `cancelling`."""

    batch_creations_per_hour: int = 2000
    """Batches that may be created within an hour."""

    batch_enqueued_tokens: int | None = None
    """Estimated input tokens that a model's batches may have together until they are over. None: no limit."""

    batch_token_refusal: Literal["failed", "create"] = "failed"
    """What becomes of a batch over that limit: it is created and fails, or its creation is refused."""

    batch_script: Sequence[str] = ()
    """The faults of the 1st, 2nd … batch, each a text as in `"lines_missing=0.1+wrong_counts"`, or `"ok"`."""

    batch_faults: str = ""
    """The faults of every batch beyond the script. Names: `bioforge.simulator.BATCH_FAULTS`."""

    data: str | Path | None = None
    """Folder for files and batches, in which a later server finds them. None: a temporary one."""

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


def _at_least(name: str, value: float | None, least: int) -> None:
    # "not >=" also refuses NaN.
    if value is not None and not value >= least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
