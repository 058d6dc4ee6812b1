"""What reading a file gives, whatever became of it, and what a sidecar says of it."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from indexer.documents import Content, SourceDocument
from indexer.errors import DocumentGone, DocumentUnusable
from indexer.sources import Listing, Source


def document(file: Path, **fields: Any) -> SourceDocument:
    [found] = Listing([Source(location=str(file), **fields)])
    return found


def read(file: Path, **fields: Any) -> Content:
    content = document(file, **fields).read()
    assert content is not None
    return content


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "docs" / "one.TXT"
    path.parent.mkdir()
    path.write_text("text")
    return path


def test_what_is_read_are_the_bytes_of_the_file(file: Path) -> None:
    file.write_bytes(b"\xff\x00\r\n")

    assert read(file) == Content(data=b"\xff\x00\r\n", format=".txt")


def test_a_file_is_read_whatever_version_is_known(file: Path) -> None:
    assert document(file).read("anything") is not None


def test_a_file_that_vanished_is_gone(file: Path) -> None:
    found = document(file)
    file.with_name("another.txt").touch()
    file.unlink()

    with pytest.raises(DocumentGone, match="is not there any more"):
        found.read()


@pytest.mark.parametrize("what", ["empty", "gone", "a file"])
def test_a_file_that_vanished_with_its_folder_may_come_back(file: Path, what: str) -> None:
    """A folder that is not mounted any more is empty, or not there."""
    found = document(file)
    file.unlink()
    if what != "empty":
        file.parent.rmdir()
    if what == "a file":
        file.parent.touch()

    with pytest.raises(DocumentUnusable) as unusable:
        found.read()
    assert not isinstance(unusable.value, DocumentGone)


def test_a_file_that_became_a_pipe_does_not_block(file: Path) -> None:
    found = document(file)
    file.unlink()
    os.mkfifo(file)

    with pytest.raises(DocumentUnusable, match="is no regular file"):
        found.read()


def test_a_file_that_became_a_folder_is_unusable_and_not_gone(file: Path) -> None:
    found = document(file)
    file.unlink()
    file.mkdir()

    with pytest.raises(DocumentUnusable) as unusable:
        found.read()
    assert not isinstance(unusable.value, DocumentGone)


def test_a_file_that_may_not_be_read_is_unusable_with_the_reason(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = document(file)

    def refuse(path: object, _: int) -> int:  # root may open everything
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(DocumentUnusable, match="cannot be read: Permission denied"):
            found.read()


@pytest.mark.parametrize(("size", "is_read"), [(9, True), (10, True), (11, False)])
def test_a_file_larger_than_the_limit_is_unusable(file: Path, size: int, is_read: bool) -> None:
    file.write_bytes(b"x" * size)
    found = document(file, max_bytes=10)

    if is_read:
        assert found.read() is not None
    else:
        with pytest.raises(DocumentUnusable, match="is larger than 10 bytes"):
            found.read()


def test_a_huge_file_is_refused_without_being_read(file: Path) -> None:
    os.truncate(file, 1 << 40)

    with pytest.raises(DocumentUnusable, match="is larger than 268,435,456 bytes"):
        document(file).read()


def test_an_endless_file_that_states_no_size_ends_at_the_limit(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grows while it is read: its status is of the time before."""
    file.write_bytes(b"x" * 100)
    found = document(file, max_bytes=50)
    before = os.stat_result((0o100644, 0, 0, 1, 0, 0, 5, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda _: before)

    with pytest.raises(DocumentUnusable, match="is larger than 50 bytes"):
        found.read()


def test_many_threads_may_read_one_document(file: Path) -> None:
    found = document(file)
    contents: list[Content | None] = []
    threads = [threading.Thread(target=lambda: contents.append(found.read())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert contents == [Content(data=b"text", format=".txt")] * 8


SIDECARS = {
    ".meta.toml": 'title = "T"\nyear = 2024\ntags = ["a", "b"]\nday = 2024-01-31',
    ".meta.yaml": "title: T\nyear: 2024\ntags: [a, b]\nday: 2024-01-31",
    ".meta.yml": "title: T\nyear: 2024\ntags: [a, b]\nday: 2024-01-31",
    ".meta.json": '{"title": "T", "year": 2024, "tags": ["a", "b"], "day": "2024-01-31"}',
}


@pytest.mark.parametrize("suffix", SIDECARS)
@pytest.mark.parametrize("is_folder", [True, False], ids=["folder", "file"])
def test_a_sidecar_describes_the_file_beside_it(file: Path, suffix: str, is_folder: bool) -> None:
    file.with_name(file.name + suffix).write_text(SIDECARS[suffix])

    content = read(file.parent if is_folder else file, attributes={"year": 1999, "product": "p"})

    assert content.title == "T"
    assert content.attributes == {
        "year": 2024,
        "product": "p",
        "tags": ["a", "b"],
        "day": "2024-01-31",
    }


def test_a_null_in_a_sidecar_takes_an_attribute_away(file: Path) -> None:
    file.with_name("one.TXT.meta.yaml").write_text("product:")

    assert read(file, attributes={"product": "p"}).attributes == {}


def test_a_sidecar_is_no_document_but_a_file_that_only_looks_like_one_is(tmp_path: Path) -> None:
    for name in ("guide.md", "guide.md.meta.yaml", "package.meta.yaml"):
        (tmp_path / name).write_text("{}")

    found = [each.uri.rpartition("/")[2] for each in Listing([Source(location=str(tmp_path))])]

    assert found == ["guide.md", "package.meta.yaml"]


def test_a_sidecar_that_vanished_says_nothing(file: Path) -> None:
    sidecar = file.with_name("one.TXT.meta.toml")
    sidecar.write_text("a = 1")
    found = document(file)
    sidecar.unlink()

    assert found.read() == Content(data=b"text", format=".txt")


@pytest.mark.parametrize(
    ("suffix", "text", "told"),
    [
        ("toml", b"a = ", "cannot be used: Invalid value"),
        ("toml", b"a = nan", "cannot be used: a is nan, which is no JSON number"),
        ("toml", b"[a]\nb = 1", "cannot be used: a is no text, number"),
        ("toml", b"a = " + b"[" * 5000, "is nested too deeply"),
        ("toml", b"a = '\xff'", "cannot be used: 'utf-8' codec"),
        ("json", b"[1]", "cannot be used: it is no table"),
        ("json", b"{", "cannot be used: "),
        ("json", b'{"a": [[1]]}', "cannot be used: a is no text, number"),
        ("json", b'{"a": ' + b"[" * 60_000, "is nested too deeply"),
        ("yaml", b"a: [", "cannot be used: "),
        ("yaml", b"just text", "cannot be used: it is no table"),
        ("yaml", b"a: 2024-99-99", "cannot be used: "),
        ("yaml", b"a: &a [*a]", "cannot be used: a is no text, number"),
        ("yaml", b"a: 1\n" * 15_000, "is larger than 65,536 bytes"),
        ("yaml", b"a: !!python/object/apply:os.system [exit]", "cannot be used: "),
        ("yaml", b"a: " + b"[" * 60_000, "cannot be used: it is nested"),
    ],
)
def test_a_broken_sidecar_is_named_in_one_line(
    file: Path, suffix: str, text: bytes, told: str
) -> None:
    file.with_name(f"one.TXT.meta.{suffix}").write_bytes(text)

    with pytest.raises(DocumentUnusable) as unusable:
        document(file).read()

    assert str(unusable.value).startswith(f"one.TXT.meta.{suffix} {told}")
    assert "\n" not in str(unusable.value)


def test_a_sidecar_that_is_a_pipe_does_not_block(file: Path) -> None:
    found = document(file.parent)
    sidecar = file.with_name("one.TXT.meta.toml")
    sidecar.write_text("a = 1")
    found = document(file)
    sidecar.unlink()
    os.mkfifo(sidecar)

    with pytest.raises(DocumentUnusable, match=r"one\.TXT\.meta\.toml is no regular file"):
        found.read()
