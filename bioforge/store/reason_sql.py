"""SQL word lists, derived from the tables of reasons and request states."""

from __future__ import annotations

from collections.abc import Iterable

from bioforge.core.reasons import REASONS, STATES, Detail


def word_list(words: Iterable[str]) -> str:
    """Return `('a', 'b')`, for `IN`."""
    return "(" + ", ".join(f"'{word}'" for word in words) + ")"


def not_sent(resend_maybe_paid: bool) -> str:
    """Return the reasons for which a run sends no request."""
    return word_list(
        reason for reason, info in REASONS.items() if not info.sent or (info.optional and not resend_maybe_paid)
    )


WITH_ERROR_CLASS = word_list(reason for reason, info in REASONS.items() if info.detail is Detail.ERROR)
WAITING_FOR_UPSTREAM = word_list(reason for reason, info in REASONS.items() if info.waits)
EXPORTED_AS_ERROR = word_list(reason for reason, info in REASONS.items() if info.error)
RESENT_ON_PURPOSE = word_list(reason for reason, info in REASONS.items() if info.resends_paid)
SENT_AND_FAILED = word_list(reason for reason, info in REASONS.items() if info.error and info.sent)
FAILED_STATES = word_list(state for state, info in STATES.items() if info.failed)
OPEN_STATES = word_list(state for state, info in STATES.items() if info.open)
