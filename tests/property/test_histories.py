"""Any edits, runs, faults and kills, in any order: the end is that of a project without a history, and every payment has
its reason."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

from chains import ChainFolder, Script, chain
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from .effort import examples
from .killing import killed_after

NAMES = {"1": "Björk", "2": "Magdalena Abakanowicz", "3": "Absalon", "4": "Abbey"}
DATA = ("singer", "sculptor", "painter")
MODELS = ("gpt-6-luna", "gpt-6.1-terra")
LIMITS = (None, 500, 37)
"""How long a note may be, which is checked and never sent: the last one fits hardly any."""
EXTRA = ("", "9,,without a name\n", "1,Björk,a second row with this id\n", '"7\n')
"""Rows that are kept out."""

WORDS = ("Collect", "biography", "poem")
FAULTS = (
    "bad_request", "rate_limit", "rate_limit_bare", "slow_down", "server_error", "unavailable", "drop_before", "drop_after",
    "truncated", "malformed", "incomplete", "content_filter", "refusal", "misfit",
)  # fmt: skip
BATCH_FAULTS = (
    "ok", "ok", "upload_lost", "create_lost", "create_refused", "token_limit", "download_truncated", "failed_validation=1",
    "expired=0.5", "cancelled=0.5", "lines_missing=0.5", "lines_lost=0.5", "lines_duplicated=1", "row_errors=0.5",
    "errors_only", "lines_shuffled+unknown_lines=2", "string_bodies+keys_missing", "wrong_counts+no_usage",
    "lines_lost=0.5+no_usage+lines_duplicated=0.5",
)  # fmt: skip

TABLES = """
[recipe.facts]
model = "{model}"
instructions = "Collect facts {prompt}."
input = "{{{{ artist_name }}}}: {{{{ artist_data }}}}"
max_output_tokens = 200
schema = "facts.json"
"""
BIO = """
[recipe.bio]
needs = ["facts"]
matrix = {{ model = {models} }}
samples = {samples}
instructions = "Write a biography."
input = "{{{{ artist_name }}}}, of whom is known: {{{{ facts.parsed.born }}}}"
max_output_tokens = 100
"""
POEM = """
[recipe.poem]
endpoint = "/v1/chat/completions"
model = "gpt-6-luna"
instructions = "Write a poem."
input = "{{ artist_name }}"
max_output_tokens = 100
"""
MORE = """
[retry]
first_delay = 0.001
max_attempts = 2
maybe_paid = {maybe_paid}
max_delay = 0.01
outage_seconds = 0.01
[backend]
concurrency = 3
[backend.batch]
poll_seconds = 0.005
poll_max_seconds = 0.02
max_requests = 3
[[output]]
path = "out.jsonl"
"""


@dataclass
class Files:
    """What a project's files say."""

    rows: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, DATA[0]))
    extra: str = ""
    prompt: int = 0
    model: str = MODELS[0]
    limit: int | None = None
    models: tuple[str, ...] = MODELS[:1]
    samples: int = 1
    recipes: frozenset[str] = frozenset({"bio", "poem"})
    maybe_paid: bool = True

    def write(self, project: ChainFolder) -> None:
        rows = "".join(f"{artist},{NAMES[artist]},{data}\n" for artist, data in self.rows.items())
        project.write("artists.csv", f"artist_id,artist_name,artist_data\n{rows}{self.extra}")
        note = {"type": "string"} | ({} if self.limit is None else {"maxLength": self.limit})
        properties = {"born": {"type": "integer", "minimum": 1900, "maximum": 1990}, "note": note}
        schema = {
            "type": "object", "properties": properties, "required": ["born", "note"], "additionalProperties": False
        }  # fmt: skip
        project.write("facts.json", json.dumps(schema))
        tables = [
            '[project]\nname = "test"\n[provider]\nbase_url = "'
            + project.server.base_url
            + '"\n[input]\npath = "artists.csv"\n',
            MORE.format(maybe_paid=json.dumps(self.maybe_paid)),
            TABLES.format(model=self.model, prompt=self.prompt),
        ]
        if "bio" in self.recipes:
            tables.append(BIO.format(models=json.dumps(self.models), samples=self.samples))
        if "poem" in self.recipes:
            tables.append(POEM)
        project.write("bioforge.toml", "".join(tables))


@dataclass(frozen=True)
class Run:
    """A run as it is asked for, what its server does wrong, and after how many transactions it dies."""

    arguments: tuple[str, ...]
    faults: tuple[tuple[tuple[str, ...], str], ...]
    dies: int | None


def _some(*options: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    """One of these options, or (more often) none of them."""
    return st.sampled_from([(), (), (), *options])


_arguments = st.tuples(
    st.sampled_from([(), (), ("--backend", "threads"), ("--backend", "batch"), ("--backend", "batch", "--no-wait")]),
    _some(("--limit", "1"), ("--limit", "3")),
    _some(("--max-failures", "1"), ("--max-failures", "2")),
    _some(("--select", "1"), ("--select", "[23]"), ("--select", "reason:new"), ("--select", "reason:changed"),
          ("--select", "reason:failed")),
    _some(("--max-cost", "0.00002"), ("--max-cost", "0.0002"), ("--max-cost", "1")),
    _some(("-j", "1")),
).map(lambda parts: tuple(word for part in parts for word in part))  # fmt: skip
_words = st.tuples(st.sampled_from(WORDS)) | st.tuples(st.sampled_from(WORDS), st.sampled_from(sorted(NAMES.values())))
_faults = st.lists(st.tuples(_words, st.sampled_from(FAULTS)), max_size=3).map(tuple)
_dies = st.none() | st.integers(1, 12) | st.integers(1, 40)
_runs = st.builds(Run, _arguments, _faults, _dies)


class History(RuleBasedStateMachine):
    """A project that things happen to, beside a server that keeps its own books."""

    @initialize(batches=st.lists(st.sampled_from(BATCH_FAULTS), max_size=6), maybe_paid=st.booleans())
    def begin(self, batches: list[str], maybe_paid: bool) -> None:
        self.stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="history-"))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        options = {"retry_after": 0.001, "batch_seconds": 0.0, "batch_script": batches}
        self.project = self.stack.enter_context(chain(self.folder / "old", script=Script(), **options))
        self.files = Files(maybe_paid=maybe_paid)
        self.complete: list[Files] = []
        self.planned = False

    # ------------------------------------------------------------------------------------------------------------ edits

    @rule(artist=st.sampled_from(sorted(NAMES)), data=st.sampled_from(DATA))
    def change_or_add_a_row(self, artist: str, data: str) -> None:
        self.files.rows[artist] = data

    @rule(artist=st.sampled_from(sorted(NAMES)))
    def remove_a_row(self, artist: str) -> None:
        if len(self.files.rows) > 1:
            self.files.rows.pop(artist, None)

    @rule(extra=st.sampled_from(EXTRA))
    def reorder_the_rows(self, extra: str) -> None:
        self.files.rows = dict(reversed(self.files.rows.items()))
        self.files.extra = extra

    @rule(prompt=st.integers(0, 1), model=st.sampled_from(MODELS))
    def change_how_facts_are_asked_for(self, prompt: int, model: str) -> None:
        self.files.prompt, self.files.model = prompt, model

    @rule(limit=st.sampled_from(LIMITS))
    def tighten_or_loosen_the_schema(self, limit: int | None) -> None:
        self.files.limit = limit

    @rule(models=st.sampled_from([MODELS, MODELS[:1], MODELS[1:], MODELS[::-1]]), samples=st.sampled_from([1, 2]))
    def change_the_variants(self, models: tuple[str, ...], samples: int) -> None:
        self.files.models, self.files.samples = models, samples

    @rule(recipes=st.frozensets(st.sampled_from(["bio", "poem"])))
    def change_the_recipes(self, recipes: frozenset[str]) -> None:
        self.files.recipes = recipes

    @rule(prompt=st.integers(0, 1), artist=st.sampled_from(sorted(NAMES)), data=st.sampled_from(DATA))
    def try_something_and_go_back(self, prompt: int, artist: str, data: str) -> None:
        if self.command("run") == 0:
            place = len(self.complete) - 1
            self.files.prompt = prompt
            self.files.rows[artist] = data
            self.command("run")
            self.go_back(place)

    @precondition(lambda self: self.complete)
    @rule(place=st.integers(0, 9))
    def go_back(self, place: int) -> None:
        """To files for which everything was there once: it costs nothing, whatever happened since."""
        self.files = copy.deepcopy(self.complete[place % len(self.complete)])
        charged = self.project.charged()
        self.collect()
        before = self.project.charged() - charged
        self.command("run")
        assert self.stale() == [], "what was complete is not any more"
        assert self.project.charged() - charged == before, "a reverted edit was paid for"

    # ------------------------------------------------------------------------------------------------------------- runs

    @rule(run=_runs)
    def run(self, run: Run) -> None:
        self.command("run", *run.arguments, faults=run.faults, dies=run.dies)

    @rule(faults=_faults, dies=_dies)
    def run_everything(self, faults: tuple[tuple[tuple[str, ...], str], ...], dies: int | None) -> None:
        self.command("run", faults=faults, dies=dies)

    @rule(faults=_faults, dies=_dies)
    def resume(self, faults: tuple[tuple[tuple[str, ...], str], ...], dies: int | None) -> None:
        charged = self.project.charged()
        # one that stopped at its budget wants to be told another one
        if self.command("resume", faults=faults, dies=dies, refused=True) == 2:
            assert self.project.charged() == charged, "refused, and yet something was bought"

    @rule(which=st.sampled_from([(), ("--select", "1"), ("facts",), ("--select", "3", "--limit", "1")]), dies=_dies)
    def force(self, which: tuple[str, ...], dies: int | None) -> None:
        """What is asked for anew may be answered anew, or fail: nothing is promised of going back."""
        self.complete = []
        self.command("run", "-B", *which, dies=dies)

    @rule(which=st.sampled_from([(), ("--select", "[12]"), ("--limit", "2")]))
    def save_a_plan(self, which: tuple[str, ...]) -> None:
        charged = self.project.charged()
        self.files.write(self.project)
        self.project.run("plan", "--out", "saved.plan", *which).ok()
        assert self.project.charged() == charged
        self.planned = True

    @precondition(lambda self: self.planned)
    @rule(dies=_dies)
    def run_the_saved_plan(self, dies: int | None) -> None:
        charged = self.project.charged()
        if self.command("run", "--plan", "saved.plan", dies=dies, refused=True) == 2:
            assert self.project.charged() == charged, "refused, and yet something was bought"

    def command(
        self,
        *arguments: str,
        faults: tuple[tuple[tuple[str, ...], str], ...] = (),
        dies: int | None = None,
        refused: bool = False,
    ) -> int | None:
        """A command, its exit code, and the books afterwards. None: it was killed."""
        self.files.write(self.project)
        self.project.script.faults = dict(faults)
        code, before = None, self.newest_run()
        alone = not self.open_batches()
        with killed_after(self.project.root, dies) as death:
            code = (ran := self.project.run(*arguments)).code
        self.project.script.faults = {}
        if death.came:
            event(f"{arguments[0]} was killed")
            return None
        event(f"{arguments[0]} came to exit code {code}")
        assert code in ((0, 1, 75, 2) if refused else (0, 1, 75)), ran.err
        assert "Traceback" not in ran.err, ran.err
        if code == 2:  # nothing was done, not even closing what an earlier command left open
            return code
        self.project.assert_money_is_explained()
        if alone:  # what the batches of others leave over was asked for by those
            self.assert_within(arguments, before)
        if code == 0 and arguments == ("run",):
            assert self.stale() == [], "it says that everything is there"
            self.complete.append(copy.deepcopy(self.files))
        return code

    def newest_run(self) -> int:
        return self.value("SELECT coalesce(max(id), 0) FROM runs")

    def open_batches(self) -> int:
        return self.value("SELECT count(*) FROM batches WHERE state NOT IN ('collected', 'released')")

    def value(self, sql: str) -> int:
        """A number of the state; 0 where there is none yet."""
        found: int = self.project.value(sql) if (self.project.root / "bioforge.db").exists() else 0
        return found

    def assert_within(self, arguments: tuple[str, ...], before: int) -> None:
        """No more was asked for than was chosen, and no more spent than was allowed."""
        run = self.newest_run()
        if run == before or arguments[0] != "run":
            return
        options = dict(pairwise(arguments))
        asked = self.project.rows(
            "SELECT a.artist_id, x.target, r.cost_usd FROM attempts x JOIN targets t ON t.id = x.target"
            " JOIN artists a ON a.id = t.artist LEFT JOIN responses r ON r.attempt = x.id WHERE x.run = ?",
            run,
        )
        assert len({target for _, target, _ in asked}) <= int(options.get("--limit", 999)), "more than its limit"
        selected = [word for option, word in pairwise(arguments) if option == "--select" and ":" not in word]
        for artist, _, _ in asked if selected else ():
            assert any(fnmatch(artist, pattern) for pattern in selected), "what nobody selected"
        costs = [cost or 0.0 for *_, cost in asked]
        # prices are estimates: those that are sent together may each miss theirs
        assert sum(costs) <= float(options.get("--max-cost", 999)) + 3 * max(costs, default=0.0), "beyond its budget"

    def collect(self) -> None:
        """What batches and open attempts of earlier runs come to, which is no matter of what the files say now."""
        for _ in range(9):
            if not self.open_batches():
                return
            self.command("run", "--backend", "batch", "--select", "nobody")
        raise AssertionError("batches that never end")

    @invariant()
    def the_state_is_whole(self) -> None:
        if hasattr(self, "project") and (self.project.root / "bioforge.db").exists():
            assert self.project.value("PRAGMA integrity_check") == "ok"

    # -------------------------------------------------------------------------------------------------------- the end

    def stale(self) -> list[tuple[str, ...]]:
        return self.project.rows(
            "SELECT artist_id, recipe, variant, state FROM results WHERE state NOT IN ('fresh', 'removed')"
            f" AND recipe IN ('facts', {', '.join(map(repr, sorted(self.files.recipes))) or repr('')})"
        )

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        with self.stack:
            self.come_to_an_end()

    def come_to_an_end(self) -> None:
        files = self.files
        files.limit = None if files.limit == LIMITS[-1] else files.limit
        files.maybe_paid = True
        for _ in range(9):
            if self.command("run") == 0:
                break
        # what was paid for and cannot be used is asked for again by nobody but a person
        for _ in range(3):
            if not (stale := self.stale()):
                break
            self.command("run", "-B", *(word for row in stale for word in ("--select", row[0])))
        assert self.stale() == []
        charged = self.project.charged()
        assert self.project.run("plan", "-q").code == 0
        assert self.command("run") == 0
        assert self.project.charged() == charged, "there was something left to buy"
        written = self.project.read("out.jsonl")
        with chain(self.folder / "clean", script=Script()) as clean:
            files.write(clean)
            clean.run("run").ok()
            assert results(self.project) == results(clean), "another end than without a history"
            assert exported(written) == exported(clean.read("out.jsonl"))


def results(project: ChainFolder) -> dict[tuple[str, ...], tuple[str, ...]]:
    columns = "artist_id, recipe, variant, text, parsed"
    tables = project.read("bioforge.toml")
    rows = project.rows(f"SELECT {columns} FROM results WHERE state <> 'removed'")
    return {row[:3]: row[3:] for row in rows if f"[recipe.{row[1]}]" in tables}


def exported(text: str) -> set[tuple[str, ...]]:
    records = map(json.loads, text.splitlines())
    return {
        (one["artist_id"], one["artist_data"], one["recipe"], one.get("variant", ""), one["response_text"])
        for one in records
    }


Test = History.TestCase
Test.settings = examples(3, steps=12, shrinks=False)
