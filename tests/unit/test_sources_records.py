"""Which documents a file of records holds, and what broken lines in it cost."""

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from indexer.documents import Content, SourceDocument
from indexer.errors import DocumentUnusable, SourceUnusable
from indexer.sources import Listing, Source


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where files of records are: here, or behind fsspec."""
    if request.param == "local":
        yield str(tmp_path)
    else:
        yield "memory://records"
        fsspec.filesystem("memory").store.clear()


def write(location: str, data: bytes) -> None:
    with fsspec.open(location, "wb") as file:
        file.write(data)


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def listed(location: str, data: bytes, **fields: Any) -> list[SourceDocument]:
    write(location, data)
    listing = Listing([Source(location=location, **fields)])
    documents = list(listing)
    assert listing.failures == []
    return documents


def read(document: SourceDocument) -> Content:
    content = document.read()
    assert content is not None
    return content


def problem(document: SourceDocument) -> str:
    with pytest.raises(DocumentUnusable) as unusable:
        document.read()
    return str(unusable.value)


def test_each_line_is_one_document(folder: str) -> None:
    found = listed(
        f"{folder}/a.jsonl",
        lines({"id": "x/1", "title": "X", "text": "one"}, {"_id": 2, "text": "two", "year": 1}),
    )

    uri = "file://" + folder if folder.startswith("/") else folder
    assert [document.uri for document in found] == [
        f"{uri}/a.jsonl#x%2F1",
        f"{uri}/a.jsonl#2",
    ]
    assert found[0].name.endswith("/a.jsonl#x/1")
    assert read(found[0]) == Content(data=b"one", format=".txt", title="X")
    assert read(found[1]) == Content(data=b"two", format=".txt")


@pytest.mark.parametrize("name", ["a.ndjson", "A.JSONL", "a.jsonl.gz", "a.ndjson.GZ"])
def test_files_of_records_have_several_names(folder: str, name: str) -> None:
    data = lines({"text": "one"}, {"text": "two"})

    found = listed(f"{folder}/{name}", gzip.compress(data) if "z" in name.lower() else data)

    assert [read(document).data for document in found] == [b"one", b"two"]


def test_fields_have_the_names_that_the_source_says(tmp_path: Path) -> None:
    record = {"body": "# one", "name": "N", "key": 7, "year": 1, "tags": ["a"], "id": "other"}

    [document] = listed(
        f"{tmp_path}/a.jsonl",
        lines(record),
        text_field="body",
        title_field="name",
        id_field="key",
        attribute_fields=["year", "tags", "missing"],
        attributes={"year": 2, "product": "p"},
        text_format=".md",
        tenant="t",
    )

    assert document.uri.endswith("#7")
    assert document.tenant == "t"
    assert read(document) == Content(
        data=b"# one",
        format=".md",
        title="N",
        attributes={"year": 1, "tags": ["a"], "product": "p"},
    )


def test_a_sidecar_describes_every_record(folder: str) -> None:
    write(f"{folder}/a.jsonl.meta.json", b'{"year": 1, "title": "All"}')

    found = listed(
        f"{folder}/a.jsonl",
        lines({"text": "one", "year": 2, "title": "Own"}, {"text": "two"}),
        attribute_fields=["year"],
    )

    assert [(read(each).attributes, read(each).title) for each in found] == [
        ({"year": 2}, "Own"),
        ({"year": 1}, "All"),
    ]


def test_a_record_without_id_is_known_by_its_line(tmp_path: Path) -> None:
    found = listed(
        f"{tmp_path}/a.jsonl", b"\n" + lines({"text": "one"}) + b"  \r\n" + lines({"text": "two"})
    )

    assert [document.uri.partition("#")[2] for document in found] == ["line=2", "line=4"]


def test_no_id_is_taken_for_the_number_of_a_line(tmp_path: Path) -> None:
    found = listed(f"{tmp_path}/a.jsonl", lines({"id": "line=2", "text": "a"}, {"text": "b"}))

    assert [read(document).data for document in found] == [b"a", b"b"]
    assert found[0].uri != found[1].uri


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "it is no JSON: Input data was truncated"),
        (b"\xff\xfe", "it is no JSON: "),
        (b'{"text": "\\ud800"}', "it is no JSON: "),
        (b"[" * 100_000, "it is no JSON: "),
        (b"[1]", "it is no JSON object"),
        (b'{"txt": "x"}', "its field 'text' is no text"),
        (b'{"text": ["x"]}', "its field 'text' is no text"),
        (b'{"text": "x", "id": 1.5}', "its field 'id' is no text and no whole number"),
        (b'{"text": "x", "id": true}', "its field 'id' is no text and no whole number"),
        (b'{"text": "x", "year": {"a": 1}}', "year is no text, number"),
        (b'{"text": "' + b"x" * 200_000 + b'"}', "it is longer than 150,000 bytes"),
    ],
)
def test_a_broken_line_costs_only_itself(folder: str, line: bytes, told: str) -> None:
    first, broken, last = listed(
        f"{folder}/a.jsonl",
        lines({"id": "a", "text": "one"}) + line + b"\n" + lines({"id": "b", "text": "two"}),
        attribute_fields=["year"],
        max_bytes=150_000,
    )

    assert (read(first).data, read(last).data) == (b"one", b"two")
    assert broken.name.endswith("/a.jsonl#line=2")
    assert problem(broken).startswith(f"line 2 is no document: {told}")


def test_an_id_that_stands_twice_is_told_at_the_second_line(tmp_path: Path) -> None:
    first, second, third = listed(
        f"{tmp_path}/a.jsonl",
        lines({"id": 1, "text": "one"}, {"id": "1", "text": "two"}, {"id": 1, "text": "three"}),
    )

    assert read(first).data == b"one"
    assert problem(second) == "line 2 is no document: its id stands in an earlier line as well"
    assert problem(third).startswith("line 3 is no document")


def test_a_file_that_two_sources_name_is_listed_once_and_has_no_double_ids(tmp_path: Path) -> None:
    write(f"{tmp_path}/a.jsonl", lines({"id": 1, "text": "one"}))
    sources = [Source(location=str(tmp_path)), Source(location=f"{tmp_path}/a.jsonl")]

    assert [read(document).data for document in Listing(sources)] == [b"one"]


def test_the_last_line_needs_no_end_and_the_first_may_have_a_byte_order_mark(
    tmp_path: Path,
) -> None:
    found = listed(f"{tmp_path}/a.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}')

    assert [read(document).data for document in found] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl.gz", gzip.compress(lines({"text": "a"}), mtime=0)[:-12], "is damaged"),
        ("a.jsonl.gz", b"no gzip at all", "is damaged"),
        ("a.jsonl.gz", gzip.compress(b"x" * 100, mtime=0)[:10] + b"\xff" * 50, "is damaged"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_makes_its_source_fail(
    folder: str, name: str, data: bytes, told: str
) -> None:
    write(f"{folder}/{name}", data)
    write(f"{folder}/z.md", b"text")
    listing = Listing([Source(location=folder)])

    found = list(listing)

    assert found[-1].name.endswith("z.md")
    [(location, reason)] = listing.failures
    assert location == folder
    assert f"{name}: {told}" in reason


def test_a_broken_sidecar_makes_the_source_of_its_records_fail(folder: str) -> None:
    write(f"{folder}/a.jsonl", lines({"text": "a"}))
    write(f"{folder}/a.jsonl.meta.json", b"{")

    with pytest.raises(SourceUnusable, match=r"a\.jsonl: a\.jsonl\.meta\.json cannot be used"):
        list(Listing([Source(location=folder)]))


def test_a_file_without_records_lists_nothing(tmp_path: Path) -> None:
    write(f"{tmp_path}/a.jsonl", b"\n")

    with pytest.raises(SourceUnusable, match="holds no document"):
        list(Listing([Source(location=f"{tmp_path}/a.jsonl")]))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    with gzip.open(file, "wb", compresslevel=1) as packed:
        for number in range(5_000):
            packed.write(lines({"id": number, "text": "x" * 1000}))
        packed.write(b'{"text": "' + b"x" * 25_000_000)
    tracemalloc.start()
    try:
        count = sum(1 for _ in Listing([Source(location=str(file), max_bytes=1_000_000)]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 5_001
    assert peak < 8_000_000  # the file is 30 MB
