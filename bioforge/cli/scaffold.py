"""The files that `bioforge init` writes: a commented project that runs at once, or an example plugin."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from string import Template

from bioforge import __version__
from bioforge.core.errors import OutputError, UsageError, nearest

PROJECT = """\
# A bioforge project: the artists, and the requests for texts about them.
#
#   bioforge run        sends requests that are new, changed or failed, and writes the outputs
#   bioforge plan       shows what a run would send, and its price
#   bioforge why ID     shows why an artist is fresh or stale
#
# Paths are relative to the folder of this file. A line like "#key = value" shows a further option.

[project]
name = {name}
state = "bioforge.db"              # SQLite, with every answer that was paid for: back it up
#compress_bodies = true            # takes about half the space; SQL cannot read raw answers then

[provider]
base_url = "simulator"             # built in: no key, no cost, made-up texts
#base_url = "https://api.openai.com/v1"    # the real API, or any compatible server
#api_key_env = "OPENAI_API_KEY"    # the name of the variable with the key, not the key; a .env file here is read
#timeout = 600                     # seconds for one request

[input]
path = "artists.csv"               # a file, a glob like "data/*.csv", "-" for stdin, or an http(s) URL
#reader = "csv"                    # default: by the file's suffix
#columns = {{ artist_id = "id", artist_name = "name", artist_data = "bio" }}    # if your columns have other names
#strict = true                     # one bad row stops the run before anything is sent

# A recipe is one request for each artist. There can be several; `bioforge run bio` runs this one.
[recipe.bio]
model = "gpt-6-luna"
instructions = "prompts/bio.md"    # a file or the text. Use any column: {{{{ artist_name }}}}
input = "{{{{ artist_name }}}}\\n{{{{ artist_data }}}}"
max_output_tokens = 400            # further keys are request parameters, by their API names
#temperature = 0.7
#reasoning = {{ effort = "low" }}
#endpoint = "/v1/chat/completions" # default: "/v1/responses"; other servers often have only this one
#prompt = {{ id = "pmpt_1", version = "3" }}    # a reusable prompt instead of instructions and input

[backend]
name = "async"                     # or "batch" (half the price, up to a day), or "auto" (the cheapest in time)
concurrency = 64                   # requests at the same time, at most; lowered when the server is overloaded

[backend.batch]                    # for "batch" and "auto"
#max_requests = 50000              # in one batch
#poll_seconds = 15                 # before a batch is polled first; then longer each time, up to poll_max_seconds

[limits]
max_cost_usd = 5.0                 # checked before each request; the run stops there and can be resumed
#requests_per_minute = 5000        # the provider's limits are respected in any case
#tokens_per_minute = 2000000

[retry]
max_attempts = 6                   # of one request in one run
#first_delay = 0.5                 # seconds: 0.5, 1, 2, 4 … with jitter; Retry-After wins
#max_delay = 60                    # seconds
#maybe_paid = false                # never resend a request that may have been charged (default: true)
#outage_seconds = 300              # stop the run when the provider has been down this long

# Outputs are rewritten from the state after each run. The suffix determines the format.
[[output]]
path = "out/bios.jsonl"

[[output]]
path = "out/bios.csv"
#writer = "csv"                    # if the suffix does not determine it
#recipe = "bio"                    # only this recipe's answers

# The simulator can be slow, strict and faulty, for trials. No effect on a real provider.
[simulator]
latency = 0.2                      # seconds, median
#latency_sigma = 0.7               # its spread
#requests_per_minute = 600
#faults = {{ rate_limit = 0.05, server_error = 0.02, refusal = 0.01 }}
"""

ARTISTS = """\
artist_id,artist_name,artist_data
1,Hilma af Klint,"Swedish painter, 1862–1944. Abstract works from 1906 on; The Ten Largest, 1907."
2,El Anatsui,"Ghanaian sculptor, born 1944. Wall-sized hangings of flattened bottle caps and copper wire."
3,Katsushika Hokusai,"Japanese printmaker, 1760–1849. Thirty-six Views of Mount Fuji."
4,Sophie Taeuber-Arp,"Swiss artist, 1889–1943. Textiles, marionettes, reliefs; Café de l'Aubette in Strasbourg, 1928."
5,Amrita Sher-Gil,"Hungarian-Indian painter, 1913–1941. Three Girls, 1935."
"""

PROMPT = """\
Write a short biography of the artist named in the first line of the input, in 60 to 80 words.

Use only the facts given below the name. When a fact is missing, leave it out: do not guess dates, places or works.
Plain sentences in the present tense, no headings, no lists.
"""

IGNORED = """\
# The state of the project, with the answers that were paid for: back it up outside of git.
bioforge.db*
# Rewritten after each run.
out/
# Files of `bioforge batch`. The results were paid for: `bioforge import` adds them to the state.
batch_input*.jsonl
results_*.jsonl
logs/
# Keys.
.env
"""


def files(name: str) -> dict[str, str]:
    """Return the texts of a project's files by relative path. `name` is the name of the project."""
    return {
        "bioforge.toml": PROJECT.format(name=_toml(name)),
        "artists.csv": ARTISTS,
        "prompts/bio.md": PROMPT,
        ".gitignore": IGNORED,
    }


def write(folder: Path, name: str | None = None) -> list[Path]:
    """Write a project into `folder`, created if needed, and return the written paths.

    Raises `UsageError` if one of the files exists; nothing is written then. An existing `.gitignore` stays as it is.
    `name` defaults to that of the folder.
    """
    texts = files(name or folder.absolute().name or "project")
    return write_new(folder, texts, "`bioforge init DIR` writes into another folder", left=[".gitignore"])


def write_new(folder: Path, texts: Mapping[str, str], elsewhere: str, *, left: Collection[str] = ()) -> list[Path]:
    """Write new files by their paths relative to `folder`, and return the written paths.

    Raises `UsageError` with the hint `elsewhere` if one exists; nothing is written then. Existing files of `left` stay as
    they are.
    """
    existing = [path for path in texts if (folder / path).exists() or (folder / path).is_symlink()]
    blocking = [path for path in existing if path not in left]
    if blocking:
        raise UsageError(f"{folder} already has {', '.join(blocking)}; nothing was written", elsewhere)
    written = []
    for name, text in texts.items():
        if name in existing:
            continue
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
        except OSError as problem:
            raise OutputError(f"cannot write {path}: {problem.strerror}") from None
        written.append(path)
    return written


def _toml(text: str) -> str:
    """Return a TOML basic string: a JSON string with DEL escaped too."""
    return re.sub("\x7f", r"\\u007F", json.dumps(text, ensure_ascii=False))


KINDS = ("reader", "writer", "backend")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 40

_USE = {
    "reader": '[input]\npath = "artists.$name"            # chosen by the suffix, or: reader = "$name"',
    "writer": '[[output]]\npath = "out/bios.$name"           # chosen by the suffix, or: writer = "$name"',
    "backend": '[backend]\nname = "$name"\n\n[backend.$name]\nmodels = ["gpt-6-luna"]\nusd_per_million_input = 0.5\n'
    "usd_per_million_output = 2.0",
}
_OPTIONS = {
    "reader": "| `columns` | names of columns in the file by their names here | none |\n"
    '| `separator` | the text between a name and its value | `":"` |',
    "writer": '| `root` | the name of the outermost element | `"answers"` |\n'
    "| `failed` | also write artists without an answer | `true` |",
    "backend": "| `usd_per_million_input` | US dollars per million tokens of input | `0.0` |\n"
    "| `usd_per_million_output` | US dollars per million tokens of output | `0.0` |\n"
    "| `models` | the models with this price; other prices are unknown | `[]` |",
}


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A plugin to write. `name`, in lower-case letters, digits and '-', is its name in the project file."""

    name: str
    kind: str

    @classmethod
    def of(cls, name: str, kind: str) -> Skeleton:
        """Return the skeleton for a name, without a leading `bioforge-`. Raises `UsageError` for a wrong name or kind."""
        short = name.removeprefix("bioforge-")
        if not _NAME.fullmatch(short) or len(short) > _LONGEST_NAME:
            raise UsageError(
                f"--plugin {name}: expected at most {_LONGEST_NAME} lower-case letters, digits and '-', the first a letter",
                "like `bioforge init --plugin discogs`, which writes bioforge-discogs",
            )
        if kind not in KINDS:
            raise UsageError(f"--kind {kind}: no such kind", nearest(kind, KINDS) or f"kinds are: {', '.join(KINDS)}")
        return cls(short, kind)

    @property
    def distribution(self) -> str:
        return f"bioforge-{self.name}"

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    def files(self) -> dict[str, str]:
        """Return the texts of its files by relative path."""
        identifier = self.name.replace("-", "_")
        words = {
            "name": self.name,
            "kind": self.kind,
            "distribution": self.distribution,
            "package": self.package,
            "identifier": identifier,
            "Class": "".join(part.capitalize() for part in self.name.split("-")),
            "bioforge": __version__,
            "options": _OPTIONS[self.kind],
            "use": Template(_USE[self.kind]).substitute(name=self.name),
        }
        templates = {
            "pyproject.toml": "pyproject.toml.tmpl",
            "README.md": "README.md.tmpl",
            ".gitignore": "gitignore.tmpl",
            f"{self.package}/__init__.py": f"{self.kind}/package.py.tmpl",
            f"{self.package}/py.typed": "",
            "tests/conftest.py": "conftest.py.tmpl",
            f"tests/test_{identifier}.py": f"{self.kind}/test.py.tmpl",
        }
        return {path: _fill(template, words) for path, template in templates.items()}

    def write(self, folder: Path) -> list[Path]:
        """Write the plugin into `bioforge-NAME` below `folder`, and return the written paths.

        Raises `UsageError` if one of the files exists; nothing is written then.
        """
        return write_new(
            folder,
            {f"{self.distribution}/{path}": text for path, text in self.files().items()},
            "`bioforge init --plugin NAME DIR` writes it below another folder",
        )


def _fill(template: str, words: dict[str, str]) -> str:
    if not template:
        return ""
    folder = resources("bioforge.cli") / "templates" / "plugin"
    return Template(folder.joinpath(*template.split("/")).read_text("utf-8")).substitute(words)
