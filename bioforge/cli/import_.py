"""`import`: answers that were bought elsewhere, adopted so that nothing is bought again."""

from __future__ import annotations

import json
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
"""Lines that are shown when none could be used."""

LONGEST_COMMAND = 200
"""Characters of the command that are kept with its run: there may be hundreds of files."""

ADVICE = {
    "NOT_ASKED": "give the batch's input file along: only it says what these ids asked for",
    "ARTIST": "these are ids of artists, which do not say what was asked: give the batch's input file along",
    "OTHER_HASH": "the project asks something else by now (a changed template, model or row is another request): give the"
    " input file along, and the answers are kept for when that is asked again",
    "AMBIGUOUS": "the input files have different requests by these ids: import each batch with its own input file only",
    "OTHER_BODY": "the input file has another request by these ids than bioforge once gave them: was it edited, or is one"
    " of them simulated?",
    "OTHER_QUESTION": "these answers repeat other instructions than the input file has: is it that of another batch?",
    "EXPORTED": "the project asks something else by now (a changed template, model or row is another request), and an"
    " export does not hold requests: put the project back to what it was, or import the batch's own files",
}
"""What to do about answers without a request, by the names of `Why`."""


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
    """Adopt answers from batch files or exports, so that nothing is bought again."""
    from bioforge.cli.format import reading_lines
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
            # what recipes ask that need others shows when the answers of those are there
            while project.chained and result.changed and result.without_request:
                later = _adopt(place, project, opened)
                result = result.followed_by(later)
                if not later.adopted:
                    break
    if not result.recognised:
        raise _nothing_recognised(opened.names, result)
    if format == "json":
        print(json.dumps(_as_json(result, opened.names, dry_run), ensure_ascii=False, indent=2))
    else:
        for line in _lines(result, opened.names, dry_run):
            echo(line)
    return result.exit_code


def _adopt(store: Store, project: OpenProject, files: AnswerFiles) -> ImportResult:
    """As a run of its own; one that adopts nothing leaves none."""
    from shlex import join

    from bioforge.backends.openai import batch_lines
    from bioforge.engine.import_answers import AnswerImporter
    from bioforge.store import Selection, runs

    words = join(["import", *files.names])
    words = words if len(words) <= LONGEST_COMMAND else words[: LONGEST_COMMAND - 1] + "…"
    run = runs.begin(store, words, None, Selection())
    adopter = AnswerImporter(store, run, project.recipe_variants, project.backend, batch_lines)
    try:
        result = adopter.adopt(files)
        project.check_answers(store)
    except BaseException as error:
        with suppress(StateError):  # where the state itself is the trouble, the next run closes this one
            if isinstance(error, KeyboardInterrupt):
                _end(store, run, adopter.result, "interrupted", EXIT_INTERRUPTED)
            else:
                _end(store, run, adopter.result, "stopped", EXIT_FAILED)
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


def _nothing_recognised(names: Sequence[str], result: ImportResult) -> UsageError:
    where = names[0] if len(names) == 1 else f"these {len(names)} files"
    if not result.lines:
        return UsageError(f"{where}: empty", "give the output files of batches, or what `bioforge export` wrote")
    examples = "".join(f"\n  {text}" for text in (*result.unreadable.shown, *result.unknown.shown)[:SHOWN])
    return UsageError(
        f"{where}: no line is one of a batch file or an export:{examples}",
        "such files have one JSON object a line; unpack them first, and export with --format jsonl",
    )


# ------------------------------------------------------------------------------------------------------ what is printed


def _lines(result: ImportResult, names: Sequence[str], dry_run: bool) -> Iterator[str]:
    from bioforge.core.text import money, plural
    from bioforge.report.logs import printable

    def examples(title: str, found: Examples) -> Iterator[str]:
        if found.count:
            yield f"{title}:"
            for text in found.shown:
                yield f"  {printable(text)}"
            if found.count > len(found.shown):
                yield f"  … and {found.count - len(found.shown):,} more"

    asked = f", {plural(result.requests, 'request')} among them" if result.requests else ""
    yield f"{plural(len(names), 'file')} with {plural(result.lines, 'line')}{asked}"
    notes = [f"{result.unpriced:,} of unknown price"] if result.unpriced else []
    notes += [f"{result.unusable:,} paid for and not usable, held back"] if result.unusable else []
    notes += [f"{result.unwanted:,} that no target wants now, kept for when one does"] if result.unwanted else []
    worth = f" worth {money(result.adopted_usd)}" if result.adopted else ""
    would = "would be " if dry_run else ""
    yield f"{would}adopted: {plural(result.adopted, 'answer')}{worth}" + (f" ({'; '.join(notes)})" if notes else "")
    if result.known:
        yield f"known already: {plural(result.known, 'answer')}"
    if result.in_batches:
        yield f"in open batches: {plural(result.in_batches, 'answer')}, left to them; `bioforge run` collects them"
    if result.settled:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in result.settled.items())
        yield (
            f"{would}settled in open batches: {plural(result.settled.total(), 'request')} ({kinds}),"
            f" {money(result.settled_usd)}; the next run closes the batches"
        )
    if result.without_request:
        yield f"without a request of this project: {plural(result.without_request, 'answer')}"
        for why, found in result.unmatched.items():
            more = ", …" if found.count > len(found.shown) else ""
            yield f"  {found.count:,}: {printable(', '.join(found.shown))}{more}"
            yield f"  hint: {ADVICE[why.name]}"
    if result.failed:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in result.failed.most_common())
        yield f"failed, nothing to adopt: {plural(result.failed.total(), 'line')} ({printable(kinds)})"
    yield from examples(
        f"{plural(result.duplicated.count, 'answer')} under a custom_id that had one", result.duplicated
    )
    yield from examples(f"{plural(result.unreadable.count, 'unreadable line')}", result.unreadable)
    yield from examples(f"{plural(result.unknown.count, 'line')} of another shape", result.unknown)
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
        "settled": {**result.settled, "cost_usd": result.settled_usd},
        "without_request": {
            "answers": result.without_request,
            "reasons": {str(why): asdict(found) for why, found in result.unmatched.items()},
        },
        "failed": dict(result.failed),
        "duplicated": asdict(result.duplicated),
        "unreadable": asdict(result.unreadable),
        "unknown": asdict(result.unknown),
        "fresh": result.fresh,
    }
