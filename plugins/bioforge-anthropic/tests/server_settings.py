"""Settings of the test server and entries of its ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Charge:
    """One charged answer. `name`: the client's name of the attempt, in a batch its `custom_id`."""

    name: str | None
    body_sha256: str
    response_id: str
    model: str
    tier: str
    input_tokens: int
    output_tokens: int
    batch_id: str | None = None


@dataclass
class Settings:
    """Settings; times in seconds. `script`: faults of the 1st, 2nd … attempt of requests that contain a text. `faults`:
    probabilities. `batch_script`: fates of the 1st, 2nd … batch (see `server_batches.Job`), joined by a plus."""

    latency: float = 0.0
    script: Mapping[str, Sequence[str]] = field(default_factory=dict)
    faults: Mapping[str, float] = field(default_factory=dict)
    seed: int = 1
    retry_after: float = 0.05
    hang_seconds: float = 30.0
    quota_after: int | None = None
    outage: tuple[int, int] | None = None
    requests_per_minute: int = 1_000_000
    tokens_per_minute: int = 100_000_000
    cached: bool = False
    batch_seconds: float = 0.0
    batch_script: Sequence[str] = ()
    create_latency: float = 0.0
    """Between the creation of a batch and the answer to it, the first time."""
    echo_key: bool = False
    """Whether a refused key is repeated in the refusal."""
    list_lag: int = 0
    """In how many lists a new batch is missing."""
    data: Path | None = None
