"""`import`: adopt answers from batch files and exports, so that they need not be bought again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo
from bioforge.cli.options import FileOption, check_format, open_project
from bioforge.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, StateError, UsageError

if TYPE_CHECKING:
    from bioforge.engine.import_files import AnswerFiles
    from bioforge.engine.import_result import Examples, ImportResult
    from bioforge.engine.project import OpenProject
    from bioforge.store import Store

SHOWN = 5
"""Lines to show when none could be used."""

LONGEST_COMMAND = 200
"""Characters of the command to keep with its run: there may be hundreds of files."""

ADVICE = {
    "UNKNOWN_ID": "also name the batch's input file: only it has the requests of these ids",
    "ARTIST": "these are ids of artists, not of requests: also name the batch's input file",
    "OTHER_HASH": "the project's requests differ (a changed template, model or row is another request): also name the input"
    " file, and the answers are kept for the day these requests are needed again",
    "AMBIGUOUS": "the input files have different requests with these ids: import each batch with its own input file only",
    "OTHER_BODY": "the input file has other requests with these ids than bioforge wrote: was it edited, or is one of them"
    " simulated?",
    "OTHER_INSTRUCTIONS": "these answers have other instructions than the input file: does it belong to another batch?",
    "EXPORTED": "the project's requests differ (a changed template, model or row is another request), and an export has no"
    " requests: undo the change of the project, or import the batch's own files",
}
"""Advice about answers without a request, by the names of `Mismatch`."""


@command
def import_(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Output, error and input files of batches, and exports as JSONL, in any order; - is stdin.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="Show what would be adopted; adopt nothing.")
    ] = False,
    file: FileOption = None,
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")] = "text",
) -> int:
    """Adopt answers from batch files or exports.

    They are stored as if a run had received them, so that they need not be bought again.
    """
    from bioforge.cli.format import json_text, reading_lines
    from bioforge.engine.import_files import AnswerFiles
    from bioforge.engine.project import recover_state
    from bioforge.store import Store
    from bioforge.store.imports import import_dry_run

    check_format(format, ("text", "json"))
    project = open_project(file)
    with AnswerFiles(files) as opened, Store.open(project.config.state_path) as store:
        recover_state(store)
        for line in reading_lines(project.refresh(store)):
            echo(line)
        with import_dry_run(store) if dry_run else nullcontext(store) as place:
            result = _adopt(place, project, opened)
            # requests of dependent recipes are known once the answers they need are adopted
            while project.chained and result.changed and result.without_request:
                later = _adopt(place, project, opened)
                result = result.followed_by(later)
                if not later.adopted:
                    break
    if not result.recognised:
        raise _unrecognised(opened.names, result)
    if format == "json":
        print(json_text(_as_json(result, opened.names, dry_run)))
    else:
        for line in _lines(result, opened.names, dry_run):
            echo(line)
    return result.exit_code


def _adopt(store: Store, project: OpenProject, files: AnswerFiles) -> ImportResult:
    """Adopt answers as a run; one that adopts nothing leaves no record."""
    from shlex import join

    from bioforge.backends.openai import batch_lines
    from bioforge.engine.import_answers import AnswerImporter
    from bioforge.store import Selection, runs

    words = join(["import", *files.names])
    words = words if len(words) <= LONGEST_COMMAND else words[: LONGEST_COMMAND - 1] + "…"
    run = runs.begin(store, words, None, Selection())
    importer = AnswerImporter(store, run, project.recipe_variants, project.backend, batch_lines)
    try:
        result = importer.run(files)
        project.check_answers(store)
    except BaseException as error:
        with suppress(StateError):  # if the state itself failed, the next run closes this one
            if isinstance(error, KeyboardInterrupt):
                _end(store, run, importer.result, "interrupted", EXIT_INTERRUPTED)
            else:
                _end(store, run, importer.result, "stopped", EXIT_FAILED)
        raise
    _end(store, run, result, "finished", result.exit_code)
    return result


def _end(store: Store, run: int, result: ImportResult, state: str, exit_code: int) -> None:
    from bioforge.store import imports, runs

    if result.changed:
        runs.end(store, run, state, exit_code)
        imports.end_run(store, run)
    else:
        runs.discard(store, run)


def _unrecognised(names: Sequence[str], result: ImportResult) -> UsageError:
    where = names[0] if len(names) == 1 else f"these {len(names)} files"
    if not result.lines:
        return UsageError(f"{where}: empty", "give the output files of batches, or what `bioforge export` wrote")
    examples = "".join(f"\n  {text}" for text in (*result.unreadable.shown, *result.unknown.shown)[:SHOWN])
    return UsageError(
        f"{where}: no line of a batch file or an export:{examples}",
        "such files have one JSON object per line; decompress them first, and export with --format jsonl",
    )


# ------------------------------------------------------------------------------------------------------ output


def _lines(result: ImportResult, names: Sequence[str], dry_run: bool) -> Iterator[str]:
    from bioforge.core.text import money, plural, printable

    def examples(title: str, found: Examples) -> Iterator[str]:
        if found.count:
            yield f"{title}:"
            for text in found.shown:
                yield f"  {printable(text)}"
            if found.count > len(found.shown):
                yield f"  … and {found.count - len(found.shown):,} more"

    requests = f", {plural(result.requests, 'request')} among them" if result.requests else ""
    yield f"{plural(len(names), 'file')} with {plural(result.lines, 'line')}{requests}"
    notes = [f"{result.unpriced:,} of unknown price"] if result.unpriced else []
    notes += [f"{result.unusable:,} paid, not usable, held back"] if result.unusable else []
    notes += [f"{result.unwanted:,} that no target needs now, kept"] if result.unwanted else []
    worth = f" worth {money(result.adopted_usd)}" if result.adopted else ""
    would = "would be " if dry_run else ""
    yield f"{would}adopted: {plural(result.adopted, 'answer')}{worth}" + (f" ({'; '.join(notes)})" if notes else "")
    if result.known:
        yield f"known already: {plural(result.known, 'answer')}"
    if result.in_batches:
        yield f"in open batches: {plural(result.in_batches, 'answer')}, which stay there; `bioforge run` collects them"
    if result.collected:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in result.collected.items())
        yield (
            f"{would}matched to open batches: {plural(result.collected.total(), 'request')} ({kinds}),"
            f" {money(result.collected_usd)}; the next run closes the batches"
        )
    if result.without_request:
        yield f"without a request of this project: {plural(result.without_request, 'answer')}"
        for reason, group in result.unmatched.items():
            more = ", …" if group.count > len(group.shown) else ""
            yield f"  {group.count:,}: {printable(', '.join(group.shown))}{more}"
            yield f"  hint: {ADVICE[reason.name]}"
    if result.failed:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in result.failed.most_common())
        yield f"failed, nothing to adopt: {plural(result.failed.total(), 'line')} ({printable(kinds)})"
    yield from examples(
        f"{plural(result.duplicated.count, 'answer')} with a custom_id that already has one", result.duplicated
    )
    yield from examples(f"{plural(result.unreadable.count, 'unreadable line')}", result.unreadable)
    yield from examples(f"{plural(result.unknown.count, 'line')} of an unknown form", result.unknown)
    yield f"{plural(result.fresh, 'target')} {'would become fresh; nothing was changed' if dry_run else 'became fresh'}"


def _as_json(result: ImportResult, names: Sequence[str], dry_run: bool) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "dry_run": dry_run,
        "files": list(names),
        "lines": result.lines,
        "requests": result.requests,
        "adopted": {
            "answers": result.adopted,
            "cost_usd": result.adopted_usd,
            "unpriced": result.unpriced,
            "unusable": result.unusable,
            "unwanted": result.unwanted,
        },
        "known": result.known,
        "in_batches": result.in_batches,
        "settled": {**result.collected, "cost_usd": result.collected_usd},
        "without_request": {
            "answers": result.without_request,
            "reasons": {str(reason): asdict(group) for reason, group in result.unmatched.items()},
        },
        "failed": dict(result.failed),
        "duplicated": asdict(result.duplicated),
        "unreadable": asdict(result.unreadable),
        "unknown": asdict(result.unknown),
        "fresh": result.fresh,
    }
