"""Errors for people: one class tree with exit codes. The CLI prints them in one place (`cli/errors`).

BioforgeError (1)
  UsageError (2)             a wrong command
    ConfigError              bioforge.toml or a library's `Config`, with the key
    BadArgument              a wrong argument of the library; also a ValueError
    TemplateError            a template that does not compile or uses an unknown name
    InputError               the input as a whole: missing, unreadable, empty
    PluginError              a plugin that cannot be used
    PlanMismatch             `run --plan` with a plan that is out of date
  StateError (2)             the state file: locked, newer, foreign, not writable
    NoSpaceError (75)        the disk is full
    StateMovedError (75)     the state was moved, deleted or replaced during a run
  OutputError (1)            an output could not be written; the state is intact
  BrokenBackendError (1)     a plugin's backend raised an exception; its recorded answers are kept
  StoppedError (75)          stopped on purpose; running again continues
  GenerationError (1)        a library call without a usable answer
    TransportError           no answer after every attempt: refused, disconnected or unreachable
    UnusableError            an answer that was paid for and is not usable; the state keeps it
      RefusedError           the model, or its content filter, declined
      TruncatedError         truncated at its token limit
      SchemaValidationError  it does not fit the schema
    PendingError (75)        in an open batch
    HaltedError (75)         no request can succeed now; every waiting call ends with it
      BudgetError            the client's budget is used up
      AuthenticationError    the provider rejects the key
      QuotaError             the account's credit or spend limit is used up
      OutageError            the provider was unreachable for longer than the retry policy allows
      ClosedError            the client was closed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypedDict, Unpack

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130


class BioforgeError(Exception):
    """An error for people: what is wrong and where; `hint` says what to do."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BioforgeError):
    """A command, project file, input or plugin that cannot be used; nothing was sent."""

    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """A wrong value in bioforge.toml or in the library's `Config`."""


class BadArgument(UsageError, ValueError):
    """A wrong argument of the library."""


class TemplateError(UsageError):
    """A template that does not compile or uses an unknown name."""


class InputError(UsageError):
    """An input that is missing, unreadable or empty."""


class PluginError(UsageError):
    """A plugin that cannot be used."""


class PlanMismatch(UsageError):
    """A plan file that no longer matches the state."""


class StateError(BioforgeError):
    """A state file that is locked, newer, foreign or not writable."""

    exit_code = EXIT_USAGE


class NoSpaceError(StateError):
    """A full disk, or a disk that refuses writes."""

    exit_code = EXIT_STOPPED


class StateMovedError(StateError):
    """A state that was moved, deleted or replaced while a run was writing to it."""

    exit_code = EXIT_STOPPED


class OutputError(BioforgeError):
    """An output that could not be written; the state is intact."""

    exit_code = EXIT_FAILED


class BrokenBackendError(BioforgeError):
    """A backend of a plugin that raised an exception; its recorded answers are kept."""

    exit_code = EXIT_FAILED


class StoppedError(BioforgeError):
    """A run that was stopped on purpose; running again continues it."""

    exit_code = EXIT_STOPPED


class GenerationFault(Protocol):
    """One schema error of an answer. `path` is its place (`works[2].year`), empty for the whole answer."""

    @property
    def path(self) -> str: ...
    @property
    def message(self) -> str: ...


class CallFacts(TypedDict, total=False):
    """Facts about the request that every `GenerationError` carries."""

    error_class: str
    code: str | None
    request_hash: str
    request_id: str | None
    attempts: int


class GenerationError(BioforgeError):
    """A call without a usable answer.

    `error_class` is the word that failures are grouped by, `code` the provider's own, `request_id` the provider's id of
    the last attempt, `attempts` the number of attempts.
    """

    def __init__(self, message: str, hint: str = "", **facts: Unpack[CallFacts]) -> None:
        super().__init__(message, hint)
        self.error_class = facts.get("error_class", "failed")
        self.code = facts.get("code")
        self.request_hash = facts.get("request_hash", "")
        self.request_id = facts.get("request_id")
        self.attempts = facts.get("attempts", 0)


class TransportError(GenerationError):
    """No answer, after every attempt.

    `status_code` is the last HTTP status, None if no response arrived; `retry_after` the delay in seconds that the
    provider asked for. `maybe_paid`: the last attempt may have been charged.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        status_code: int | None = None,
        retry_after: float | None = None,
        maybe_paid: bool = False,
        **facts: Unpack[CallFacts],
    ) -> None:
        super().__init__(message, hint, **facts)
        self.status_code = status_code
        self.retry_after = retry_after
        self.maybe_paid = maybe_paid


class UnusableError(GenerationError):
    """An answer that was paid for and is not usable.

    `raw_output` is its text as received, empty if there was none. `cost_usd` is the cost of this call, 0.0 if it was
    paid for earlier, None if the price is unknown.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        raw_output: str = "",
        cost_usd: float | None = None,
        **facts: Unpack[CallFacts],
    ) -> None:
        super().__init__(message, hint, **facts)
        self.raw_output = raw_output
        self.cost_usd = cost_usd


class RefusedError(UnusableError):
    """The model or its content filter declined."""


class TruncatedError(UnusableError):
    """The answer was truncated at its token limit."""


class SchemaValidationError(UnusableError):
    """An answer that does not fit its schema.

    `errors` are at most 20 schema errors. `repaired`: this is the answer to a repair request.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        schema_name: str = "",
        errors: Sequence[GenerationFault] = (),
        repaired: bool = False,
        raw_output: str = "",
        cost_usd: float | None = None,
        **facts: Unpack[CallFacts],
    ) -> None:
        super().__init__(message, hint, raw_output=raw_output, cost_usd=cost_usd, **facts)
        self.schema_name = schema_name
        self.errors = tuple(errors)
        self.repaired = repaired


class PendingError(GenerationError):
    """The request is in an open batch."""

    exit_code = EXIT_STOPPED


class HaltedError(GenerationError):
    """No request can succeed now, so every waiting call ends.

    `status_code` is the HTTP status that caused it, if any.
    """

    exit_code = EXIT_STOPPED

    def __init__(
        self, message: str, hint: str = "", *, status_code: int | None = None, **facts: Unpack[CallFacts]
    ) -> None:
        super().__init__(message, hint, **facts)
        self.status_code = status_code


class BudgetError(HaltedError):
    """The client's budget is used up."""


class AuthenticationError(HaltedError):
    """The provider rejects the API key."""


class QuotaError(HaltedError):
    """The account's credit or spend limit is used up."""


class OutageError(HaltedError):
    """The provider was unreachable for longer than the retry policy allows."""


class ClosedError(HaltedError):
    """The client was closed."""


def nearest(word: str, known: object) -> str:
    """Return `did you mean 'x'?` for the closest of `known`, or an empty string."""
    from collections.abc import Iterable
    from difflib import get_close_matches

    names = [str(name) for name in known] if isinstance(known, Iterable) else []
    found = get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""
