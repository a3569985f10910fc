"""The project that `bioforge init` writes: it runs as it is, and its comments teach the project file."""

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
# A bioforge project: what is known about each artist, and how to ask for a text about it.
#
#   bioforge run        asks for what is new, changed or failed, and writes the outputs
#   bioforge plan       says what a run would do and cost
#   bioforge why ID     says why an artist is up to date or not
#
# Paths start from the folder of this file. A line that begins with "#key = value" is an option with an example.

[project]
name = {name}
state = "bioforge.db"              # SQLite: every answer that was paid for. Keep it; back it up
#compress_bodies = true            # about half the space; SQL cannot look into raw answers then

[provider]
base_url = "simulator"             # a built-in stand-in for the API: no key, no cost, made-up texts
#base_url = "https://api.openai.com/v1"    # the real one, or any server that speaks the same API
#api_key_env = "OPENAI_API_KEY"    # the name of the variable with the key, never the key; .env beside this file is read
#timeout = 600                     # seconds for one call

[input]
path = "artists.csv"               # a file, a glob like "data/*.csv", "-" for stdin, or an http(s) URL
#reader = "csv"                    # default: by the file's suffix
#columns = {{ artist_id = "id", artist_name = "name", artist_data = "bio" }}    # when your columns have other names
#strict = true                     # one bad row stops the run before anything is sent

# A recipe is one thing to ask about each artist. There can be several; `bioforge run bio` runs this one.
[recipe.bio]
model = "gpt-6-luna"
instructions = "prompts/bio.md"    # a file or the text itself. Every column can be used: {{{{ artist_name }}}}
input = "{{{{ artist_name }}}}\\n{{{{ artist_data }}}}"
max_output_tokens = 400            # this and any further key is a request parameter, by its API name
#temperature = 0.7
#reasoning = {{ effort = "low" }}
#endpoint = "/v1/chat/completions" # default: "/v1/responses"; servers other than OpenAI's often have only this one
#prompt = {{ id = "pmpt_1", version = "3" }}    # a reusable prompt of the provider's instead of instructions and input

[backend]
name = "async"                     # or "batch": half the price, up to a day; or "auto": the cheapest way in time
concurrency = 64                   # calls at the same time, at most; it adapts downwards by itself

[backend.batch]                    # for "batch" and "auto"
#max_requests = 50000              # in one batch, at most
#poll_seconds = 15                 # until the first look at a batch; then longer each time, up to poll_max_seconds

[limits]
max_cost_usd = 5.0                 # checked before each call; the run stops there and can be resumed
#requests_per_minute = 5000        # the provider's own limits are respected anyway
#tokens_per_minute = 2000000

[retry]
max_attempts = 6                   # for one request, in one run
#first_delay = 0.5                 # seconds: 0.5, 1, 2, 4 … with jitter; what the provider asks for wins
#max_delay = 60                    # seconds
#maybe_paid = false                # never send again what may have been charged for already (default: true)
#outage_seconds = 300              # stop the run when the provider has been down this long

# Outputs are written anew after each run, from the state. The format comes from the suffix.
[[output]]
path = "out/bios.jsonl"

[[output]]
path = "out/bios.csv"
#writer = "csv"                    # when the suffix does not say it
#recipe = "bio"                    # only this recipe's answers

# The simulator can be slow, strict and faulty, to try out what a real run will meet. No effect on a real provider.
[simulator]
latency = 0.2                      # seconds, median
#latency_sigma = 0.7               # how much it varies
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
# The state of the project. It holds what was paid for: back it up, even though git does not keep it.
bioforge.db*
# Written anew after each run.
out/
# Of `bioforge batch`. The results were paid for: `bioforge import` takes them into the state.
batch_input*.jsonl
results_*.jsonl
logs/
# Keys.
.env
"""


def files(name: str) -> dict[str, str]:
    """The project's files: paths relative to its folder, and their text. `name` is the project's."""
    return {
        "bioforge.toml": PROJECT.format(name=_toml(name)),
        "artists.csv": ARTISTS,
        "prompts/bio.md": PROMPT,
        ".gitignore": IGNORED,
    }


def write(folder: Path, name: str | None = None) -> list[Path]:
    """Write the project into `folder`, made where needed, and return the paths written.

    UsageError names the files that are there already, and nothing is written then. Only a `.gitignore` is left as it
    is without complaint: folders often have one before they have anything else. `name`: the folder's by default.
    """
    texts = files(name or folder.absolute().name or "project")
    return write_new(folder, texts, "`bioforge init DIR` writes into another folder", left=[".gitignore"])


def write_new(folder: Path, texts: Mapping[str, str], elsewhere: str, *, left: Collection[str] = ()) -> list[Path]:
    """Write files that are not there yet, by their paths relative to `folder`, and return the paths written.

    UsageError names those that are there already, with `elsewhere` as its hint, and nothing is written then; those that
    are `left` stay as they are without complaint.
    """
    there = [path for path in texts if (folder / path).exists() or (folder / path).is_symlink()]
    in_the_way = [path for path in there if path not in left]
    if in_the_way:
        raise UsageError(f"{folder} has {', '.join(in_the_way)} already, and nothing was written", elsewhere)
    written = []
    for name, text in texts.items():
        if name in there:
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
    """A TOML basic string: JSON's escapes are TOML's, but TOML also wants DEL escaped."""
    return re.sub("\x7f", r"\\u007F", json.dumps(text, ensure_ascii=False))


KINDS = ("reader", "writer", "backend")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 40

_USE = {
    "reader": '[input]\npath = "artists.$name"            # read by this plugin for its suffix, or: reader = "$name"',
    "writer": '[[output]]\npath = "out/bios.$name"           # written by this plugin for its suffix, or: writer = "$name"',
    "backend": '[backend]\nname = "$name"\n\n[backend.$name]\nmodels = ["gpt-6-luna"]\nusd_per_million_input = 0.5\n'
    "usd_per_million_output = 2.0",
}
_OPTIONS = {
    "reader": "| `columns` | names of columns in the file by their names here | none |\n"
    '| `separator` | the text between a name and its value | `":"` |',
    "writer": '| `root` | the name of the outermost element | `"answers"` |\n'
    "| `failed` | whether what has no answer is written too | `true` |",
    "backend": "| `usd_per_million_input` | US dollars for a million tokens of input | `0.0` |\n"
    "| `usd_per_million_output` | US dollars for a million tokens of output | `0.0` |\n"
    "| `models` | the models that have this price; none for a price that is unknown | `[]` |",
}


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A plugin to be written: `name` is what people put into the project file, in small letters, digits and '-'."""

    name: str
    kind: str

    @classmethod
    def of(cls, name: str, kind: str) -> Skeleton:
        """UsageError for a name that cannot be a plugin's, or a kind that is none. `bioforge-` before it is let go."""
        short = name.removeprefix("bioforge-")
        if not _NAME.fullmatch(short) or len(short) > _LONGEST_NAME:
            raise UsageError(
                f"--plugin {name}: expected small letters, digits and '-', beginning with a letter, {_LONGEST_NAME} at most",
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
        """Its files: paths relative to its folder, and their text."""
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
        return {path: _filled(template, words) for path, template in templates.items()}

    def write(self, folder: Path) -> list[Path]:
        """Write it into the folder `bioforge-NAME` below `folder`, and return the paths written.

        UsageError names the files that are there already, and nothing is written then.
        """
        return write_new(
            folder,
            {f"{self.distribution}/{path}": text for path, text in self.files().items()},
            "`bioforge init --plugin NAME DIR` writes it below another folder",
        )


def _filled(template: str, words: dict[str, str]) -> str:
    if not template:
        return ""
    folder = resources("bioforge.cli") / "templates" / "plugin"
    return Template(folder.joinpath(*template.split("/")).read_text("utf-8")).substitute(words)
