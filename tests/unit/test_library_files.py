"""Files in the library of uploads: whole or not there, and never outside of their tenant."""

import io
import os
import threading
import time
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from indexer.index.errors import LibraryUnavailable, NotInLibrary
from indexer.index.library import Library
from indexer.index.library import names as library_names
from tests.unit.upload_fakes import PLACES, TENANT, add_file, library_at

HOSTILE = [
    "",
    ".",
    "..",
    "../../x",
    "/etc/passwd",
    "file-",
    "file-..",
    f"file-{'0' * 31}/",
    f"file-{'0' * 31}g",
    f"file-{'0' * 32}\n",
    f"file-{'0' * 32}.json",
    f"x/file-{'0' * 32}",
    "file-" + "0" * 10_000,
    "file-\0",
    "vs_" + "0" * 32,
    "file-" + "\N{FULLWIDTH DIGIT ZERO}" * 32,
]
TENANTS = [
    *("plain", "a.b", ".", "..", "../x", "a/b", "pending", "tenants", "=", "~", "日本", "%2E"),
    *("x" * 128, "日" * 128, "a b", "\n"),
]


@pytest.fixture(params=PLACES)
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Library:
    return library_at(request.param, tmp_path)


class Breaking(io.BytesIO):
    """An upload whose client leaves in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        if not piece:
            raise ConnectionError("the client left")
        return piece


def content(library: Library, file_id: str, tenant: str = TENANT) -> bytes:
    with library.open_file(tenant, file_id) as file:
        return file.read()


def stored_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_as_it_was_uploaded(library: Library) -> None:
    data = os.urandom(3 << 20)
    before = int(time.time())
    file = library.add_file(TENANT, "a.md", "assistants", io.BytesIO(data), expires_at=7)

    assert (file.filename, file.bytes, file.purpose) == ("a.md", len(data), "assistants")
    assert file.expires_at == 7
    assert before <= file.created_at <= time.time()
    assert library.file(TENANT, file.id) == file
    assert library.files(TENANT) == [file]
    assert content(library, file.id) == data


def test_files_are_listed_newest_first_and_of_one_tenant(library: Library) -> None:
    ids = [add_file(library, str(number)) for number in range(5)]
    add_file(library, "not yours", tenant="other")

    listed = library.files(TENANT)
    assert {file.id for file in listed} == set(ids)
    assert [(file.created_at, file.id) for file in listed] == sorted(
        ((file.created_at, file.id) for file in listed), reverse=True
    )
    assert library.files("nobody") == []


def test_a_file_that_was_deleted_is_gone(library: Library) -> None:
    kept, gone = add_file(library, "kept"), add_file(library, "gone")
    library.files(TENANT)
    library.delete_file(TENANT, gone)

    assert [file.id for file in library.files(TENANT)] == [kept]
    with pytest.raises(NotInLibrary):
        library.file(TENANT, gone)
    with pytest.raises(NotInLibrary), library.open_file(TENANT, gone):
        pass
    with pytest.raises(NotInLibrary) as caught:
        library.delete_file(TENANT, gone)
    assert (caught.value.kind, caught.value.identity) == ("file", gone)


@pytest.mark.parametrize("identity", HOSTILE)
def test_an_id_that_nothing_can_have_is_not_in_the_library(tmp_path: Path, identity: str) -> None:
    library = Library(str(tmp_path / "library"))
    (tmp_path / "x.json").write_text("{}")
    add_file(library, "there")
    before = stored_names(tmp_path)

    for ask in (library.file, library.delete_file):
        with pytest.raises(NotInLibrary):
            ask(TENANT, identity)
    with pytest.raises(NotInLibrary), library.open_file(TENANT, identity):
        pass
    assert stored_names(tmp_path) == before


@pytest.mark.parametrize("tenant", TENANTS)
def test_every_tenant_has_a_folder_of_its_own(tmp_path: Path, tenant: str) -> None:
    library = Library(str(tmp_path / "library"))
    file_id = add_file(library, "theirs", tenant="another")
    mine = add_file(library, "mine", tenant=tenant)

    assert [file.id for file in library.files(tenant)] == [mine]
    with pytest.raises(NotInLibrary):
        library.file(tenant, file_id)
    assert library.tenants() == sorted(["another", tenant])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library"]
    assert sorted(path.name for path in (tmp_path / "library").iterdir()) == ["tenants"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("a.md", "a.md"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Documents\\report.pdf", "report.pdf"),
        ("", "file"),
        ("folder/", "file"),
        ("a\0b\n.md", "ab.md"),
        ("\ud800.md", "?.md"),
        ("日本.md", "日本.md"),
        (f"{'x' * 9000}.md", f"{'x' * 509}.md"),
        ("." * 9000, "." * 512),
    ],
)
def test_a_filename_is_the_last_part_of_what_a_client_says(
    tmp_path: Path, said: str, kept: str
) -> None:
    library = Library(str(tmp_path))
    file = library.add_file(TENANT, said, "assistants", io.BytesIO(b"x"))

    assert file.filename == kept
    assert library.file(TENANT, file.id) == file


def test_an_upload_that_breaks_off_leaves_nothing(library: Library) -> None:
    with pytest.raises(ConnectionError, match="the client left"):
        library.add_file(TENANT, "a.md", "assistants", Breaking(b"x" * (2 << 20)))

    assert library.files(TENANT) == []
    assert library.file_ids(TENANT) == set()
    assert library._objects.names(library_names.contents_of(TENANT)) == []


def test_a_broken_upload_leaves_no_temporary_file(tmp_path: Path) -> None:
    library = Library(str(tmp_path))
    with pytest.raises(ConnectionError):
        library.add_file(TENANT, "a.md", "assistants", Breaking(b"x" * (2 << 20)))

    assert stored_names(tmp_path) == []


def test_a_file_is_not_there_before_all_of_it_is(tmp_path: Path) -> None:
    library = Library(str(tmp_path))
    reading, going_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reading.set()
            going_on.wait(10)
            return super().read(size)

    def upload() -> None:
        library.add_file(TENANT, "a.md", "assistants", cast("BinaryIO", Slow(b"whole")))

    thread = threading.Thread(target=upload)
    thread.start()
    assert reading.wait(10)
    assert library.files(TENANT) == []
    going_on.set()
    thread.join()
    assert [file.bytes for file in library.files(TENANT)] == [5]


def test_what_a_dead_gateway_left_of_an_upload_is_swept_after_a_day(tmp_path: Path) -> None:
    library = Library(str(tmp_path))
    kept = add_file(library, "whole")
    left = [library_names.content_path(TENANT, library_names.new_id("file")) for _ in range(2)]
    for path in left:
        (tmp_path / path).write_bytes(b"half")
    long_ago = time.time() - 2 * 86_400
    os.utime(tmp_path / left[0], (long_ago, long_ago))
    os.utime(tmp_path / library_names.content_path(TENANT, kept), (long_ago, long_ago))
    library.sweep_uploads(TENANT)

    assert not (tmp_path / left[0]).exists()
    assert (tmp_path / left[1]).exists()
    assert content(library, kept) == b"whole"


def test_a_storage_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    library = Library(str(tmp_path / "file"))

    with pytest.raises(LibraryUnavailable):
        add_file(library, "x")
    with pytest.raises(LibraryUnavailable, match="nosuchscheme"):
        Library("nosuchscheme://bucket")


def test_what_cannot_be_read_is_unavailable_and_named(tmp_path: Path) -> None:
    library = Library(str(tmp_path))
    file_id = add_file(library, "x")
    path = library_names.file_path(TENANT, file_id)
    (tmp_path / path).write_text("{")

    with pytest.raises(LibraryUnavailable, match=f"{file_id}.json"):
        library.file(TENANT, file_id)
