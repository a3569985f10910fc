"""A backend that gives each input back, to see what a backend is: `bioforge run --backend echo`. It sends nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence

from bioforge.plugin import (
    Attempt,
    Backend,
    BackendFactory,
    Event,
    Response,
    Started,
    Stopped,
    Succeeded,
    Usage,
    Work,
    hookimpl,
)

BIOFORGE_API = 1


class Echo(Backend):
    dialect = "echo"
    base_url = "http://127.0.0.1"  # nobody is called there, but the embedded server has another dialect

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        for request in work.requests:
            if work.control.stop.level:
                yield [Stopped(work.control.stop.reason, "asked to stop", "`bioforge resume` goes on here")]
                return
            attempt = Attempt(request, request.attempts + 1, "W01", str(uuid.uuid4()), time.time())
            yield [Started(attempt)]
            yield [
                Succeeded(
                    attempt, Response(request.body, json.loads(request.body)["input"], Usage(), cost_usd=0.0), 0.0
                )
            ]

    def price(self, model: str, usage: Usage, service_tier: str | None = None) -> float:
        return 0.0


@hookimpl
def bioforge_backends() -> Mapping[str, BackendFactory]:
    return {"echo": Echo}
