"""The journal of a batch: one entry for each executed line, in order, so that no line is executed twice after a crash.

An entry is a line `FATE COPIES INPUT OUTPUT REASONING<tab>JSON`: fate and copies as in `LineResult`, then tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

from bioforge.simulator.batch_input import Busy
from bioforge.simulator.batch_lines import LineResult
from bioforge.simulator.batch_state import LineCounts


class Journal:
    """Appends results and distributes them to the result files. Keeps no file open between calls."""

    def __init__(self, path: Path, tally: LineCounts) -> None:
        self._path = path
        self._tally = tally

    def recover(self) -> None:
        """Recount the entries and truncate one that a crash left incomplete."""
        for name in LineCounts.__slots__:
            setattr(self._tally, name, 0)
        end = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for entry in file:
                    if not entry.endswith(b"\n"):
                        break
                    fate, copies, *tokens = entry.partition(b"\t")[0].decode().split()
                    self._count(fate, int(copies), *map(int, tokens))
                    end += len(entry)
            os.truncate(self._path, end)

    def append(self, results: Iterable[LineResult]) -> None:
        """Write entries to the operating system."""
        entries = []
        for result in results:
            input_tokens = output_tokens = 0
            if result.bill is not None:
                input_tokens, output_tokens = result.bill.input_tokens, result.bill.output_tokens
            head = f"{result.fate} {result.copies} {input_tokens} {output_tokens} {result.reasoning_tokens}"
            entries.append(f"{head}\t{result.line}\n")
            self._count(result.fate, result.copies, input_tokens, output_tokens, result.reasoning_tokens)
        with self._path.open("ab") as file:
            file.write("".join(entries).encode())

    def distribute(self, output: Path, error: Path, busy: Busy, shuffle: Random | None) -> Iterator[None]:
        """Write both files from the beginning; yield whenever `busy`."""
        yield from _write(self._path, output, busy, lambda fate: fate == b"output", shuffle)
        yield from _write(self._path, error, busy, lambda fate: fate in (b"error", b"unfinished"), shuffle)

    def _count(self, fate: str, copies: int, input_tokens: int, output_tokens: int, reasoning_tokens: int) -> None:
        tally = self._tally
        tally.entries += 1
        match fate:
            case "output":
                tally.completed += 1
                tally.lost += copies == 0
            case "error":
                tally.failed += 1
            case "missing":
                tally.missing += 1
            case _:
                tally.unfinished += 1
        tally.duplicated += copies > 1
        tally.input_tokens += input_tokens
        tally.output_tokens += output_tokens
        tally.reasoning_tokens += reasoning_tokens


def _write(
    journal: Path, target: Path, busy: Busy, wanted: Callable[[bytes], bool], shuffle: Random | None
) -> Iterator[None]:
    with target.open("wb") as written:
        if not journal.exists():
            return
        places: list[int] = []
        with journal.open("rb", buffering=1 << 18) as file:
            place = 0
            for entry in file:
                head, _, line = entry.partition(b"\t")
                fate, copies, _ = head.split(b" ", 2)
                if wanted(fate):
                    if shuffle is None:
                        written.write(line * int(copies))
                    else:
                        places += [place] * int(copies)
                place += len(entry)
                if busy():
                    yield
            if shuffle is not None:
                shuffle.shuffle(places)
                for place in places:
                    file.seek(place)
                    written.write(file.readline().partition(b"\t")[2])
                    if busy():
                        yield
