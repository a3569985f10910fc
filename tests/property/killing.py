"""A kill without a process: the folder is put back as it was when a transaction had just become durable.

Whatever the dying command still writes is gone with it, as after kill -9; what it announced in that transaction was not
sent yet, and what is in flight may arrive at the server or not, as it happens.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from bioforge.store import Store


class Killed(BaseException):
    """What no command may catch."""


class Death:
    """How it went: `transactions` that became durable, and whether it was killed after the last of them."""

    def __init__(self) -> None:
        self.transactions = 0
        self.came = False


@contextmanager
def killed_after(root: Path, number: int | None) -> Iterator[Death]:
    """Run the block, and end it after so many transactions of its state. None: never."""
    death = Death()
    original = Store.transaction

    @contextmanager
    def transaction(store: Store) -> Iterator[sqlite3.Connection]:
        if death.came:
            raise Killed
        with original(store) as connection:
            yield connection
        death.transactions += 1
        if death.transactions == number:
            death.came = True
            _copy(root, grave)
            raise Killed

    with TemporaryDirectory() as folder:
        grave = Path(folder) / "grave"
        with patch.object(Store, "transaction", transaction), suppress(Killed):
            yield death
        if death.came:
            _empty(root)
            _copy(grave, root)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(
        source,
        target,
        ignore=shutil.ignore_patterns("*.db-shm", "*.lock"),
        dirs_exist_ok=True,
        copy_function=shutil.copy2,
    )


def _empty(root: Path) -> None:
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
