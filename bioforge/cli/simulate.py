"""`simulate`: serve the simulator alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo
from bioforge.core.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from bioforge.simulator import Simulator


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
            "--fault",
            metavar="NAME=SHARE",
            help="A fault and its share of requests, like rate_limit=0.05. May be repeated.",
        ),
    ] = None,
    quota_after: Annotated[
        int | None, typer.Option("--quota-after", metavar="N", help="Refuse with a quota error after N answers.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random faults.")] = 0,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", metavar="FILE", help="Append every charged answer here, as JSON lines.")
    ] = None,
    batch_seconds: Annotated[
        float, typer.Option("--batch-seconds", metavar="SECONDS", help="Time from a batch's creation to completion.")
    ] = 2.0,
    batch_window: Annotated[
        float,
        typer.Option("--batch-window", metavar="SECONDS", help="Time until a batch expires, instead of 24 hours."),
    ] = 86_400.0,
    batch_tokens: Annotated[
        int | None,
        typer.Option("--batch-tokens", metavar="N", help="Limit of input tokens in the open batches of a model."),
    ] = None,
    batch_script: Annotated[
        list[str] | None,
        typer.Option(
            "--batch-script",
            metavar="FAULTS",
            help="Faults of the first batch, like lines_missing=0.1+wrong_counts. Repeat it for the next ones.",
        ),
    ] = None,
    batch_faults: Annotated[
        str, typer.Option("--batch-faults", metavar="FAULTS", help="Faults of every batch beyond the script.")
    ] = "",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Keep files and batches here, for a later start.")
    ] = None,
) -> int:
    """Serve the OpenAI-compatible simulator alone, until Ctrl-C. Its answers say that they are simulated."""
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
    echo(f"served {total.charges:,} answers; repeated answers to the same request: {total.charges - total.bodies:,}")
    return EXIT_OK


def _fault(item: str) -> tuple[str, float]:
    name, _, share = item.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise UsageError(
            f"--fault {item}: expected NAME=SHARE with a share from 0 to 1", "like rate_limit=0.05"
        ) from None
