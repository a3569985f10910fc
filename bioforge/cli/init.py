"""`init`, `simulate` and `plugins`: what stands around a project."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo
from bioforge.cli.options import check_format
from bioforge.core.errors import EXIT_FAILED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from bioforge.simulator import Simulator


@command
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.")] = Path(),
    plugin: Annotated[
        str | None,
        typer.Option("--plugin", metavar="NAME", help="Write a plugin instead: the folder bioforge-NAME, with tests."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="reader|writer|backend", help="What the plugin is.  [default: reader]"),
    ] = None,
) -> int:
    """Write a commented project that runs as it is, without a key and at no cost; or the beginnings of a plugin."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder", "`bioforge init DIR` makes the folder it is given")
    if plugin is not None:
        return _init_plugin(folder, plugin, kind or "reader")
    if kind is not None:
        raise UsageError("--kind is for plugins", f"`bioforge init --plugin NAME --kind {kind}`")
    from bioforge.cli import scaffold

    written = scaffold.write(folder)
    for path in written:
        print(path)
    here = "" if folder == Path() else f"cd {folder} && "
    echo(f"next: {here}bioforge run")
    return EXIT_OK


def _init_plugin(folder: Path, name: str, kind: str) -> int:
    from bioforge.cli.scaffold import Skeleton
    from bioforge.plugins.manager import build_manager

    skeleton = Skeleton.of(name, kind)
    plugins = build_manager("")
    taken: dict[str, Collection[str]] = {
        "reader": plugins.readers(),
        "writer": plugins.writers(),
        "backend": plugins.backends(),
    }
    if skeleton.name in taken[kind]:
        raise UsageError(
            f"--plugin {skeleton.name}: bioforge has a {kind} of this name already",
            "two of one name cannot be used; give yours another one",
        )
    for path in skeleton.write(folder):
        print(path)
    echo(f"next: cd {folder / skeleton.distribution} && bioforge install -e '.[test]' && pytest")
    return EXIT_OK


@command
def simulate(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8080,
    latency: Annotated[float, typer.Option("--latency", metavar="SECONDS", help="Median time to an answer.")] = 0.0,
    latency_sigma: Annotated[float, typer.Option("--latency-sigma", help="Spread of a log-normal latency.")] = 0.0,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", metavar="N", help="Rate limit.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option("--tokens-per-minute", metavar="N", help="Rate limit.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault", metavar="NAME=SHARE", help="A fault and how often, like rate_limit=0.05. May be repeated."
        ),
    ] = None,
    quota_after: Annotated[
        int | None, typer.Option("--quota-after", metavar="N", help="Quota ends after N answers.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which faults are drawn.")] = 0,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", metavar="FILE", help="Append every charged answer here, as JSON lines.")
    ] = None,
    batch_seconds: Annotated[
        float, typer.Option("--batch-seconds", metavar="SECONDS", help="Time from a batch's creation to completion.")
    ] = 2.0,
    batch_window: Annotated[
        float, typer.Option("--batch-window", metavar="SECONDS", help="What stands for a batch's 24 hours.")
    ] = 86_400.0,
    batch_tokens: Annotated[
        int | None,
        typer.Option("--batch-tokens", metavar="N", help="Input tokens that a model's open batches may have."),
    ] = None,
    batch_script: Annotated[
        list[str] | None,
        typer.Option(
            "--batch-script",
            metavar="FAULTS",
            help="Faults of the first batch, like lines_missing=0.1+wrong_counts; repeated, of the next ones.",
        ),
    ] = None,
    batch_faults: Annotated[
        str, typer.Option("--batch-faults", metavar="FAULTS", help="Faults of every batch beyond the script.")
    ] = "",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Keep files and batches here, for a later start.")
    ] = None,
) -> int:
    """Serve the embedded OpenAI-compatible server alone, until Ctrl-C. Answers say that they are simulated."""
    from bioforge.simulator import SimulatorOptions, serve

    try:
        options = SimulatorOptions(
            latency=latency,
            latency_sigma=latency_sigma,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            faults=dict(_fault(item) for item in fault or ()),
            quota_after=quota_after,
            seed=seed,
            ledger=None if ledger is None else str(ledger),
            batch_seconds=batch_seconds,
            batch_window_seconds=batch_window,
            batch_enqueued_tokens=batch_tokens,
            batch_script=batch_script or (),
            batch_faults=batch_faults,
            data=None if data is None else str(data),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None

    def ready(server: Simulator) -> None:
        echo(f"serving {server.base_url} (Ctrl-C ends it)")
        echo(f"try: OPENAI_BASE_URL={server.base_url} OPENAI_API_KEY=any bioforge run")

    try:
        total = serve(options, host=host, port=port, ready=ready).totals()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UsageError(f"{where}{error.strerror or error}") from None
    echo(f"served {total.charges:,} answers; {total.charges - total.bodies:,} of them to a request answered before")
    return EXIT_OK


def _fault(item: str) -> tuple[str, float]:
    name, _, share = item.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise UsageError(
            f"--fault {item}: expected NAME=SHARE with a share from 0 to 1", "like rate_limit=0.05"
        ) from None


@command
def plugins(
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")] = "text",
) -> int:
    """List what is loaded: built-in and installed plugins with versions, and the formats and backends they bring.

    What is wrong with a plugin is said below the list, and the exit code is then 1.
    """
    from dataclasses import asdict

    from bioforge.cli.format import table
    from bioforge.plugins.install import list_names
    from bioforge.plugins.manager import build_manager

    check_format(format, ("text", "json"))
    loaded = build_manager(os.environ.get("BIOFORGE_LOAD_PLUGINS"))
    described, problems = loaded.describe(), list(loaded.problems)
    if format == "json":
        found = {"plugins": [asdict(info) for info in described], "problems": problems}
        print(json.dumps(found, ensure_ascii=False, indent=2, default=repr))
    else:
        rows = [
            [info.name, info.version or "-", _api(info.api), info.source, list_names(info.provides) or "-"]
            for info in described
        ]
        for line in table([["plugin", "version", "api", "source", "provides"], *rows]):
            print(line)
        sys.stdout.flush()
        for problem in problems:
            echo(f"error: {problem}")
    return EXIT_FAILED if problems else EXIT_OK


def _api(declared: object) -> str:
    """The version of the contract that a plugin says it is made for. It can say anything."""
    return str(declared) if isinstance(declared, int) else "-"
