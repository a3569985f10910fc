"""Find mistakes of the setup with few requests: a wrong address, a gateway's page, a model that does not exist.

Sans I/O: `now` in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bioforge.core.events import Stopped
from bioforge.core.interfaces import Outcome
from bioforge.core.reasons import HELD_CLASSES
from bioforge.core.types import Failure, Request

ALONE = 10
"""Requests of a recipe that are sent one at a time, until one is answered."""

ALONE_SECONDS = 2.0
"""Seconds that the others wait for a request sent alone. A wrong setup is refused at once; an answer may take minutes."""

EQUAL_REFUSALS = 10
"""Equal final refusals of a recipe without an answer, after which the run stops."""

UNREADABLE = "malformed"
"""Error class of a success that is not in the API's form."""

UNREADABLE_IN_A_ROW = 15
"""Unreadable answers without a readable one, after which the run stops."""

UNREADABLE_TRIES = 2
"""Attempts of a request with unreadable answers; each may have been charged."""

_NOT_OF_THE_SETUP = HELD_CLASSES | {"too_large", "cancelled", "expired", "missing", "batch_failed"}
"""Error classes of a row's content, and of what happened to its batch."""

_HINTS = {
    404: "check model, endpoint and base_url, then run again",
    405: "check base_url: it is the part of the address before the endpoint, such as https://HOST/v1",
}


@dataclass(slots=True)
class _Recipe:
    answered: bool
    """True after an answer in this run."""
    proven: bool
    """True after an answer, also in an earlier run."""
    sent: int = 0
    in_flight: int = 0
    since: float = 0.0
    """Time since which requests have been in flight."""
    refusal: tuple[object, ...] = ()
    refusals: int = 0


class SetupCheck:
    """Sends the first requests of each recipe alone, and stops the run after equal refusals or unreadable answers.

    `proven` returns True for a request of a recipe that was answered in an earlier run.
    """

    def __init__(self, proven: Callable[[Request], bool]) -> None:
        self._proven = proven
        self._recipes: dict[tuple[str, str], _Recipe] = {}
        self._models: set[str] = set()
        self._unreadable = 0

    def wait(self, request: Request, now: float) -> float:
        """Return the seconds that a request waits for the one before it; 0 for none."""
        recipe = self._recipe(request)
        if recipe.proven or not recipe.in_flight:
            return 0.0
        if recipe.sent > ALONE and not self._unreadable:
            return 0.0
        return max(0.0, recipe.since + ALONE_SECONDS - now)

    def record_sent(self, request: Request, now: float) -> None:
        recipe = self._recipe(request)
        recipe.since = recipe.since if recipe.in_flight else now
        recipe.sent += 1
        recipe.in_flight += 1

    def record_ended(self, request: Request) -> None:
        """Record an attempt that has ended, or was not sent after all."""
        self._recipe(request).in_flight -= 1

    def is_of_row(self, request: Request, failure: Failure | None) -> bool:
        """Return True for a 403 after an answer of the same model in this run: key and model were accepted."""
        return failure is not None and failure.error_class == "permission" and request.model in self._models

    def record(self, request: Request, outcome: Outcome) -> Stopped | None:
        """Record how an attempt ended; return the stop if no request can succeed."""
        recipe, failure = self._recipe(request), outcome.failure
        if outcome.answer is not None or failure is None:
            recipe.answered = recipe.proven = True
            self._models.add(request.model)
            self._unreadable = 0
            return None
        if failure.error_class == UNREADABLE:
            self._unreadable += 1
            return _unreadable(self._unreadable, failure) if self._unreadable >= UNREADABLE_IN_A_ROW else None
        if recipe.answered or outcome.retryable or outcome.stops_run or not _of_the_setup(failure, recipe.proven):
            return None
        reason = refusal_of(failure)
        recipe.refusals = recipe.refusals + 1 if reason == recipe.refusal else 1
        recipe.refusal = reason
        return refused(request, recipe.refusals, outcome) if recipe.refusals >= EQUAL_REFUSALS else None

    def _recipe(self, request: Request) -> _Recipe:
        # the library's requests belong to no recipe
        key = (request.recipe or request.model, request.variant if request.recipe else request.endpoint)
        found = self._recipes.get(key)
        if found is None:
            found = self._recipes[key] = _Recipe(False, self._proven(request))
        return found


def refusal_of(failure: Failure) -> tuple[object, ...]:
    """Return what makes two refusals equal; messages often name the row."""
    return failure.error_class, failure.code, failure.http_status


def refused(request: Request, number: int, outcome: Outcome) -> Stopped:
    """Return the stop after equal refusals."""
    failure = outcome.failure or Failure("bad_request", "no details")
    status = failure.http_status or 0
    of = f" of recipe {request.recipe!r}" if request.recipe else ""
    code = f"HTTP {status}: " if status else ""
    hint = _HINTS.get(status, "check the parameters, model and base_url, then run again")
    if 300 <= status < 400:
        hint = "set base_url to the address that the server redirects to; calls are not redirected, for the sake of the key"
    return Stopped(
        "refused", f"{number} requests{of} were refused, and none was answered: {code}{failure.message}", hint
    )


def _of_the_setup(failure: Failure, proven: bool) -> bool:
    """Return True if a refusal may be caused by the setup. A recipe that was answered before has correct parameters."""
    status = failure.http_status or 0
    if proven:
        return 300 <= status < 400 or status in _HINTS
    return failure.error_class not in _NOT_OF_THE_SETUP


def _unreadable(number: int, failure: Failure) -> Stopped:
    return Stopped(
        "refused",
        f"{number} unreadable answers in a row: {failure.message}",
        "check base_url, and that no proxy, login page or gateway answers instead of the API; "
        "these calls may have been charged",
    )
