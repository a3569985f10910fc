"""A forked process has none of its parent's threads: it opens new clients, and ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, warnings
warnings.simplefilter("ignore")
from bioforge.api import Client, ClosedError, generate_sync

client = Client()
client.generate_sync("before", model="m")
generate_sync("before", model="m")
child = os.fork()
if child == 0:
    print(bool(generate_sync("after", model="m").text), flush=True)
    try:
        client.generate_sync("after", model="m")
    except ClosedError as error:
        print(error.hint, flush=True)
    client.close()
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), bool(client.generate_sync("later", model="m").text))
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_opens_its_own_client_and_ends() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.splitlines() == ["True", "open a client in this process", "0 True"], ran.stderr
