"""The application: its commands by name, each imported when it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.main

from bioforge import __version__
from bioforge.cli.errors import Commands, open_streams
from bioforge.cli.options import SafeOption, safe_mode

COMMANDS = {
    "init": "init:init",
    "run": "run:run",
    "resume": "run:resume",
    "plan": "plan:plan",
    "why": "plan:why",
    "status": "status:status",
    "export": "export:export",
    "compare": "compare:compare",
    "audit": "status:audit",
    "import": "import_:import_",
    "accept": "maintain:accept",
    "forget": "maintain:forget",
    "gc": "maintain:gc",
    "simulate": "simulate:simulate",
    "plugins": "plugins:plugins",
    "install": "plugins:install",
    "uninstall": "plugins:uninstall",
    "batch": "batch.commands:group",
}
"""Module and function in this package, by command."""


class _LazyCommands(MutableMapping[str, Any]):
    """Commands by name. The module of one is imported when the command is looked up."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _LazyGroup(Commands):
    """The root group. Its help loads every command; a command loads only itself."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _LazyCommands()

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)


def _load(name: str) -> Any:
    module, _, function = COMMANDS[name].partition(":")
    target = getattr(import_module(f"bioforge.cli.{module}"), function)
    if name == "batch":
        return typer.main.get_group(target(_epilog(EXAMPLES[name]), _epilog))
    single = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    single.command(name, epilog=_epilog(EXAMPLES[name]))(target)
    return typer.main.get_command(single)


app = typer.Typer(
    name="bioforge",
    cls=_LazyGroup,
    help="Make for LLM generations: sends only requests that are new, changed or failed, keeps every answer that was paid"
    " for, and never pays for one twice.",
    epilog="Start with: bioforge init my-project && cd my-project && bioforge run",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        print(f"bioforge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_version)
    ] = False,
    safe: SafeOption = False,
) -> None:
    safe_mode.set(safe)


EXAMPLES = {
    "init": (
        "bioforge init",
        "bioforge init my-project",
        "bioforge init --plugin discogs",
        "bioforge init --plugin html --kind writer ~/plugins",
    ),
    "run": (
        "bioforge run",
        "bioforge run bio --dry-run",
        "bioforge run --max-cost 5 --select '10*'",
        "bioforge run -B --select 1034 --limit 1",
        "bioforge run --print --log-format json 2> run.log > texts.txt",
    ),
    "resume": ("bioforge resume", "bioforge resume -j 16"),
    "plan": (
        "bioforge plan",
        "bioforge plan -q || bioforge run",
        "bioforge plan -W artist_data",
        "bioforge plan --out today.plan && bioforge run --plan today.plan",
    ),
    "why": ("bioforge why 1034", "bioforge why 1034 --format json"),
    "status": ("bioforge status", "bioforge status --watch", "bioforge status --format json"),
    "export": (
        "bioforge export --format jsonl > bios.jsonl",
        "bioforge export -o bios.csv --escape-formulas",
        "bioforge export --failed",
    ),
    "compare": (
        "bioforge compare",
        "bioforge compare bio --score metrics:words --sort score",
        "bioforge compare bio --score quality --format json",
    ),
    "audit": ("bioforge audit", "bioforge audit --format json"),
    "batch": (
        "bioforge batch jsonl && bioforge batch create --in batch_input.jsonl",
        "bioforge batch status batch_abc123",
        "bioforge batch retrieve batch_abc123 -o bios.jsonl",
    ),
    "import": (
        "bioforge import results_batch_abc123.jsonl",
        "bioforge import batch_input.jsonl results_*.jsonl --dry-run",
        "bioforge export -f other | bioforge import -",
    ),
    "accept": ("bioforge accept", "bioforge accept reason:changed", "bioforge accept 1034 --yes"),
    "forget": ("bioforge forget 1034", "bioforge forget '10*' --recipe bio --yes"),
    "gc": ("bioforge gc", "bioforge gc --yes", "bioforge gc --compress"),
    "simulate": (
        "bioforge simulate --port 8080",
        "bioforge simulate --latency 0.5 --fault rate_limit=0.05 --fault server_error=0.01",
        "OPENAI_BASE_URL=http://127.0.0.1:8080/v1 bioforge run",
    ),
    "plugins": ("bioforge plugins", "bioforge plugins --format json"),
    "install": (
        "bioforge install bioforge-tables",
        "bioforge install -e ./bioforge-mine",
        "bioforge install -U bioforge-tables -- --pre",
    ),
    "uninstall": ("bioforge uninstall bioforge-tables", "bioforge uninstall bioforge-tables --yes"),
}


def _epilog(examples: Iterable[str]) -> str:
    r"""Return examples, one a line; `\b` keeps typer from wrapping them."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])


def main() -> None:
    """Run the command line: the entry point of `bioforge` and `python -m bioforge`."""
    open_streams()
    app()
