"""Every error a person can see: one tree, each class with its exit code; printed in one place, the CLI's edge.

BioforgeError (1)
  UsageError (2)             a command that cannot be meant
    ConfigError              bioforge.toml or a library's `Config`, with the key
    BadArgument              an argument of the library that cannot be meant; also a ValueError
    TemplateError            a prompt that does not compile or names what is not there
    InputError               the input as a whole: missing, unreadable, empty
    PluginError              a plugin that cannot be used
    PlanMismatch             `run --plan` when the world has moved on
  StateError (2)             the state file: locked, newer, not ours, not writable
    NoSpaceError (75)        the disk is full
  OutputError (1)            an output could not be written; the state is intact
  BrokenBackendError (1)     a plugin's backend went wrong at work; what it had delivered is kept
  StoppedError (75)          stopped on purpose; running again goes on
  GenerationError (1)        a call of the library that came to no usable answer
    TransportError           no answer: refused, broken off or never reached, after every attempt
    UnusableError            an answer that was paid for and cannot be used; a state keeps it
      RefusedError           the model, or its content filter, declined
      TruncatedError         cut off at its token limit
      SchemaValidationError  it does not fit the schema
    PendingError (75)        in an open batch; the answer is still to come
    HaltedError (75)         nothing more can be asked, so every waiting call ends with it
      BudgetError            the client's budget is used up
      AuthenticationError    the provider refuses the key
      QuotaError             the account's credit or spend limit is used up
      OutageError            nothing but outages for as long as the retry policy allows
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
    """What was found and where; `hint` says what to do."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BioforgeError):
    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    pass


class BadArgument(UsageError, ValueError):
    pass


class TemplateError(UsageError):
    pass


class InputError(UsageError):
    pass


class PluginError(UsageError):
    pass


class PlanMismatch(UsageError):
    pass


class StateError(BioforgeError):
    exit_code = EXIT_USAGE


class NoSpaceError(StateError):
    """The disk is full, or does not take what is written."""

    exit_code = EXIT_STOPPED


class OutputError(BioforgeError):
    exit_code = EXIT_FAILED


class BrokenBackendError(BioforgeError):
    exit_code = EXIT_FAILED


class StoppedError(BioforgeError):
    exit_code = EXIT_STOPPED


class GenerationFault(Protocol):
    """What is wrong in an answer: `path` leads to the place (`works[2].year`), empty for the answer as a whole."""

    @property
    def path(self) -> str: ...
    @property
    def message(self) -> str: ...


class CallFacts(TypedDict, total=False):
    """What every `GenerationError` knows of its request."""

    error_class: str
    code: str | None
    request_hash: str
    request_id: str | None
    attempts: int


class GenerationError(BioforgeError):
    """`error_class` is the short word that failures are grouped by, `code` what the provider called it, `request_id` the
    provider's id of the last attempt. `request_hash` is the request's identity, `attempts` how often it was tried."""

    def __init__(self, message: str, hint: str = "", **facts: Unpack[CallFacts]) -> None:
        super().__init__(message, hint)
        self.error_class = facts.get("error_class", "failed")
        self.code = facts.get("code")
        self.request_hash = facts.get("request_hash", "")
        self.request_id = facts.get("request_id")
        self.attempts = facts.get("attempts", 0)


class TransportError(GenerationError):
    """`status_code` is the last HTTP status, None where no answer arrived; `retry_after` the seconds that the provider
    asked to wait. `maybe_paid`: nobody can know whether the last attempt was answered and charged for."""

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
    """`raw_output` is the text as it was received, empty where there was none; `cost_usd` what this call paid for it,
    0.0 where it had been paid for before, None where the price is unknown."""

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
    pass


class TruncatedError(UnusableError):
    pass


class SchemaValidationError(UnusableError):
    """`errors` say what is wrong and where, at most 20. `repaired`: this is the answer to the request that asked for the
    first one to be mended."""

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
    exit_code = EXIT_STOPPED


class HaltedError(GenerationError):
    """`status_code` is the HTTP status that stopped everything, where it was one."""

    exit_code = EXIT_STOPPED

    def __init__(
        self, message: str, hint: str = "", *, status_code: int | None = None, **facts: Unpack[CallFacts]
    ) -> None:
        super().__init__(message, hint, **facts)
        self.status_code = status_code


class BudgetError(HaltedError):
    pass


class AuthenticationError(HaltedError):
    pass


class QuotaError(HaltedError):
    pass


class OutageError(HaltedError):
    pass


class ClosedError(HaltedError):
    pass


def nearest(word: str, known: object) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or an empty string."""
    from collections.abc import Iterable
    from difflib import get_close_matches

    names = [str(name) for name in known] if isinstance(known, Iterable) else []
    found = get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""
