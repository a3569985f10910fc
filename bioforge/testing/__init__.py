"""The kit for authors of plugins: fixtures, and contracts to derive tests from.

```python
# tests/conftest.py of a plugin
pytest_plugins = ["bioforge.testing"]
```
gives the fixtures `simulator`, `make_simulator`, `project` and `make_project`. The contracts are classes of tests:

```python
from bioforge.testing import ReaderContract

class TestXml(ReaderContract):
    suffix = "xml"

    def reader(self):
        return read_xml

    def write(self, path, rows):
        path.write_bytes(xml_of(rows))
```
It needs pytest: `pip install 'bioforge-llm[test]'`.

PYTEST_DONT_REWRITE: no assertion stands in this module, so a conftest.py may import from it before it names the plugin.
"""

from __future__ import annotations

from bioforge.testing.assertions import Config  # before the others, whose assertions it is for
from bioforge.testing.backends import BackendContract
from bioforge.testing.bench import BackendBench, SimulatorServer
from bioforge.testing.fixtures import MakeProject, MakeSimulator, make_project, make_simulator, project, simulator
from bioforge.testing.folders import ARTISTS, TABLES, ProjectFolder, Server, charged_by, project_file
from bioforge.testing.processes import KILLED, Ran, Running, wait_until
from bioforge.testing.readers import ReaderContract
from bioforge.testing.recorder import Book, Recorded
from bioforge.testing.records import record
from bioforge.testing.writers import WriterContract

__all__ = [
    "ARTISTS",
    "KILLED",
    "TABLES",
    "BackendBench",
    "BackendContract",
    "Book",
    "MakeProject",
    "MakeSimulator",
    "ProjectFolder",
    "Ran",
    "ReaderContract",
    "Recorded",
    "Running",
    "Server",
    "SimulatorServer",
    "WriterContract",
    "charged_by",
    "make_project",
    "make_simulator",
    "project",
    "project_file",
    "pytest_configure",
    "record",
    "simulator",
    "wait_until",
]


def pytest_configure(config: Config) -> None:
    """Ignore warnings of other packages that say nothing about a plugin, where warnings are errors."""
    # aiohttp warns about itself where a form arrives in pieces of a few bytes
    config.addinivalue_line("filterwarnings", r"ignore:unread_data\(\) is deprecated:DeprecationWarning")
