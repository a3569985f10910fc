"""What processes of tests find done when they begin: every import of a command, the command line itself, and a first plan.

Imported by a server from which they are forked, and by nobody else. Nothing in here may start a thread.
"""

from __future__ import annotations

import encodings.idna
import gc
import os
import threading
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import batch_world
import filelock
import genai_prices.data
import httpcore2._backends.anyio
import httpcore2._sync
import openai.resources.batches
import openai.resources.files
import pytest
import rich.console
import rich.live
import rich.table
import sqlite_utils
import structlog
import truststore
import typer.main

import bioforge.backends.asyncio
import bioforge.backends.batch.driver
import bioforge.backends.openai.batch
import bioforge.backends.openai.client
import bioforge.backends.openai.plugin
import bioforge.backends.openai.prices
import bioforge.backends.threads
import bioforge.cli.run
import bioforge.cli.run_console
import bioforge.cli.status
import bioforge.engine.project
import bioforge.readers.plugin
import bioforge.report.logs
import bioforge.writers.plugin
from bioforge.cli.app import app

__all__ = [
    "COMMAND",
    "batch_world",
    "bioforge",
    "encodings",
    "filelock",
    "genai_prices",
    "httpcore2",
    "openai",
    "pytest",
    "rich",
]
__all__ += ["sqlite_utils", "structlog", "truststore"]

PROJECT = """
[provider]
base_url = "http://127.0.0.1:9/v1"
[input]
path = "artists.csv"
[recipe.bio]
model = "gpt-6-luna"
input = "{{ artist_name }}"
"""

COMMAND = typer.main.get_command(app)


def first_plan() -> None:
    """Whatever is made when it is first needed: tables of prices, patterns of templates, types of options."""
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        Path(folder, "bioforge.toml").write_text(PROJECT)
        Path(folder, "artists.csv").write_text("artist_id,artist_name\n1,Björk\n")
        with suppress(SystemExit):
            COMMAND(["plan", "-f", os.path.join(folder, "bioforge.toml")])


first_plan()
assert threading.active_count() == 1, "a process that is forked from one with threads may wait for them for ever"
gc.collect()
gc.freeze()  # else the first collection of each process would copy all of this
