"""Telling callers what came of their calls, on whatever thread knows it first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

from bioforge.api.deduplicate import Waiter
from bioforge.api.outcome import NeedsRepair, Received, Verdicts, judge
from bioforge.api.request import RequestBuilder
from bioforge.api.types import Answer
from bioforge.core.errors import BioforgeError, ClosedError, HaltedError

MakeError = Callable[[], BioforgeError]
"""Each caller gets an error of its own: raising one in two threads would mix up their tracebacks."""

log = logging.getLogger("bioforge.api")


class Notifier:
    """`enter` puts a call in the way of all calls, for what is sent back to be mended."""

    def __init__(self, asker: RequestBuilder, enter: Callable[[Waiter], None]) -> None:
        self._asker = asker
        self._enter = enter

    def tell(self, calls: Sequence[Waiter], arrival: Received, verdicts: Verdicts) -> None:
        """The first who still waits has paid for an answer; the others get it as well."""
        for call in calls:
            if call.future.cancelled():
                continue
            found = judge(call.question, arrival, verdicts, call.paying)
            arrival = replace(arrival, cached=True)
            match found:
                case Answer():
                    call.answer(found)
                case NeedsRepair():
                    self._mend(call, found)
                case _:
                    call.fail(found)

    def _mend(self, call: Waiter, mend: NeedsRepair) -> None:
        call.paying = mend.paying
        try:
            call.question = self._asker.repairing(call.question, mend.text, mend.errors)
            self._enter(call)
        except BioforgeError as error:
            call.fail(error)


def fail(calls: Sequence[Waiter], make: MakeError) -> None:
    for call in calls:
        call.fail(make())


def error_of(error: BaseException | None) -> MakeError:
    """For those who wait when the engine ends: by an error, or since the client was closed."""
    match error:
        case None:
            return lambda: ClosedError("the client was closed before this was answered", error_class="interrupted")
        case BioforgeError():
            return lambda: copy(error)
        case _:
            log.error("the engine failed", exc_info=error)
            return lambda: HaltedError(f"the engine failed: {type(error).__name__}: {error}", error_class="internal")
