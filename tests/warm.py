"""What the processes of `batch_world` find done when they begin: every import of a command, and the command line itself.

Imported by a server from which they are forked, and by nobody else. Nothing in here may start a thread.
"""

from __future__ import annotations

import gc

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

import bioforge.backends.asynchronous
import bioforge.backends.batches
import bioforge.cli.run
import bioforge.cli.state
import bioforge.cli.watch
import bioforge.openai.batch_service
import bioforge.openai.client
import bioforge.openai.plugin
import bioforge.openai.prices
import bioforge.project
import bioforge.readers
import bioforge.report.logs
import bioforge.writers
from bioforge.cli.app import app

__all__ = ["COMMAND", "bioforge", "filelock", "genai_prices", "httpcore2", "openai", "pytest", "rich", "sqlite_utils"]
__all__ += ["structlog", "truststore"]

COMMAND = typer.main.get_command(app)

gc.collect()
gc.freeze()  # else the first collection of each process would copy all of this
