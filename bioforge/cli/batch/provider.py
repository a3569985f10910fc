"""The provider of `bioforge batch …`: the project's, or without a project the one of the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from bioforge.cli.errors import echo
from bioforge.cli.options import check_destination, folder_environment, load
from bioforge.core.errors import BioforgeError, UsageError

if TYPE_CHECKING:
    from bioforge.backends.batch.service import BatchResult, CallError
    from bioforge.config.loader import ProjectConfig
    from bioforge.core.interfaces import BackendContext
    from bioforge.core.types import Batch

BASE_URL = "https://api.openai.com/v1"

FileOption = Annotated[
    Path | None,
    typer.Option(
        "-f",
        "--file",
        help="The project file that names the provider.",
        show_default="bioforge.toml, if it exists",
        metavar="PATH",
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="PATH",
        help="Append a JSON line for each API call.",
        show_default="logs/batch-YYYYMMDD.jsonl",
    ),
]


class Jobs(Protocol):
    """The Batch API as used by hand. Every call raises `CallError`."""

    def check(self) -> None: ...
    def close(self) -> None: ...
    def upload(self, batch: Batch, path: Path) -> str: ...
    def create_job(self, batch: Batch, metadata: Mapping[str, str], window: str) -> Batch: ...
    def find(self, batch: Batch) -> Batch | None: ...
    def jobs(self) -> Iterator[Mapping[str, Any]]: ...
    def job(self, batch_id: str) -> Mapping[str, Any]: ...
    def seen(self, job: Mapping[str, Any]) -> Batch: ...
    def cancel(self, batch: Batch) -> Batch: ...
    def cost(self, batch: Batch) -> float | None: ...
    def delete_file(self, file_id: str) -> None: ...
    def file_pending(self, file_id: str) -> bool: ...
    def file_bytes(self, file_id: str) -> int | None: ...
    def download(self, file_id: str, path: Path) -> int: ...
    def read(self, batch: Batch, line: bytes) -> BatchResult: ...
    def enqueued_limit(self, text: str) -> int | None: ...


@dataclass(frozen=True, slots=True)
class BatchProvider:
    """An opened provider. `project` is the project's name, empty without one; `pause` is in seconds, before a second try."""

    jobs: Jobs
    simulated: bool
    project: str = ""
    pause: float = 0.5


def project_config(file: Path | None) -> ProjectConfig | None:
    """Return the project that `-f` names or the working folder has; None without one."""
    from bioforge.config.loader import FILE

    return load(file) if file is not None or Path(FILE).is_file() else None


@contextmanager
def provider(file: Path | None, command: str, log: Path | None) -> Iterator[BatchProvider]:
    """Yield the provider for one command, and log its calls.

    Raises `UsageError` without a key. A `CallError` that reaches it becomes a `BioforgeError`.
    """
    from bioforge.backends.batch.service import CallError
    from bioforge.backends.openai.batch import OpenAIBatches
    from bioforge.backends.openai.prices import price
    from bioforge.cli.batch.log import OperationsLog

    config = project_config(file)
    for line in () if config is None else config.overrides:
        if line.startswith("provider."):
            echo(f"note: {line}")
    if config is not None and log is not None:
        check_destination(config, log, "--log-file")
    with provider_context(config) as context:
        log_calls = OperationsLog(log, command, (context.api_key,))
        with closing(OpenAIBatches(context, price, log_calls)) as jobs:
            try:
                jobs.check()
            except UsageError as error:
                if config is not None:
                    raise
                raise UsageError(error.message, f"export {context.api_key_env}=…, or write it into .env") from None
            try:
                if config is None:
                    yield BatchProvider(jobs, simulated=False)
                else:
                    yield BatchProvider(jobs, config.simulated, config.project.name, config.retry.first_delay)
            except CallError as error:
                raise api_error(error, jobs) from error


@contextmanager
def provider_context(config: ProjectConfig | None) -> Iterator[BackendContext]:
    """Yield address and key. The simulator runs during the block, with the batches of earlier commands."""
    from bioforge.core.interfaces import BackendContext

    if config is None:
        yield _environment_context()
        return
    context = BackendContext(
        base_url=config.provider.base_url,
        api_key=config.api_key(),
        api_key_env=config.provider.api_key_env,
        timeout=config.provider.timeout,
        root=config.root,
        allow_http=config.provider.allow_http,
    )
    if not config.simulated:
        yield context
        return
    from dataclasses import replace

    from bioforge.simulator import Simulator, SimulatorOptions

    server = Simulator(SimulatorOptions(**config.simulator_options))
    try:
        server.start()
    except OSError as error:
        words = error.strerror or str(error)
        raise BioforgeError(
            f"the simulator cannot start: {words}", "wait for the other command of this project to end"
        ) from error
    try:
        yield replace(context, base_url=server.base_url, api_key="none")
    finally:
        server.stop()


def _environment_context() -> BackendContext:
    from pydantic import ValidationError

    from bioforge.config.tables import SIMULATOR
    from bioforge.config.tables import ProviderTable as Table
    from bioforge.core.interfaces import BackendContext

    environment = folder_environment()
    given, origin = environment.first("OPENAI_BASE_URL") or (BASE_URL, "")
    try:
        base_url = Table.model_validate({"base_url": given}).base_url
    except ValidationError as problem:
        message = problem.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"{origin}: {message}", f"like {BASE_URL}") from None
    if base_url == SIMULATOR:
        raise UsageError(
            f"{origin}: the simulator needs a project, and there is none here",
            "`bioforge init` writes one; or start `bioforge simulate` and set OPENAI_BASE_URL to its address",
        )
    return BackendContext(base_url, environment.get("OPENAI_API_KEY"))


def api_error(error: CallError, jobs: Jobs) -> BioforgeError:
    """Return the error for a failed call, with a hint."""
    from bioforge.core.text import printable
    from bioforge.report.logs import mask

    failure, outcome = error.failure, error.outcome
    # a truncated or unreadable success is not a refusal
    refused = (failure.http_status or 0) >= 300
    parts = [f"HTTP {failure.http_status}" if refused else "", failure.code or failure.error_class]
    named = ", ".join(part for part in parts if part and part not in failure.message)
    limit = jobs.enqueued_limit(f"{failure.code} {failure.message}")
    hint = outcome.hint
    if limit is not None:
        hint = "wait until other batches of this model have ended (`bioforge batch list`), or send smaller files"
    elif failure.error_class == "not_found":
        hint = "check the id (`bioforge batch list`): a key sees only batches and files of its own project"
    elif outcome.retryable:
        seconds = f" in {outcome.retry_after:.0f} s" if outcome.retry_after else ""
        hint = f"run it again{seconds}; nothing is lost"
    words = "the API refused" if refused else "the API cannot be reached" if outcome.outage else "the call failed"
    return BioforgeError(f"{words}: {printable(mask(failure.message))}{named and f' ({printable(named)})'}", hint)
