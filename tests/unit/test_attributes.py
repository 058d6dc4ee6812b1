"""Declared attributes: which declarations there are, and which values are of a type."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from indexer.documents import Content
from indexer.engines.local import Pipeline
from indexer.errors import ConfigurationUnusable
from indexer.index.attributes import INTEGER_MAX, declared_types, exact, typed
from indexer.index.records import AttributeType
from indexer.plan import Planner
from indexer.report import DONE_IN_PART
from indexer.run import Rules, Run
from indexer.sources import Configuration, load_configuration
from indexer.verify import verify
from tests.unit.index_fakes import FakeDocuments, FakeEncoder, FakeWriter, tools


class Described(msgspec.Struct, frozen=True):
    """A document with attributes."""

    name: str
    attributes: dict[str, Any]
    tenant: str = "default"

    @property
    def uri(self) -> str:
        return f"fake:///{self.name}"

    def read(self, known_version: str = "") -> Content | None:  # noqa: ARG002  # of the interface
        return Content(data=b"Text.", format=".md", attributes=self.attributes)


def load(folder: Path, declaration: str) -> Configuration:
    file = folder / "sources.toml"
    file.write_text(f"{declaration}\n[[source]]\nlocation = 'docs'")
    return load_configuration(file, "default")


def test_a_declaration_is_in_the_order_of_names(tmp_path: Path) -> None:
    text = (
        "[attributes]\nyear = 'integer'\nprice = 'number'\npublic = 'boolean'\n"
        "'größe-1.x' = 'string'"
    )

    declared = load(tmp_path, text).attributes

    assert list(declared.items()) == [
        ("größe-1.x", "string"),
        ("price", "number"),
        ("public", "boolean"),
        ("year", "integer"),
    ]
    assert load(tmp_path, "").attributes == {}


@pytest.mark.parametrize(
    ("declaration", "told"),
    [
        ("attributes = 3", "attributes: it is no table of names and types"),
        (
            "[attributes]\nyear = 'int'",
            "attributes: year is 'int', which is none of string, integer, number, boolean",
        ),
        ("[attributes]\ntags = ['string']", "attributes: tags is ['string'], which is none of"),
        ("[attributes]\na.b = 'string'", "attributes: a is {'b': 'string'}, which is none of"),
        ("[attributes]\n'a b' = 'string'", "attributes: 'a b' is no name: letters, digits,"),
        ("[attributes]\n'' = 'string'", "attributes: '' is no name"),
        ("[attributes]\n'a\"][\"b' = 'string'", "attributes: 'a\"][\"b' is no name"),
        ("[attributes]\n\"a\\nb\" = 'string'", "attributes: 'a\\nb' is no name"),
        (f"[attributes]\n{'a' * 65} = 'string'", f"attributes: '{'a' * 59}… is no name"),
        (
            "[attributes]\n" + "\n".join(f"a{number} = 'string'" for number in range(17)),
            "attributes: 17 are declared, 16 are the most",
        ),
        ("[attribute]\na = 'string'", "attribute is no field, did you mean attributes?"),
    ],
)
def test_a_wrong_declaration_is_told_by_name(tmp_path: Path, declaration: str, told: str) -> None:
    with pytest.raises(ConfigurationUnusable) as refused:
        load(tmp_path, declaration)

    assert str(refused.value).startswith(f"{tmp_path}/sources.toml: {told}")
    assert "\n" not in str(refused.value)


def test_as_much_as_openai_allows_is_allowed() -> None:
    table = {f"{number:02d}{'a' * 62}": "string" for number in range(16)}

    assert declared_types(table) == table


@pytest.mark.parametrize(
    ("value", "kind", "stored"),
    [
        ("2020", "integer", 2020),
        ("-7", "integer", -7),
        (2020.0, "integer", 2020),
        (INTEGER_MAX, "integer", INTEGER_MAX),
        (str(-INTEGER_MAX), "integer", -INTEGER_MAX),
        (2020, "number", 2020.0),
        ("2020", "number", 2020.0),
        ("-1.5e3", "number", -1500.0),
        (-0.0, "number", 0.0),
        (10**18, "number", 1e18),
        ("true", "boolean", True),
        ("False", "boolean", False),
        (False, "boolean", False),
        (7, "string", "7"),
        ("2024-05-01", "string", "2024-05-01"),
        ("", "string", ""),
        ("x" * 512, "string", "x" * 512),
        ("007", "string", "007"),
    ],
)
def test_a_value_is_converted_where_nothing_is_lost(
    value: Any, kind: AttributeType, stored: Any
) -> None:
    found = typed({"a": value}, {"a": kind})["a"]

    assert found == stored
    assert type(found) is type(stored)
    assert not isinstance(found, float) or math.copysign(1, found) == math.copysign(1, stored)
    # What is stored is what a filter may say of it.
    assert exact(stored, kind) == stored


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        ("MMXX", "integer", "attribute 'a' is 'MMXX', which is no integer"),
        ("007", "integer", "attribute 'a' is '007', which is no integer"),
        ("٣", "integer", "attribute 'a' is '٣', which is no integer"),
        (" 1", "integer", "attribute 'a' is ' 1', which is no integer"),
        (1.5, "integer", "attribute 'a' is 1.5, which is no integer"),
        (True, "integer", "attribute 'a' is True, which is no integer"),
        (2**53, "integer", f"attribute 'a' is {2**53}, which is beyond {2**53 - 1}: what is so"),
        ("9" * 5_000, "integer", f"attribute 'a' is '{'9' * 59}…, which is beyond"),
        (float("inf"), "integer", "attribute 'a' is inf, which is no integer"),
        ([2020], "integer", "attribute 'a' is [2020], which is no integer"),
        ({"b": 1}, "string", "attribute 'a' is {'b': 1}, which is no string"),
        (False, "number", "attribute 'a' is False, which is no number"),
        (float("nan"), "number", "attribute 'a' is nan, which is no finite number"),
        ("1e999", "number", "attribute 'a' is '1e999', which is no finite number"),
        (10**400, "number", "attribute 'a' is 1000"),
        (2**53 + 1, "number", f"attribute 'a' is {2**53 + 1}, which a number of 64 bits does not"),
        ("nan", "number", "attribute 'a' is 'nan', which is no number"),
        ("yes", "boolean", "attribute 'a' is 'yes', which is no boolean"),
        (1, "boolean", "attribute 'a' is 1, which is no boolean"),
        (1.1, "string", "attribute 'a' is 1.1, which is no string"),
        (False, "string", "attribute 'a' is False, which is no string"),
        ("x" * 513, "string", f"attribute 'a' is '{'x' * 59}…, which is longer than 512"),
        ("\ud800", "string", r"attribute 'a' is '\ud800', which is no valid Unicode"),
        ("a\nb", "number", r"attribute 'a' is 'a\nb', which is no number"),
    ],
)
def test_another_value_is_refused_with_name_value_and_type(
    value: Any, kind: AttributeType, told: str
) -> None:
    with pytest.raises(ValueError, match=r"^attribute 'a' is ") as refused:
        typed({"a": value}, {"a": kind})

    assert str(refused.value).startswith(told)
    assert "\n" not in str(refused.value)


def test_what_is_not_declared_stays_and_null_is_no_value() -> None:
    said = {"year": None, "tags": ["a", None], "note": None, "day": "3"}

    assert typed(said, {"year": "integer", "day": "integer", "other": "string"}) == {
        "tags": ["a", None],
        "note": None,
        "day": 3,
    }
    assert said["day"] == "3"


def test_a_document_of_another_type_is_skipped_with_its_reason_by_whatever_looks_at_it() -> None:
    writer, encoder = FakeWriter(), FakeEncoder()
    documents = FakeDocuments(
        [Described("a.md", {"year": "2020"}), Described("b.md", {"year": "MMXX"})]
    )
    reason = ("b.md", "attribute 'year' is 'MMXX', which is no integer")

    def run(attributes: dict[str, AttributeType], **said: Any) -> list[tuple[str, str]]:
        rules = Rules(tenants=["default"], default_tenant="default", **said)
        used = tools(writer, encoder)
        fingerprint = msgspec.structs.replace(used.fingerprint, attributes=attributes)
        used = msgspec.structs.replace(used, fingerprint=fingerprint)
        planned = Planner(used, rules).make(documents)
        with writer.lease(60) as lease:
            job = Run(used, Pipeline(used), rules, search=lambda _: lambda *_: [])
            report = job.execute(documents, run=lease.run)
        published = writer.published()
        assert published is not None
        if published.fingerprint == fingerprint:
            verified = verify(used, published, documents, ["default"])
            assert (verified.drifts, verified.skipped) == ([], report.skipped)
        assert planned.skipped == report.skipped
        assert planned.exit_code == (DONE_IN_PART if report.skipped else 0)
        return report.skipped

    assert run({}) == []
    assert [row.attributes for row in writer.rows()] == [{"year": "2020"}, {"year": "MMXX"}]
    encoded = len(encoder.calls)

    # Another declaration is another generation, of the same vectors.
    assert run({"year": "string"}) == []
    assert writer.alias == "kb__g2"
    # Half of the documents are too few to publish.
    assert run({"year": "integer"}) == [reason]
    assert writer.alias == "kb__g2"
    assert run({"year": "integer"}, allow_mass_deletion=True) == [reason]
    assert [row.attributes for row in writer.rows()] == [{"year": 2020}]
    assert len(encoder.calls) == encoded
