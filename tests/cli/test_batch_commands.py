"""`bioforge batch …`: from rows to results by hand, inside and outside of a project, and what goes wrong on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from odd_server import OddServer
from processes import ENVIRONMENT, Ran
from projects import ProjectFolder, invoke

from bioforge.cli.batch.commands import EXAMPLES
from bioforge.cli.batch.files import Parts
from bioforge.cli.batch.rows import custom_id
from bioforge.simulator import Simulator, SimulatorOptions

KEY = "sk-a-very-secret-key"
CREATE = ("batch", "create", "--in", "batch_input.jsonl")
HAIKU = '[recipe.haiku]\nmodel = "gpt-6-luna"\ninput = "A haiku about {{ artist_name }}"\n'
LINE = {
    "custom_id": "r-1",
    "method": "POST",
    "url": "/v1/responses",
    "body": {"model": "gpt-6-luna", "input": "Who is Björk?"},
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: ExitStack) -> Callable[..., Simulator]:
    return lambda **options: stack.enter_context(Simulator(SimulatorOptions(**{"batch_seconds": 0, **options})))


@pytest.fixture
def server(start: Callable[..., Simulator]) -> Simulator:
    """A simulator that is done with a batch at once."""
    return start()


class Outside:
    """A folder without a project, where the environment names the provider."""

    def __init__(self, folder: ProjectFolder, base_url: str) -> None:
        self._folder = folder
        self._base_url = base_url
        self.root = folder.root
        (self.root / "bioforge.toml").unlink(missing_ok=True)

    def run(self, *arguments: str, **env: str) -> Ran:
        return self._folder.run(*arguments, env={"OPENAI_BASE_URL": self._base_url, "OPENAI_API_KEY": KEY, **env})


@pytest.fixture
def outside(project: ProjectFolder) -> Outside:
    return Outside(project, project.server.base_url)


def written(root: Path, name: str = "batch_input.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / name).read_text("utf-8").splitlines()]


def write(root: Path, *lines: Any, name: str = "batch_input.jsonl") -> None:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (root / name).write_text("".join(f"{text}\n" for text in texts), "utf-8")


def numbered(number: int, **changes: Any) -> dict[str, Any]:
    return {**LINE, "custom_id": f"r-{number}", **changes}


def created(folder: ProjectFolder | Outside, *more: str) -> str:
    file_id, batch_id = folder.run(*CREATE, *more).ok().out.split()
    assert file_id.startswith("file-")
    return batch_id


def ended(folder: ProjectFolder | Outside, batch_id: str) -> dict[str, Any]:
    """The batch when it has ended, asked for until then; the test's own time limit ends that."""
    while True:
        ran = folder.run("batch", "status", batch_id, "--format", "json", "--no-auto-save")
        record: dict[str, Any] = json.loads(ran.out)
        if record["ended_at"] is not None:
            return record


def operations(root: Path) -> list[dict[str, Any]]:
    (path,) = (root / "logs").glob("batch-*.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# ----------------------------------------------------------------------------------------------------------- the whole way


def test_from_rows_to_results_in_a_project(project: ProjectFolder) -> None:
    ran = project.run("batch", "jsonl").ok()
    assert ran.out == "batch_input.jsonl\n"
    assert ran.err.splitlines()[0].startswith("batch_input.jsonl: 4 requests, ")
    assert ran.err.splitlines()[1] == "next: bioforge batch create --in batch_input.jsonl"
    lines = written(project.root)
    assert [line["custom_id"] for line in lines] == ["1", "2", "3", "0"]
    assert list(lines[0]) == ["custom_id", "method", "url", "body"]
    assert lines[0]["body"] == {
        "model": "gpt-6-luna",
        "instructions": "Write a biography.",
        "input": "Björk: Icelandic singer",
        "max_output_tokens": 400,
    }

    ran = project.run(*CREATE).ok()
    file_id, batch_id = ran.out.split()
    assert ran.err.startswith("uploaded batch_input.jsonl: 4 requests for gpt-6-luna, ")
    assert f"{batch_id}: validating, ends within 24h\n" in ran.err
    assert ran.err.endswith(f"next: bioforge batch status {batch_id}\n")

    record = ended(project, batch_id)
    assert (record["status"], record["state"]) == ("completed", "completed")
    assert record["request_counts"] == {"total": 4, "completed": 4, "failed": 0}
    assert record["input_file_id"] == file_id
    assert record["metadata"]["project"] == "test"
    assert len(record["metadata"]["sha256"]) == 64

    results = f"results_{batch_id}.jsonl"
    ran = project.run("batch", "status", batch_id).ok()
    assert ran.out.startswith(f"{batch_id}: completed\n  model        gpt-6-luna\n  endpoint     /v1/responses\n")
    assert "  requests     4: 4 answered, 0 failed\n" in ran.out
    assert f"{results}: saved, 4 lines (4 answered)\n" in ran.err
    assert {line["custom_id"] for line in written(project.root, results)} == {"0", "1", "2", "3"}

    ran = project.run("batch", "status", batch_id).ok()
    assert f"{results}: exists already, 4 lines (4 answered)\n" in ran.err
    ran = project.run("batch", "retrieve", batch_id, "-o", "out/bios.jsonl").ok()
    assert ran.out == "out/bios.jsonl\n"
    assert (project.root / "out/bios.jsonl").read_bytes() == (project.root / results).read_bytes()
    assert not (project.root / "bioforge.db").exists(), "by hand, the state is not touched"

    ran = project.run("batch", "list").ok()
    head, row = ran.out.splitlines()
    assert head.split() == ["batch", "status", "created", "model", "requests", "answered", "failed", "results"]
    assert row.split()[:2] == [batch_id, "completed"]
    assert ran.err == ""


def test_without_a_project_the_environment_names_the_provider(outside: Outside) -> None:
    ran = outside.run(
        "batch", "jsonl", "--in", "artists.csv", "--model", "gpt-6-luna", "--template", "Who is {{ artist_name }}?",
        "--instructions", "Be brief.", "--max-output-tokens", "90", "-o", "batch_input.jsonl",
    ).ok()  # fmt: skip
    assert ran.out == "batch_input.jsonl\n"
    assert written(outside.root)[0]["body"] == {
        "model": "gpt-6-luna",
        "input": "Who is Björk?",
        "instructions": "Be brief.",
        "max_output_tokens": 90,
    }
    batch_id = created(outside)
    record = ended(outside, batch_id)
    assert "project" not in record["metadata"]
    outside.run("batch", "retrieve", batch_id).ok()
    assert len(written(outside.root, f"results_{batch_id}.jsonl")) == 4


def test_the_embedded_simulator_keeps_batches_between_commands(project: ProjectFolder) -> None:
    project.configure(more="[simulator]\nbatch_seconds = 0.0\n", **{project.server.base_url: "simulator"})
    project.run("batch", "jsonl").ok()
    ran = project.run(*CREATE).ok()
    assert "simulated: nothing is charged" in ran.err
    batch_id = ran.out.split()[1]
    assert ended(project, batch_id)["status"] == "completed"
    ran = project.run("batch", "retrieve", batch_id).ok()
    assert "(simulated: nothing was charged)" in ran.err
    assert (project.root / "bioforge.db.simulator").is_dir()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_says_what_it_does_and_shows_examples(name: str) -> None:
    shown = invoke("batch", name, "--help").out
    assert shown.startswith(f"Usage: bioforge batch {name} ")
    _, _, examples = shown.partition("\n  Examples:\n")
    assert [line[4:] for line in examples.splitlines()] == list(EXAMPLES[name])
    assert all(len(line) <= 80 for line in shown.splitlines())


# ------------------------------------------------------------------------------------------------------------- jsonl


def test_one_of_several_recipes_has_to_be_named(project: ProjectFolder) -> None:
    project.configure(more=HAIKU)
    ran = project.run("batch", "jsonl")
    assert (ran.code, ran.err) == (2, "error: the project has several recipes\nhint: name one: bio, haiku\n")
    project.run("batch", "jsonl", "haiku", "--limit", "1").ok()
    assert [line["body"]["input"] for line in written(project.root)] == ["A haiku about Björk"]
    ran = project.run("batch", "jsonl", "haikus")
    assert (ran.code, ran.err) == (2, "error: no recipe 'haikus' in bioforge.toml\nhint: did you mean 'haiku'?\n")


def test_another_file_for_the_projects_recipe(project: ProjectFolder) -> None:
    (project.root / "more.csv").write_text("key,artist_name,artist_data\n7,Wols,painter\n")
    project.run("batch", "jsonl", "--in", "more.csv", "--columns", "artist_id=key").ok()
    assert [(line["custom_id"], line["body"]["input"]) for line in written(project.root)] == [("7", "Wols: painter")]
    (project.root / "more.jsonl").write_text('{"artist_id": 8, "artist_name": "Wols"}\n')
    project.run("batch", "jsonl", "--in", "more.jsonl").ok()
    assert [line["custom_id"] for line in written(project.root)] == ["8"]


def test_rows_that_cannot_be_used_are_left_out(project: ProjectFolder) -> None:
    rows = ["artist_id,artist_name,artist_data", "1,Björk,", "1,Wols,", *(f"{n},," for n in range(2, 8)), "9,Absalon,"]
    project.write("artists.csv", "\n".join(rows))
    ran = project.run("batch", "jsonl").ok()
    assert [line["custom_id"] for line in written(project.root)] == ["1", "9"]
    assert ran.err.splitlines()[:7] == [
        "input: 7 bad rows left out:",
        "  artists.csv:3: artist_id '1' is already taken",
        "  artists.csv:4: no artist_name",
        "  artists.csv:5: no artist_name",
        "  artists.csv:6: no artist_name",
        "  artists.csv:7: no artist_name",
        "  … and 2 more",
    ]


def test_strictly_one_bad_row_is_too_many(project: ProjectFolder) -> None:
    project.write("artists.csv", "artist_id,artist_name\n1,Björk\n2,\n")
    project.configure(**{"{{ artist_name }}: {{ artist_data }}": "{{ artist_name }}"})
    ran = project.run("batch", "jsonl", "--strict")
    assert ran.code == 2
    assert ran.err == (
        "error: 1 bad row in the input, and strict mode allows none:\n  artists.csv:3: no artist_name\n"
        "hint: fix the rows, or run without --strict to leave them out; nothing was written\n"
    )
    assert ran.out == ""
    assert not (project.root / "batch_input.jsonl").exists()
    assert not list(project.root.glob(".bioforge-*"))
    project.edit("bioforge.toml", 'path = "artists.csv"', 'path = "artists.csv"\nstrict = true')
    assert project.run("batch", "jsonl").code == 2
    ran = project.run("batch", "jsonl", "--strict", "-o", "-")
    assert (ran.code, ran.out) == (2, "")


def test_an_input_without_a_good_row_writes_nothing(outside: Outside) -> None:
    ask = ("batch", "jsonl", "--in", "artists.csv", "--model", "m")
    ran = outside.run(*ask, "--template", "{{ nonsense }}")
    assert ran.code == 2
    assert ran.err.startswith("error: 4 bad rows in the input, and no usable one:\n  artists.csv:2: ")
    assert "'nonsense' is undefined" in ran.err
    (outside.root / "artists.csv").write_text("artist_id,artist_name\n")
    ran = outside.run(*ask, "--template", "{{ artist_name }}")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: the input has no rows")
    assert not (outside.root / "batch_input.jsonl").exists()


def test_standard_output_gets_the_lines_and_nothing_else(project: ProjectFolder) -> None:
    ran = project.run("batch", "jsonl", "-o", "-", "--limit", "2").ok()
    assert [json.loads(line)["custom_id"] for line in ran.out.splitlines()] == ["1", "2"]
    assert not (project.root / "batch_input.jsonl").exists()


def test_a_reusable_prompt(outside: Outside) -> None:
    ran = outside.run("batch", "jsonl", "--in", "artists.csv", "--prompt-id", "pmpt_1", "--prompt-version", "3").ok()
    assert "reusable prompts end at OpenAI on 2026-11-30" in ran.err
    bodies = [line["body"] for line in written(outside.root)]
    assert bodies[0] == {
        "prompt": {
            "id": "pmpt_1",
            "version": "3",
            "variables": {"artist_name": "Björk", "artist_data": "Icelandic singer"},
        }
    }
    assert bodies[2]["prompt"]["variables"] == {"artist_name": "Absalon"}
    outside.run("batch", "jsonl", "--in", "artists.csv", PROMPT_ID="pmpt_2", PROMPT_VERSION="4").ok()
    assert written(outside.root)[0]["body"]["prompt"]["id"] == "pmpt_2"
    assert written(outside.root)[0]["body"]["prompt"]["version"] == "4"
    outside.run("batch", "jsonl", "--in", "artists.csv", "--prompt-id", "pmpt_1", PROMPT_VERSION="4").ok()
    assert "version" not in written(outside.root)[0]["body"]["prompt"], "a version belongs to its prompt"


def test_chat_completions_by_template_files(outside: Outside) -> None:
    (outside.root / "ask.md").write_text("Who is {{ artist_name }}?\n")
    outside.run(
        "batch", "jsonl", "--in", "artists.csv", "--template", "ask.md", "--endpoint", "/v1/chat/completions",
        "--max-output-tokens", "9", OPENAI_MODEL="gpt-6-luna",
    ).ok()  # fmt: skip
    line = written(outside.root)[0]
    assert line["url"] == "/v1/chat/completions"
    assert line["body"] == {
        "model": "gpt-6-luna",
        "messages": [{"role": "user", "content": "Who is Björk?"}],
        "max_completion_tokens": 9,
    }


MISTAKES: list[tuple[Sequence[str], str]] = [
    ((), "there is neither a template nor a prompt"),
    (("bio",), "recipe 'bio': there is no project here"),
    (("--template", "x"), "--template needs a model"),
    (("--template", "x", "--model", "m", "--prompt-id", "p"), "--template and --prompt-id exclude each other"),
    (("--template", "x", "--model", "m"), "there is no input"),
    (("--template", "ask.md", "--model", "m", "--in", "artists.csv"), "--template: no such file 'ask.md'"),
    (("--template", "{{ x", "--model", "m", "--in", "artists.csv"), "--template, line 1: "),
    (("--prompt-id", "p", "--in", "a.csv", "--endpoint", "/v1/nope"), "--endpoint /v1/nope: no such endpoint"),
    (("--prompt-id", "p", "--in", "a.csv"), "input 'a.csv' does not exist"),
    (("--prompt-id", "p", "--in", "artists.csv", "--columns", "x"), "--columns x: expected NAME=COLUMN"),
    (("--prompt-id", "p", "--in", "artists.csv", "-o", "artists.csv"), "-o artists.csv: this is the input"),
    (
        ("--prompt-id", "p", "--in", "artists.csv", "--endpoint", "/v1/chat/completions"),
        "a reusable prompt cannot be used with /v1/chat/completions",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_of_jsonl(outside: Outside, arguments: Sequence[str], message: str) -> None:
    ran = outside.run("batch", "jsonl", *arguments)
    assert ran.code == 2
    assert ran.err.startswith(f"error: {message}"), ran.err
    assert ran.out == ""
    assert not (outside.root / "batch_input.jsonl").exists()


def test_flags_do_not_change_a_recipe(project: ProjectFolder) -> None:
    for arguments in (("bio", "--model", "x"), ("--instructions", "x"), ("--max-output-tokens", "4")):
        ran = project.run("batch", "jsonl", *arguments)
        assert ran.code == 2
        assert " has no effect on a recipe\n" in ran.err
    ran = project.run("batch", "jsonl", "--model", "gpt-6-luna", "--template", "{{ artist_name }}!").ok()
    assert written(project.root)[0]["body"]["input"] == "Björk!", "the project's rows, asked in another way"
    ran = project.run("batch", "jsonl", "-o", "bioforge.toml")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: -o bioforge.toml: this is the project file")


def test_ids_that_the_api_does_not_take() -> None:
    assert custom_id("artist_7-B") == "artist_7-B"
    assert custom_id("a" * 64) == "a" * 64
    odd = ["a" * 65, "a b", "a/b", "Björk", "北斎", "", "x" * 500, "a.b", "a  b"]
    names = [custom_id(name) for name in odd]
    assert len(set(names)) == len(odd)
    assert all(len(name) <= 64 and custom_id(name) == name for name in names)
    assert custom_id("Björk").startswith("bjork-")


def test_a_large_file_is_split(tmp_path: Path) -> None:
    path = tmp_path / "out" / "batch.jsonl"
    for most_lines, most_bytes, sizes in ((2, 1000, [2, 2, 1]), (100, 30, [3, 2]), (5, 50, [5])):
        with Parts(path, most_lines, most_bytes) as parts:
            for number in range(5):
                parts.write(b"line %04d\n" % number)
            found = parts.finish()
        assert [part.lines for part in found] == sizes
        names = ["batch.jsonl"] if len(sizes) == 1 else [f"batch-{n:03d}.jsonl" for n in range(1, len(sizes) + 1)]
        assert [part.path.name for part in found] == names
        content = b"".join(part.path.read_bytes() for part in found)
        assert content == b"".join(b"line %04d\n" % number for number in range(5))
        assert [part.bytes for part in found] == [part.path.stat().st_size for part in found]
    assert not list(path.parent.glob(".bioforge-*"))


def test_what_is_replaced_keeps_its_place(project: ProjectFolder) -> None:
    place = project.root / "real" / "lines.jsonl"
    place.parent.mkdir()
    place.write_text("old")
    place.chmod(0o600)
    (project.root / "link.jsonl").symlink_to(place)
    project.run("batch", "jsonl", "-o", "link.jsonl").ok()
    assert (project.root / "link.jsonl").is_symlink()
    assert place.stat().st_mode & 0o777 == 0o600
    assert len(place.read_text("utf-8").splitlines()) == 4
    project.run("batch", "jsonl", "-o", "/dev/null").ok()
    assert Path("/dev/null").is_char_device()


def test_more_lines_than_a_batch_may_have(project: ProjectFolder) -> None:
    rows = "".join(f"{number},Artist {number}\n" for number in range(50_001))
    project.write("artists.csv", "artist_id,artist_name\n" + rows)
    project.configure(**{"{{ artist_name }}: {{ artist_data }}": "{{ artist_name }}"})
    (project.root / "many-003.jsonl").write_text("old\n")
    ran = project.run("batch", "jsonl", "-o", "many.jsonl").ok()
    assert ran.out == "many-001.jsonl\nmany-002.jsonl\n"
    assert "warning: many-003.jsonl is from an earlier command" in ran.err
    assert not (project.root / "many.jsonl").exists()
    assert [line["custom_id"] for line in written(project.root, "many-002.jsonl")] == ["50000"]
    assert len(written(project.root, "many-001.jsonl")) == 50_000


# -------------------------------------------------------------------------------------------------------------- create


def test_the_mistakes_of_a_file_are_named_and_nothing_is_sent(outside: Outside) -> None:
    write(
        outside.root,
        LINE,
        "{",
        "",
        "[]",
        {**LINE, "custom_id": 7},
        numbered(1),
        numbered(2, method="GET"),
        numbered(3, url="responses"),
    )
    ran = outside.run(*CREATE)
    assert ran.code == 2
    assert ran.err.splitlines() == [
        "error: batch_input.jsonl has 7 mistakes; nothing was sent:",
        "  batch_input.jsonl:2: not JSON: Expecting property name enclosed in double quotes at column 2",
        "  batch_input.jsonl:3: the line is empty",
        "  batch_input.jsonl:4: not a JSON object",
        "  batch_input.jsonl:5: custom_id: expected text, found 7",
        "  batch_input.jsonl:6: custom_id 'r-1' is already used in line 1",
        "  … and 2 more",
        "hint: fix them and try again",
    ]
    assert not (outside.root / "logs").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"method": "GET"}, "method: expected 'POST', found 'GET'"),
        ({"url": "responses"}, "url: expected an endpoint like '/v1/responses', found 'responses'"),
        ({"url": "/v1/embeddings"}, "url: '/v1/embeddings' differs from the batch's endpoint '/v1/responses'"),
        ({"body": None}, "body: expected an object, found nothing"),
        ({"body": {**LINE["body"], "stream": True}}, "body.stream: a batch cannot stream answers"),  # type: ignore[dict-item]
        ({"body": {"model": "other"}}, "body.model: 'other' is not 'gpt-6-luna'; a batch has one model"),
        ({"body": {}}, "body.model: nothing is not 'gpt-6-luna'; a batch has one model"),
    ],
)
def test_a_mistake_in_a_line(outside: Outside, line: dict[str, Any], message: str) -> None:
    write(outside.root, LINE, numbered(2, **line))
    ran = outside.run(*CREATE)
    assert ran.code == 2
    assert f"batch_input.jsonl has 1 mistake; nothing was sent:\n  batch_input.jsonl:2: {message}\n" in ran.err


def test_files_that_are_none(outside: Outside) -> None:
    assert "cannot read batch_input.jsonl: No such file" in outside.run(*CREATE).err
    write(outside.root)
    ran = outside.run(*CREATE)
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: batch_input.jsonl is empty")
    write(outside.root, LINE)
    ran = outside.run(*CREATE, "--endpoint", "/v1/chat/completions")
    assert ran.code == 2
    assert "url: '/v1/responses' differs from the batch's endpoint '/v1/chat/completions'" in ran.err
    with (outside.root / "batch_input.jsonl").open("wb") as stream:
        stream.truncate(209_715_201)
    ran = outside.run(*CREATE)
    assert (ran.code, "209,715,201 bytes exceed the limit of 209,715,200" in ran.err) == (2, True)
    write(outside.root, *(numbered(number) for number in range(50_001)))
    ran = outside.run(*CREATE)
    assert (ran.code, "batch_input.jsonl:50001: more than 50,000 lines" in ran.err) == (2, True)


def test_an_equal_file_is_not_paid_for_twice(outside: Outside, server: Simulator) -> None:
    write(outside.root, LINE)
    batch_id = created(outside)
    ended(outside, batch_id)
    write(outside.root, LINE, name="copy.jsonl")
    ran = outside.run("batch", "create", "--in", "copy.jsonl")
    assert ran.code == 2
    assert ran.err.startswith(f"error: copy.jsonl: {batch_id} (completed) has an equal file; nothing was sent")
    assert len(server.ledger) == 1
    assert created(outside, "--again") != batch_id


def test_a_file_whose_batch_failed_may_be_sent_again(project: ProjectFolder, start: Callable[..., Simulator]) -> None:
    outside = Outside(project, start(batch_script=["failed_validation=1"]).base_url)
    write(outside.root, LINE)
    assert ended(outside, created(outside))["status"] == "failed"
    assert ended(outside, created(outside))["status"] == "completed"


def test_a_creation_that_was_lost_is_adopted(project: ProjectFolder, start: Callable[..., Simulator]) -> None:
    project.server = start(batch_script=["create_lost"])
    project.configure()
    project.run("batch", "jsonl").ok()
    ran = project.run(*CREATE).ok()
    batch_id = ran.out.split()[1]
    assert "warning: the batch may have been created: " in ran.err
    assert f"found: {batch_id}\n" in ran.err
    assert len(json.loads(project.run("batch", "list", "--format", "json").out)) == 1
    assert [line["outcome"] for line in operations(project.root) if line["operation"] == "create"] == ["unclear"]


def test_a_creation_that_failed_is_tried_again(project: ProjectFolder, start: Callable[..., Simulator]) -> None:
    project.server = start(batch_script=["create_refused", "create_refused"])
    project.configure()
    project.run("batch", "jsonl").ok()
    ran = project.run(*CREATE).ok()
    assert ran.err.count("not found; trying again\n") == 2
    assert len(json.loads(project.run("batch", "list", "--format", "json").out)) == 1


def test_a_creation_that_never_works(project: ProjectFolder, start: Callable[..., Simulator]) -> None:
    project.server = start(batch_faults="create_refused")
    project.configure()
    project.run("batch", "jsonl").ok()
    ran = project.run(*CREATE)
    assert ran.code == 1
    file_id = ran.out.strip()
    assert "error: no batch was created in 3 tries: the API refused: " in ran.err
    assert f"look for input_file_id {file_id} or metadata.bioforge hand-" in ran.err
    assert len([line for line in operations(project.root) if line["operation"] == "create"]) == 3


def test_nothing_is_created_again_while_nobody_can_look(project: ProjectFolder, stack: ExitStack) -> None:
    empty = (200, {}, b'{"object": "list", "data": [], "has_more": false}')
    server = stack.enter_context(OddServer(empty, (200, {}, b'{"id": "file-1"}'), None, (503, {}, b"")))
    project.configure(**{project.server.base_url: server.base_url})
    project.run("batch", "jsonl").ok()
    ran = project.run(*CREATE)
    assert (ran.code, ran.out) == (1, "file-1\n")
    assert "error: a batch may have been created for the file file-1: " in ran.err
    assert "hint: look for input_file_id file-1" in ran.err
    assert [(method, path.partition("?")[0]) for method, path, _ in server.asked] == [
        ("GET", "/v1/batches"),
        ("POST", "/v1/files"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches"),
    ]


def test_the_file_of_a_creation_that_is_unclear_stays(project: ProjectFolder, stack: ExitStack) -> None:
    empty = (200, {}, b'{"object": "list", "data": [], "has_more": false}')
    refused = (400, {}, b'{"error": {"message": "no"}}')
    server = stack.enter_context(OddServer(empty, (200, {}, b'{"id": "file-1"}'), None, empty, refused))
    project.configure(**{project.server.base_url: server.base_url})
    project.run("batch", "jsonl").ok()
    ran = project.run(*CREATE)
    assert ran.code == 1
    assert "error: a batch may have been created for the file file-1: the API refused: no (HTTP 400" in ran.err
    assert "DELETE" not in [method for method, _, _ in server.asked]


def test_a_refused_creation_leaves_no_file(outside: Outside, server: Simulator) -> None:
    import httpx2

    write(outside.root, LINE)
    ran = outside.run(*CREATE, "--completion-window", "1h")
    assert ran.code == 1
    assert "error: the API refused: " in ran.err
    assert "'1h' is not '24h'" in ran.err
    files = httpx2.get(f"{server.base_url}/files", headers={"Authorization": "Bearer any"}).json()
    assert files["data"] == []


def test_too_many_tokens_are_enqueued(project: ProjectFolder, start: Callable[..., Simulator]) -> None:
    outside = Outside(project, start(batch_enqueued_tokens=1, batch_token_refusal="create").base_url)
    write(outside.root, LINE)
    ran = outside.run(*CREATE)
    assert ran.code == 1
    assert "hint: wait until other batches of this model have ended" in ran.err


# -------------------------------------------------------------------------------------- status, list, retrieve, cancel


def test_what_goes_on_is_not_retrieved_and_can_be_cancelled(
    project: ProjectFolder, start: Callable[..., Simulator]
) -> None:
    outside = Outside(project, start(batch_seconds=3600).base_url)
    write(outside.root, LINE)
    batch_id = created(outside)
    ran = outside.run("batch", "status", batch_id).ok()
    assert "\n  expires      " in ran.out
    assert "(in " in ran.out
    assert not list(outside.root.glob("results_*"))
    ran = outside.run("batch", "retrieve", batch_id)
    assert ran.code == 1
    assert ran.err.startswith(f"error: {batch_id} is ")
    assert "hint: results are available at its end; `bioforge batch status" in ran.err

    ran = outside.run("batch", "cancel", batch_id).ok()
    assert ran.out == f"{batch_id} cancelling\n"
    assert "this can take up to 10 minutes; 0 of 1 requests are answered so far" in ran.err
    assert ended(outside, batch_id)["status"] == "cancelled"
    ran = outside.run("batch", "cancel", batch_id)
    assert (ran.code, ran.err.splitlines()[0]) == (1, f"error: {batch_id} cannot be cancelled: it is cancelled")
    ran = outside.run("batch", "retrieve", batch_id).ok()
    assert ran.out == f"results_{batch_id}.errors.jsonl\n"
    assert "saved, 1 line (1 cancelled)" in ran.err


def test_why_a_batch_failed(project: ProjectFolder, start: Callable[..., Simulator]) -> None:
    outside = Outside(project, start(batch_script=["failed_validation=2"]).base_url)
    write(outside.root, LINE, numbered(2))
    batch_id = created(outside)
    ended(outside, batch_id)
    ran = outside.run("batch", "status", batch_id)
    assert ran.code == 1
    assert ran.out.startswith(f"{batch_id}: failed\n")
    assert "  1 error:\n    line 2: invalid_json_line: This line is not parseable as valid JSON.\n" in ran.out
    ran = outside.run("batch", "retrieve", batch_id)
    assert (ran.code, ran.err.splitlines()[0]) == (1, f"error: {batch_id} has no result files: it failed")
    record = json.loads(outside.run("batch", "status", batch_id, "--format", "json").out)
    assert record["errors"][0]["line"] == 2


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_an_ending_before_its_time_keeps_what_was_finished(
    project: ProjectFolder, start: Callable[..., Simulator], status: str
) -> None:
    outside = Outside(project, start(batch_script=[f"{status}=0.5"]).base_url)
    write(outside.root, *(numbered(number) for number in range(8)))
    batch_id = created(outside)
    assert ended(outside, batch_id)["status"] == status
    ran = outside.run("batch", "retrieve", batch_id, "-o", "bios").ok()
    assert ran.out == "bios\nbios.errors.jsonl\n"
    answered, not_answered = written(outside.root, "bios"), written(outside.root, "bios.errors.jsonl")
    assert len(answered) + len(not_answered) == 8
    assert f"bios: saved, {len(answered)} lines ({len(answered)} answered)\n" in ran.err
    assert f"bios.errors.jsonl: saved, {len(not_answered)} lines ({len(not_answered)} {status})\n" in ran.err


def test_missing_and_doubled_lines_are_counted(project: ProjectFolder, start: Callable[..., Simulator]) -> None:
    outside = Outside(project, start(batch_script=["lines_missing=0.5+lines_duplicated=0.5"]).base_url)
    write(outside.root, *(numbered(number) for number in range(20)))
    batch_id = created(outside)
    ended(outside, batch_id)
    ran = outside.run("batch", "retrieve", batch_id).ok()
    names = [line["custom_id"] for line in written(outside.root, f"results_{batch_id}.jsonl")]
    assert len(set(names)) < 20
    assert f"warning: the batch counts 20 requests, and {len(set(names))} lines came back\n" in ran.err
    assert f"{len(names) - len(set(names))} duplicated" in ran.err


def test_a_download_that_is_cut_off_is_made_good(project: ProjectFolder, start: Callable[..., Simulator]) -> None:
    outside = Outside(project, start(batch_script=["download_truncated"]).base_url)
    write(outside.root, LINE)
    batch_id = created(outside)
    ended(outside, batch_id)
    ran = outside.run("batch", "retrieve", batch_id)
    assert ran.code == 1
    assert ran.err.startswith("error: the call failed: ")
    assert "hint: run it again; nothing is lost\n" in ran.err
    assert not list(outside.root.glob("results_*"))
    outside.run("batch", "retrieve", batch_id).ok()
    place = outside.root / f"results_{batch_id}.jsonl"
    whole = place.read_bytes()
    place.write_bytes(whole[:10])
    assert ": saved, 1 line" in outside.run("batch", "status", batch_id).ok().err
    assert place.read_bytes() == whole


def test_lists_are_short_unless_asked(outside: Outside) -> None:
    assert outside.run("batch", "list").ok().err == "no batches\n"
    assert json.loads(outside.run("batch", "list", "--format", "json").ok().out) == []
    write(outside.root, LINE)
    ids = [created(outside, "--again") for _ in range(3)]
    ran = outside.run("batch", "list", "--limit", "2").ok()
    assert [line.split()[0] for line in ran.out.splitlines()] == ["batch", ids[2], ids[1]]
    assert ran.err == "there are more batches: --limit N or --all shows them\n"
    ran = outside.run("batch", "list", "--all", "--format", "json").ok()
    assert [record["id"] for record in json.loads(ran.out)] == ids[::-1]
    assert outside.run("batch", "list", "--limit", "3").ok().err == ""


# ---------------------------------------------------------------------------------------------------- what goes wrong


def test_an_id_that_is_none(outside: Outside) -> None:
    for command in ("status", "retrieve", "cancel"):
        ran = outside.run("batch", command, "batch_unknown")
        assert ran.code == 1
        assert ran.err.startswith("error: the API refused: No batch found with id 'batch_unknown'. (HTTP 404, ")
        assert "hint: check the id (`bioforge batch list`)" in ran.err
        ran = outside.run("batch", command, "../secrets")
        assert (ran.code, ran.err.splitlines()[0]) == (2, "error: '../secrets' is not the id of a batch")


def test_results_go_to_a_file_that_may_be_written(project: ProjectFolder) -> None:
    for place in ("-", "."):
        ran = project.run("batch", "retrieve", "batch_1", "-o", place)
        assert (ran.code, ran.err.splitlines()[0]) == (2, f"error: -o {place}: expected the name of a file")
    ran = project.run("batch", "retrieve", "batch_1", "-o", "artists.csv")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: -o artists.csv: this is the input")


def test_a_key_is_needed(outside: Outside) -> None:
    for url in ("", "https://api.example.com/v1"):
        ran = outside.run("batch", "list", OPENAI_BASE_URL=url, OPENAI_API_KEY="")
        assert ran.code == 2
        assert ran.err.startswith(f"error: no API key for {url or 'https://api.openai.com/v1'}: OPENAI_API_KEY is not")
    (outside.root / ".env").write_text("OPENAI_API_KEY=key-of-a-file\n")
    outside.run("batch", "list", OPENAI_API_KEY="").ok()


def test_addresses_that_cannot_be_meant(outside: Outside) -> None:
    ran = outside.run("batch", "list", OPENAI_BASE_URL="api.openai.com")
    assert (ran.code, "OPENAI_BASE_URL: expected 'simulator' or an http(s) URL" in ran.err) == (2, True)
    ran = outside.run("batch", "list", OPENAI_BASE_URL="simulator")
    assert (ran.code, "the simulator needs a project" in ran.err) == (2, True)
    ran = outside.run("batch", "list", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert (ran.code, ran.err.startswith("error: the API cannot be reached: ")) == (1, True)


def test_the_projects_provider_is_used_from_elsewhere(project: ProjectFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = ProjectFolder(elsewhere, project.server)
    (elsewhere / "bioforge.toml").write_text("this is no TOML")
    assert other.run("batch", "list").code == 2
    assert other.run("batch", "list", "-f", str(project.root)).ok().err == "no batches\n"


def test_every_call_is_logged_without_secrets(project: ProjectFolder, stack: ExitStack, outside: Outside) -> None:
    write(outside.root, LINE)
    batch_id = created(outside)
    logged = operations(outside.root)
    assert [(line["command"], line["operation"], line["outcome"]) for line in logged] == [
        ("batch create", "list", "ok"),
        ("batch create", "upload", "ok"),
        ("batch create", "create", "ok"),
    ]
    assert logged[2]["batch_id"] == batch_id
    assert logged[2]["file_id"] == logged[1]["file_id"]
    assert time.strftime("%Y-%m-%d") in logged[0]["time"]
    assert all(line["seconds"] >= 0 for line in logged)

    refusal = json.dumps({"error": {"message": f"wrong key {KEY}", "code": f"bad_{KEY}"}}).encode()
    server = stack.enter_context(OddServer((401, {}, refusal)))
    ran = outside.run("batch", "list", "--log-file", "calls.log", OPENAI_BASE_URL=server.base_url)
    assert ran.code == 1
    assert "wrong key [key]" in ran.err
    text = (outside.root / "calls.log").read_text()
    assert KEY not in text + ran.err + ran.out
    line = json.loads(text)
    assert (line["outcome"], line["error_class"], line["http_status"]) == ("failed", "authentication", 401)


def test_a_log_that_cannot_be_written_is_a_warning(outside: Outside) -> None:
    (outside.root / "logs").write_text("in the way")
    write(outside.root, LINE)
    ran = outside.run(*CREATE).ok()
    assert ran.err.count("warning: the log logs/batch-") == 1


def test_the_commands_as_a_process(project: ProjectFolder) -> None:
    project.command("batch", "jsonl").ok()
    batch_id = project.process(*CREATE).ok().out.split()[1]
    assert project.command("batch", "status", batch_id, "--no-auto-save").ok().out.startswith(f"{batch_id}: ")
    assert ENVIRONMENT["OPENAI_API_KEY"] not in "".join(path.read_text() for path in project.root.glob("logs/*"))


@pytest.mark.parametrize(
    ("text", "arguments", "hint"),
    [
        ("id,name\n1,Björk\n", (), "name the columns: --columns artist_id=id --columns artist_name=name"),
        ("id,name\n1,Björk\n", ("--columns", "artist_name=nam"), "did you mean 'name'?"),
        ('{"id": 1}\n', (), "these are JSON lines: give the file the suffix .jsonl"),
        ("id;name\n1;Björk\n", (), "another delimiter? Save the file with commas, or as .tsv with tabs"),
    ],
)
def test_hints_about_a_file_name_flags_and_no_project(
    outside: Outside, text: str, arguments: tuple[str, ...], hint: str
) -> None:
    (outside.root / "rows.csv").write_text(text, "utf-8")
    ran = outside.run("batch", "jsonl", "--in", "rows.csv", "--model", "m", "--template", "x", *arguments)
    assert (ran.code, ran.err.splitlines()[-1]) == (2, f"hint: {hint}")
    assert "[input]" not in ran.err
