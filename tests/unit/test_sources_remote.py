"""What is found and read behind fsspec, and when nothing is downloaded."""

import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from indexer.documents import Content, SourceDocument
from indexer.errors import DocumentGone, DocumentUnusable, SourceUnusable
from indexer.sources import Listing, Source, sources_of


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    memory = fsspec.filesystem("memory")
    for path in ("/docs/b.md", "/docs/a/z.html", "/docs/a/.hidden.md", "/docs/a.md", "/docs/x.png"):
        memory.pipe_file(path, b"text")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def listed(location: str, **fields: Any) -> list[SourceDocument]:
    listing = Listing([Source(location=location, **fields)])
    documents = list(listing)
    assert listing.failures == []
    return documents


def uris(location: str, **fields: Any) -> list[str]:
    return [document.uri for document in listed(location, **fields)]


def reason(location: str, **fields: Any) -> str:
    with pytest.raises(SourceUnusable) as refused:
        list(Listing([Source(location=location, **fields)]))
    return str(refused.value)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("memory://docs", ["docs/a.md", "docs/a/z.html", "docs/b.md"]),
        ("memory://docs/", ["docs/a.md", "docs/a/z.html", "docs/b.md"]),
        ("memory://", ["docs/a.md", "docs/a/z.html", "docs/b.md"]),
        ("memory://docs/**/*.html", ["docs/a/z.html"]),
        ("memory://docs/?.md", ["docs/a.md", "docs/b.md"]),
        ("memory://docs/b.md", ["docs/b.md"]),
    ],
)
def test_folders_globs_and_files_are_listed_in_a_stable_order(
    location: str, found: list[str]
) -> None:
    assert uris(location) == [f"memory://{path}" for path in found]


@pytest.mark.usefixtures("store")
def test_patterns_hold_below_the_location() -> None:
    assert uris("memory://docs", exclude=["a/"]) == ["memory://docs/a.md", "memory://docs/b.md"]


@pytest.mark.usefixtures("store")
def test_a_document_is_known_by_its_url() -> None:
    [document] = listed("memory://docs/a/z.html", attributes={"year": 1}, tenant="t")

    assert document.name == document.uri == "memory://docs/a/z.html"
    assert document.tenant == "t"
    content = document.read()
    assert content is not None
    assert (content.data, content.format) == (b"text", ".html")
    assert content.attributes == {"year": 1}
    assert pickle.loads(pickle.dumps(document)).read() == content


def version_of(location: str, **fields: Any) -> str:
    [document] = listed(location, **fields)
    content = document.read()
    assert content is not None
    assert content.version
    return content.version


@pytest.mark.usefixtures("store")
def test_an_unchanged_document_is_none_without_a_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = version_of("memory://docs/a")
    [document] = listed("memory://docs/a")
    monkeypatch.setattr(MemoryFileSystem, "_open", None)

    assert document.read(version) is None
    with pytest.raises(DocumentUnusable):
        document.read("another version")


def test_what_may_have_changed_is_read_again(store: MemoryFileSystem) -> None:
    first = version_of("memory://docs/a")
    with_attributes = version_of("memory://docs/a", attributes={"year": 1})
    store.pipe_file("/docs/a/z.html", b"text")
    written_again = version_of("memory://docs/a")
    store.pipe_file("/docs/a/z.html.meta.json", b'{"year": 2}')
    with_sidecar = version_of("memory://docs/a")
    store.pipe_file("/docs/a/z.html.meta.json", b'{"year": 3}')
    with_other_sidecar = version_of("memory://docs/a")

    assert len({first, with_attributes, written_again, with_sidecar, with_other_sidecar}) == 5


@pytest.mark.usefixtures("store")
def test_a_store_that_states_no_versions_is_read_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ls = MemoryFileSystem.ls

    def without_times(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in info.items() if name != "created"}
            for info in ls(*args, **kwargs)
        ]

    monkeypatch.setattr(MemoryFileSystem, "ls", without_times)
    [document] = listed("memory://docs/a")
    content = document.read("")

    assert content is not None
    assert content.version == ""
    assert document.read(content.version) is not None


def test_a_sidecar_describes_the_file_beside_it(store: MemoryFileSystem) -> None:
    store.pipe_file("/docs/b.md.meta.toml", b'title = "B"\nyear = 2')

    for location in ("memory://docs/b.md", "memory://docs/b*"):
        [document] = listed(location, attributes={"year": 1, "a": 1})
        content = document.read()
        assert isinstance(content, Content)
        assert content.title == "B"
        assert content.attributes == {"year": 2, "a": 1}


def test_a_broken_sidecar_is_named(store: MemoryFileSystem) -> None:
    store.pipe_file("/docs/b.md.meta.toml", b"=")
    [document] = listed("memory://docs/b.md")

    with pytest.raises(DocumentUnusable, match=r"^b\.md\.meta\.toml cannot be used: "):
        document.read()


def test_a_document_that_vanished_is_gone(store: MemoryFileSystem) -> None:
    [document] = listed("memory://docs/a")
    store.rm_file("/docs/a/z.html")

    with pytest.raises(DocumentGone):
        document.read()


@pytest.mark.usefixtures("store")
def test_a_document_larger_than_the_limit_is_not_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [document] = listed("memory://docs/a", max_bytes=3)
    monkeypatch.setattr(MemoryFileSystem, "_open", None)

    with pytest.raises(DocumentUnusable, match="is larger than 3 bytes"):
        document.read()


def test_a_document_that_grew_after_it_was_listed_is_read_to_the_limit_alone(
    store: MemoryFileSystem,
) -> None:
    [document] = listed("memory://docs/a", max_bytes=10)
    store.pipe_file("/docs/a/z.html", b"x" * 11)

    with pytest.raises(DocumentUnusable, match="is larger than 10 bytes"):
        document.read()


@pytest.mark.usefixtures("store")
def test_whatever_a_driver_raises_is_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class DriverError(Exception):
        pass

    def refuse(*_: Any, **__: Any) -> None:
        raise DriverError("<Error>\n  <Code>SlowDown</Code>\n</Error>")

    [document] = listed("memory://docs/a")
    monkeypatch.setattr(MemoryFileSystem, "_open", refuse)
    with pytest.raises(DocumentUnusable) as unusable:
        document.read()
    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)

    assert str(unusable.value) == "cannot be read: <Error> <Code>SlowDown</Code> </Error>"
    assert reason("memory://docs") == (
        "memory://docs/ cannot be listed: <Error> <Code>SlowDown</Code> </Error>"
    )


@pytest.mark.usefixtures("store")
def test_a_folder_that_cannot_be_listed_makes_its_source_fail_but_the_rest_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ls = MemoryFileSystem.ls

    def refuse(self: MemoryFileSystem, path: str, **kwargs: Any) -> Any:
        if path == "/docs/a":
            raise PermissionError("Access Denied")
        return ls(self, path, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)
    listing = Listing([Source(location="memory://docs")])

    assert [document.uri for document in listing] == ["memory://docs/a.md", "memory://docs/b.md"]
    assert listing.failures == [
        ("memory://docs", "memory://docs/a cannot be listed: Access Denied")
    ]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("memory://gone", "memory://gone is not there"),
        ("memory://docs/x.png", "memory://docs/x.png is of no known format"),
        ("memory://docs/*.pdf", "memory://docs/*.pdf holds no document of a known format"),
        ("nonsense://x", "nonsense://x cannot be listed: Protocol not known: nonsense"),
        (f"zip://::{__file__}", f"zip://::{__file__} cannot be listed: File is not a zip file"),
    ],
)
def test_a_location_that_cannot_be_used_is_told(location: str, told: str) -> None:
    assert reason(location) == told


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)

    assert reason("s3://bucket/docs") == "s3:// needs the package s3fs: pip install s3fs"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "docs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("guide/a.md", "one")
        archive.writestr("b.md", "two")
        archive.writestr("c.jsonl", '{"id": 1, "text": "three"}\n')
    return path


def test_documents_in_an_archive_are_known_by_both_places(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.parent)
    within = f"::file://{archive}"

    for location in ("zip://::docs.zip", f"zip://::{archive}", f"zip://::file://{archive}"):
        found = list(Listing(sources_of([location], "t")))
        assert [document.uri for document in found] == [
            f"zip://b.md{within}",
            f"zip://c.jsonl{within}#1",
            f"zip://guide/a.md{within}",
        ]
        contents = [document.read() for document in found]
        assert [content.data for content in contents if content] == [b"two", b"three", b"one"]

    [document] = Listing(sources_of(["zip://guide/*::docs.zip"], "t"))
    assert document.uri == f"zip://guide/a.md{within}"


class KeyedStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A store that asks for a key."""

    def __init__(self, *args: Any, key: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        if key != "right":
            raise PermissionError("wrong key")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = MemoryFileSystem._strip_protocol(path.removeprefix("keyed://"))
        return stripped


@pytest.mark.usefixtures("store")
def test_options_reach_the_driver_for_listing_and_for_reading() -> None:
    fsspec.register_implementation("keyed", KeyedStore, clobber=True)

    [document] = listed("keyed://docs/b.md", storage_options={"key": "right"})

    assert document.read() is not None
    assert reason("keyed://docs/b.md") == "keyed://docs/b.md cannot be listed: wrong key"
