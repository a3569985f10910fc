"""Compare the peak memory of reading and writing 1,000,000 and 100,000 rows in each format.

    python benchmarks/memory.py [--rows 1000000] [FORMAT …]

Each measurement runs in its own process; the peak is resident memory (ru_maxrss). The ratio of the long file to the
short one should be well below 2.
"""

from __future__ import annotations

import argparse
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from bioforge_tables import bioforge_readers, bioforge_writers

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from excel_files import write_like_excel

SCHEMA = pa.schema([("artist_id", pa.int64()), ("artist_name", pa.string()), ("artist_data", pa.string())])


def rows(count: int) -> Iterator[tuple[int, str, str]]:
    for number in range(count):
        yield (
            number,
            f"Artist {number * 7919 % count}",
            f"painter, born {1800 + number % 200}; number {number * number}",
        )


def batches(count: int, size: int) -> Iterator[pa.RecordBatch]:
    source = rows(count)
    while found := list(islice(source, size)):
        yield pa.RecordBatch.from_arrays([pa.array(one) for one in zip(*found, strict=True)], schema=SCHEMA)


def write_parquet(path: Path, count: int, group: int) -> None:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for batch in batches(count, group):
            writer.write_batch(batch)


def write_arrow(path: Path, count: int, make: Callable[..., Any]) -> None:
    with make(path, SCHEMA) as writer:
        for batch in batches(count, 50_000):
            writer.write_batch(batch)


def write_sqlite(path: Path, count: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE people (artist_id INTEGER PRIMARY KEY, artist_name, artist_data)")
        connection.executemany("INSERT INTO people VALUES (?, ?, ?)", rows(count))


def write_duckdb(path: Path, count: int) -> None:
    reader = pa.RecordBatchReader.from_batches(SCHEMA, batches(count, 50_000))
    with duckdb.connect(str(path)) as connection:
        connection.register("given", reader)
        connection.execute("CREATE TABLE people AS SELECT * FROM given")


def write_csv(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("artist_id,artist_name,artist_data\n")
        file.writelines(f'{number},{name},"{data}"\n' for number, name, data in rows(count))


def write_excel(path: Path, count: int) -> None:
    write_like_excel(path, chain([("artist_id", "artist_name", "artist_data")], rows(count)))


FORMATS: dict[str, tuple[str, str, Callable[[Path, int], None]]] = {
    "parquet": ("parquet", "a.parquet", lambda path, count: write_parquet(path, count, 50_000)),
    "parquet, one row group": ("parquet", "b.parquet", lambda path, count: write_parquet(path, count, count)),
    "arrow file": ("arrow", "a.arrow", lambda path, count: write_arrow(path, count, pa.ipc.new_file)),
    "arrow stream": ("arrow", "a.arrows", lambda path, count: write_arrow(path, count, pa.ipc.new_stream)),
    "sqlite": ("sqlite", "a.sqlite", write_sqlite),
    "duckdb": ("duckdb", "a.duckdb", write_duckdb),
    "duckdb over csv": ("duckdb", "a.csv", write_csv),
    "xlsx": ("xlsx", "a.xlsx", write_excel),
}
OUTPUTS = {"parquet output": ("parquet", "out.parquet"), "sqlite output": ("sqlite", "out.db")}


def measure(name: str, folder: Path, count: int) -> None:
    """Read or write in this process and print peak memory in MB, seconds and rows."""
    start = time.perf_counter()
    if name in FORMATS:
        reader: Any = bioforge_readers()[FORMATS[name][0]]
        path = folder / FORMATS[name][1]
        found = sum(1 for _ in reader(path, path.name, reader.Options()))
    else:
        from bioforge.testing import record

        writer: Any = bioforge_writers()[OUTPUTS[name][0]]
        records = (record(number, f"A life, number {number}. " * 20) for number in range(count))
        path = folder / OUTPUTS[name][1]
        if getattr(writer, "writes_path", False):
            writer(records, path, writer.Options())
        else:
            with path.open("wb") as stream:
                writer(records, stream, writer.Options())
        found = count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
    print(f"{peak:.0f} {time.perf_counter() - start:.1f} {found}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("formats", nargs="*", default=[*FORMATS, *OUTPUTS])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--measure", nargs=3)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure[0], Path(given.measure[1]), int(given.measure[2]))
        return
    print(f"{'':24} {given.rows // 10:>11,} {given.rows:>11,}  ratio  rows/s")
    for name in given.formats:
        found = []
        for count in (given.rows // 10, given.rows):
            with TemporaryDirectory() as folder:
                if name in FORMATS:
                    make = f"import memory; memory.FORMATS[{name!r}][2](memory.Path({folder!r}, {FORMATS[name][1]!r}), {count})"
                    subprocess.run([sys.executable, "-c", make], check=True, cwd=Path(__file__).parent)
                done = subprocess.run(
                    [sys.executable, __file__, "--measure", name, folder, str(count)],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                peak, seconds, rows_read = done.stdout.split()
                assert int(rows_read) == count, done.stdout
                found.append((int(peak), float(seconds)))
        (short, _), (long, seconds) = found
        speed = given.rows / seconds
        print(f"{name:24} {short:>8} MB {long:>8} MB  {long / short:>5.2f} {speed:>7,.0f}", flush=True)


if __name__ == "__main__":
    main()
