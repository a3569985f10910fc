"""Every error a person can see: one tree, each class with its exit code; printed in one place, the CLI's edge.

BioforgeError (1)
  UsageError (2)        a command that cannot be meant
    ConfigError         bioforge.toml, with file and key
    TemplateError       a prompt that does not compile or names what is not there
    InputError          the input as a whole: missing, unreadable, empty
    PluginError         a plugin that cannot be used
    PlanMismatch        `run --plan` when the world has moved on
  StateError (2)        the state file: locked, newer, not ours, not writable
  OutputError (1)       an output could not be written; the state is intact
  StoppedError (75)     stopped on purpose; running again goes on
"""

from __future__ import annotations

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


class OutputError(BioforgeError):
    exit_code = EXIT_FAILED


class StoppedError(BioforgeError):
    exit_code = EXIT_STOPPED


def nearest(word: str, known: object) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or an empty string."""
    from collections.abc import Iterable
    from difflib import get_close_matches

    names = [str(name) for name in known] if isinstance(known, Iterable) else []
    found = get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""
