"""What a recipe says about its schema: a file or a model, its hashes, and a sentence for every mistake."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic import BaseModel

from bioforge.core.errors import ConfigError
from bioforge.recipes.schema import Invalid, Schema, Valid, from_model, load_schema
from bioforge.recipes.schema.sources import reachable_source

BIO = {"type": "object", "properties": {"born": {"type": "integer"}}, "required": ["born"]}
MODEL = """
    from pydantic import BaseModel

    class Bio(BaseModel):
        born: int
"""

Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(content) if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return written


@pytest.fixture(autouse=True)
def _forgotten_modules(tmp_path: Path) -> Iterator[None]:
    """Modules of one test's folder are not those of the next."""
    known = set(sys.modules)
    path = list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(
            getattr(sys.modules[name], "__file__", "") or getattr(sys.modules[name], "__path__", "")
        ):
            del sys.modules[name]


def refusal(text: str, root: Path) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_schema(text, root)
    return caught.value.message.replace(str(root.resolve()), "ROOT"), caught.value.hint.replace(str(root), "ROOT")


# Files


def test_a_file_is_named_after_itself(tmp_path: Path, write: Write) -> None:
    write("schemas/artist bio (v2).json", BIO)
    schema = load_schema("schemas/artist bio (v2).json", tmp_path)
    assert (schema.name, schema.source) == ("artist_bio_v2", "schemas/artist bio (v2).json")
    assert schema.model is None
    assert schema.generation["additionalProperties"] is False
    assert schema.validate('{"born": 1879}') == Valid({"born": 1879}, {"born": 1879})


@pytest.mark.parametrize(("stem", "name"), [("x" * 99, "x" * 64), ("生", "answer"), ("bio.schema", "bio_schema")])
def test_a_name_is_one_the_api_takes(tmp_path: Path, write: Write, stem: str, name: str) -> None:
    write(f"{stem}.json", BIO)
    assert load_schema(f"{stem}.json", tmp_path).name == name


def test_a_file_anywhere_can_be_named_by_its_full_path(tmp_path: Path, write: Write) -> None:
    path = write("elsewhere/bio.json", BIO)
    assert load_schema(str(path), tmp_path / "project").name == "bio"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ('{"type" "object"}', "not JSON: Expecting ':' delimiter (line 1, column 9)", ""),
        ("", "not JSON: Expecting value (line 1, column 1)", ""),
        ('{"type": "object", "type": "array"}', '"type" appears twice', ""),
        ('{"default": NaN}', "not JSON: NaN is not a JSON number", ""),
        ("[1]", "expected a JSON Schema, which is an object, found [1]", ""),
        (
            {"name": "bio", "strict": True, "schema": BIO},
            "this is a schema inside the request parameter of the API",
            'keep only the value of "schema"',
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "bio", "schema": BIO}},
            "this is a schema inside the request parameter of the API",
            'keep only the value of "schema"',
        ),
        (
            {**BIO, "properties": {"born": {"type": "intger"}}},
            'properties.born.type: not a JSON Schema: "intger" is not a type',
            "did you mean 'integer'?",
        ),
        (
            {**BIO, "properties": {"born": {"type": ["integer", "nul"]}}},
            'properties.born.type: not a JSON Schema: ["integer", "nul"] is not a type',
            "types are: string, number, integer, boolean, object, array, null",
        ),
        ({**BIO, "required": "born"}, 'required: not a JSON Schema: expected array, found "born"', ""),
        (
            {**BIO, "properties": {"born": {"type": "string", "pattern": "("}}},
            'properties.born.pattern: not a JSON Schema: "(" is not a regular expression',
            "",
        ),
        ({**BIO, "requird": []}, "requird: unknown keyword", "did you mean 'required'?"),
        (
            {**BIO, "properties": {"born": {"type": "integer", "nullable": True}}},
            "properties.born.nullable: not a JSON Schema keyword",
            'write "type": ["string", "null"]',
        ),
        (
            {**BIO, "properties": {"born": {"$id": "https://example.org", "type": "integer"}}},
            "properties.born.$id: a separate schema inside another is not supported",
            "remove it",
        ),
        (
            {**BIO, "$schema": "http://json-schema.org/draft-04/schema#"},
            '$schema: unknown dialect "http://json-schema.org/draft-04/schema#"',
            "known are: http://json-schema.org/draft-06/schema, http://json-schema.org/draft-07/schema,"
            " https://json-schema.org/draft/2019-09/schema, https://json-schema.org/draft/2020-12/schema",
        ),
        (
            {**BIO, "properties": {"born": {"$ref": "year.json"}}},
            "properties.born.$ref: \"year.json\": only references within the document are supported, like '#/$defs/work'",
            "",
        ),
        (
            {**BIO, "properties": {"born": {"type": "array", "items": BIO, "contains": {"$ref": "#/$defs/year"}}}},
            'properties.born.contains.$ref: "#/$defs/year": the document has no such part',
            "",
        ),
        ({**BIO, "not": {}}, "not: strict structured outputs have no 'not'", 
         "describe the allowed values instead, or check it in a pydantic model"),
    ],
)  # fmt: skip
def test_a_file_with_a_mistake_says_which(tmp_path: Path, write: Write, content: Any, message: str, hint: str) -> None:
    write("schemas/bio.json", content)
    assert refusal("schemas/bio.json", tmp_path) == (f"schemas/bio.json: {message}", hint)


def test_a_file_that_is_not_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "bio.json").write_bytes(b'{"title": "\xff"}')
    assert refusal("bio.json", tmp_path) == ("bio.json: not UTF-8", "")


def test_annotations_of_ones_own_are_no_mistake(tmp_path: Path, write: Write) -> None:
    write("bio.json", {**BIO, "x-requird": 1, "unit": "cm"})
    assert load_schema("bio.json", tmp_path).generation["required"] == ["born"]


@pytest.mark.parametrize(
    "dialect", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"]
)
def test_the_dialect_is_the_one_the_file_names(tmp_path: Path, write: Write, dialect: str) -> None:
    write(
        "bio.json",
        {
            **BIO,
            "$schema": dialect,
            "properties": {"born": {"$ref": "#/$defs/year", "minimum": 1}},
            "$defs": {"year": {"type": "integer"}},
        },
    )
    # what stands beside a reference did not count before 2019
    assert isinstance(load_schema("bio.json", tmp_path).validate('{"born": 0}'), Valid if "07" in dialect else Invalid)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("schemas/bios.json", "schemas/bios.json: no such file", "did you mean 'schemas/bio.json'?"),
        ("bio.json", "bio.json: no such file", "did you mean 'schemas/bio.json'?"),
        ("far/off/nothing.json", "far/off/nothing.json: no such file", ""),
        ("schemas/", "schemas/: is a folder, expected a file", "did you mean 'schemas/bio.json'?"),
        (
            "models.Bio",
            "'models.Bio' is not a schema: expected a JSON Schema file, like \"schemas/bio.json\", or a pydantic model, like"
            ' "package.module:Model"',
            "did you mean 'models:Bio'?",
        ),
        (
            "",
            "'' is not a schema: expected a JSON Schema file, like \"schemas/bio.json\", or a pydantic model, like"
            ' "package.module:Model"',
            "",
        ),
    ],
)
def test_what_is_not_there_is_named_with_its_neighbour(
    tmp_path: Path, write: Write, text: str, message: str, hint: str
) -> None:
    write("schemas/bio.json", BIO)
    assert refusal(text, tmp_path) == (message, hint)


# Models


def test_a_model_of_the_project_folder_is_imported_only_for_that(tmp_path: Path, write: Write) -> None:
    write("people/bios.py", MODEL)
    schema = load_schema("people.bios:Bio", tmp_path)
    assert (schema.name, schema.source) == ("Bio", "people.bios:Bio")
    assert str(tmp_path) not in sys.path
    verdict = schema.validate('{"born": 1879}')
    assert isinstance(verdict, Valid)
    assert schema.model is not None
    assert isinstance(verdict.value, schema.model)


def test_a_model_inside_a_class_can_be_named(tmp_path: Path, write: Write) -> None:
    write(
        "models.py",
        """
        from pydantic import BaseModel

        class Answers:
            class Bio(BaseModel):
                born: int
        """,
    )
    assert load_schema("models:Answers.Bio", tmp_path).name == "Bio"


def test_two_projects_may_call_their_modules_the_same(tmp_path: Path, write: Write) -> None:
    write("one/models.py", MODEL)
    write("two/models.py", MODEL.replace("born", "died"))
    first = load_schema("models:Bio", tmp_path / "one")
    assert load_schema("models:Bio", tmp_path / "two").generation["required"] == ["died"]
    again = load_schema("models:Bio", tmp_path / "one")
    assert again.model is first.model
    assert again == first


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("modles:Bio", "modles:Bio: no such module 'modles'", "did you mean 'models'?"),
        ("people.bois:Bio", "people.bois:Bio: no such module 'people.bois'", "did you mean 'people.bios'?"),
        ("zzz:Bio", "zzz:Bio: no such module 'zzz'", "the import path starts with ROOT"),
        ("models:Boi", "models:Boi: models has no 'Boi'", "did you mean 'Bio'?"),
        ("models:Zzz", "models:Zzz: models has no 'Zzz'", "there is: Bio, Recursive, Callback"),
        ("models:Bio.zzz", "models:Bio.zzz: models.Bio has no 'zzz'", ""),
        (
            "models:helper",
            "models:helper: a function, expected a pydantic model",
            "a class that derives from pydantic.BaseModel",
        ),
        (
            "models:Plain",
            "models:Plain: the class Plain, expected a pydantic model",
            "a class that derives from pydantic.BaseModel",
        ),
        ("models:KNOWN", "models:KNOWN: a Bio, expected a pydantic model", "a class that derives from pydantic.BaseModel"),
        (
            "models:BaseModel",
            "models:BaseModel: pydantic.BaseModel itself has no fields",
            "name a class that derives from it",
        ),
        ("models:Recursive", "models:Recursive: `Recursive` is not fully defined; you should define `Missing`, then call"
         " `Recursive.model_rebuild()`.", ""),
        ("broken:Bio", "broken:Bio: importing broken failed in broken.py, line 3: ZeroDivisionError: division by zero", ""),
        ("deep:Bio", "deep:Bio: importing deep failed in broken.py, line 3: ZeroDivisionError: division by zero", ""),
        ("wrong:Bio", "wrong:Bio: importing wrong failed in wrong.py, line 3: SyntaxError: '(' was never closed", ""),
        (
            "needy:Bio",
            "needy:Bio: importing needy failed in needy.py, line 2: ModuleNotFoundError: No module named 'no_such_thing'",
            "",
        ),
        ("leaving:Bio", "leaving:Bio: importing leaving failed in leaving.py, line 2: SystemExit: 3", ""),
    ],
)  # fmt: skip
def test_a_model_with_a_mistake_says_which(tmp_path: Path, write: Write, text: str, message: str, hint: str) -> None:
    write(
        "models.py",
        """
        from typing import Callable
        from pydantic import BaseModel

        class Bio(BaseModel):
            born: int

        class Recursive(BaseModel):
            other: "Missing"

        class Callback(BaseModel):
            call: Callable[[], int]

        class Plain:
            pass

        def helper(): ...

        KNOWN = Bio(born=1879)
        """,
    )
    write("people/bios.py", MODEL)
    write("broken.py", "\ndef value():\n    return 1 / 0\n\nBORN = value()\n")
    write("deep.py", "\nimport broken\n")
    write("wrong.py", "\n\nprint(\n")
    write("needy.py", "\nimport no_such_thing\n")
    write("leaving.py", "\nraise SystemExit(3)\n")
    found = refusal(text, tmp_path)
    assert found == (message, hint)


def test_a_field_that_json_does_not_know_is_named(tmp_path: Path, write: Write) -> None:
    write(
        "models.py",
        """
        from typing import Callable
        from pydantic import BaseModel

        class Bio(BaseModel):
            call: Callable[[], int]
        """,
    )
    assert refusal("models:Bio", tmp_path)[0].startswith("models:Bio: a field has no JSON Schema: Cannot generate")


# Hashes


def file_hashes(tmp_path: Path, write: Write, document: Any) -> tuple[str, str]:
    write("bio.json", document)
    schema = load_schema("bio.json", tmp_path)
    return schema.generation_hash, schema.validation_hash


def test_a_released_hash_never_changes(tmp_path: Path, write: Write) -> None:
    """Answers were paid for under it."""
    assert file_hashes(tmp_path, write, BIO) == (
        "v1:b28af4779ef01e80495613cc62af30d032e2f73bb0c4d9586c43cba5ae5ecbc6",
        "v2:cc7b10d7f79b71760cd2eb18786457063f4831dfef5aca764c5510c3fb59b744",
    )


def test_what_is_sent_and_what_is_checked_change_on_their_own(tmp_path: Path, write: Write) -> None:
    generation, validation = file_hashes(tmp_path, write, BIO)
    narrower = {**BIO, "properties": {"born": {"type": "integer", "title": "Year"}}, "maxProperties": 1}
    assert file_hashes(tmp_path, write, narrower)[0] == generation
    assert file_hashes(tmp_path, write, narrower)[1] != validation
    described = {**BIO, "properties": {"born": {"type": "integer", "description": "A year"}}}
    assert file_hashes(tmp_path, write, described)[0] != generation
    assert file_hashes(tmp_path, write, dict(reversed(BIO.items()))) == (generation, validation)


def test_the_order_of_properties_is_part_of_what_is_sent(tmp_path: Path, write: Write) -> None:
    properties = {"a": {"type": "string"}, "b": {"type": "string"}}
    one = file_hashes(tmp_path, write, {"type": "object", "properties": properties})
    other = file_hashes(tmp_path, write, {"type": "object", "properties": dict(reversed(properties.items()))})
    assert one[0] != other[0]
    assert one[1] == other[1]


RICH = """
    import re
    from typing import Annotated

    from pydantic import AfterValidator, BaseModel, field_validator

    import archive.checks
    from archive.base import Dated
    from .base import Name as Label
    from .more import *

    UNUSED = 1
    LATEST = 2100

    def check(year: int) -> int:
        return limit(year)

    def limit(year: int) -> int:
        assert year <= LATEST
        return year

    Year = Annotated[int, AfterValidator(check)]

    class Work(BaseModel):
        year: Year
        title: Label
        place: Place

    class Bio(Dated):
        works: list["Work"]

        @field_validator("works")
        @classmethod
        def some(cls, works):
            return archive.checks.some(works)

    class Other(BaseModel):
        x: int
"""
BASE = """
    from typing import Annotated
    from pydantic import AfterValidator, BaseModel

    def not_empty(text: str) -> str:
        assert text
        return text

    Name = Annotated[str, AfterValidator(not_empty)]

    class Dated(BaseModel):
        born: int
"""
MORE = """
    Place = str
    ALSO_UNUSED = 1
"""
CHECKS = """
    def some(works):
        assert works
        return works
"""


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("models", 'list["Work"]', "list['Work']", True),
        ("models", "def some(cls, works):", "def some(cls, works):  # more", True),
        ("models", "return limit(year)", "return limit(year) + 0", True),
        ("models", "assert year <= LATEST", "assert year < LATEST", True),
        ("models", "LATEST = 2100", "LATEST = 2200", True),
        ("base", "assert text", "assert text.strip()", True),
        ("base", "class Dated(BaseModel):", "class Dated(BaseModel):  # more", True),
        ("checks", "assert works", "assert len(works) > 1", True),
        ("more", "Place = str", "Place = (str)", True),
        ("more", "ALSO_UNUSED = 1", "ALSO_UNUSED = 2", False),
        ("models", "    UNUSED = 1", "    UNUSED = 2", False),
        ("models", "x: int", "x: str", False),
        ("models", "    import re\n", "", False),
    ],
)
def test_a_changed_validator_changes_the_validation_and_nothing_else(
    tmp_path: Path, write: Write, file: str, old: str, new: str, changes: bool
) -> None:
    texts = {"models": RICH, "base": BASE, "checks": CHECKS, "more": MORE}
    schemas: list[Schema] = []
    for number, changed in enumerate([texts, {**texts, file: texts[file].replace(old, new)}]):
        assert number == 0 or changed != texts
        for name, text in changed.items():
            write(f"{number}/archive/{name}.py", text)
        schemas.append(load_schema("archive.models:Bio", tmp_path / str(number)))
    assert schemas[0].generation_hash == schemas[1].generation_hash
    assert (schemas[0].validation_hash != schemas[1].validation_hash) is changes


def test_helpers_in_a_module_beside_it_belong_to_a_model_and_installed_ones_do_not(
    tmp_path: Path, write: Write
) -> None:
    bio = """
        from typing import Generic, TypeVar
        from pydantic import BaseModel, field_validator
        from checks import check

        T = TypeVar("T")

        class Page(BaseModel, Generic[T]):
            items: list[T]

        class Bio(BaseModel):
            born: int
            some = field_validator("born")(check)

        BioPage = Page[Bio]
    """
    hashes = set()
    for number, text in enumerate(["    return year\n", "    return year + 1\n"]):
        write(f"{number}/models.py", bio)
        write(f"{number}/checks.py", f"def check(year):\n{text}")
        sys.modules.pop("checks", None)
        hashes |= {load_schema(f"models:{name}", tmp_path / str(number)).validation_hash for name in ("Bio", "BioPage")}
    assert len(hashes) == 4
    sys.modules.pop("checks", None)
    assert load_schema("models:BioPage", tmp_path / "0").name == "Page_Bio"
    assert not any(
        "class BaseModel" in text for text in reachable_source(load_schema("models:Bio", tmp_path / "0").model)
    )


def test_a_model_without_source_is_told_by_its_json_schema() -> None:
    made: dict[str, Any] = {"__name__": "made_up"}
    for kind in ("int", "str", "int"):
        exec(f"from pydantic import BaseModel\nclass Bio(BaseModel):\n    born: {kind}\n", made)
        made[kind + "s"] = [*made.get(kind + "s", []), from_model(made["Bio"]).validation_hash]
    assert made["ints"][0] == made["ints"][1] != made["strs"][0]


def test_a_schema_can_be_kept_in_sets_and_compared() -> None:
    class Bio(BaseModel):
        born: float = float("nan")

    assert {from_model(Bio), from_model(Bio)} == {from_model(Bio)}
