"""Which files are found below paths, and under which names."""

import os
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import DocumentUnusable, SourceUnusable
from indexer.parsing import FORMATS
from indexer.sources import SourceFile, find_files


def write(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")
    return folder


def names(*paths: Path) -> list[str]:
    return [file.name for file in find_files(paths)]


def test_files_are_named_from_the_folder_the_user_named_in_a_stable_order(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "b.md", "a/z.html", "a/y.txt", "A.markdown")

    assert names(docs) == ["docs/A.markdown", "docs/a/y.txt", "docs/a/z.html", "docs/b.md"]


def test_every_known_format_is_found_whatever_the_case_of_its_suffix(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", *(f"file{suffix.upper()}" for suffix in FORMATS))

    assert {Path(name).suffix.lower() for name in names(docs)} == set(FORMATS)


def test_hidden_and_unknown_files_are_passed_over(tmp_path: Path) -> None:
    docs = write(
        tmp_path / "docs", "seen.md", ".hidden.md", ".git/config.md", "image.png", "no_suffix"
    )

    assert names(docs) == ["docs/seen.md"]


def test_a_folder_named_like_a_document_is_searched_and_no_document(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "folder.md/inner.md")

    assert names(docs) == ["docs/folder.md/inner.md"]


def test_a_single_file_is_named_after_its_folder(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md", "two.md")

    assert names(docs / "one.md") == ["docs/one.md"]


def test_a_file_that_is_reached_twice_is_listed_once(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "sub/one.md")
    (docs / "link.md").symlink_to(docs / "sub" / "one.md")

    found = find_files([docs, docs / "sub", docs / "sub" / "one.md"])

    assert len(found) == 1


def test_a_document_keeps_its_id_whatever_path_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = write(tmp_path / "docs", "sub/one.md", "sub/two.md")
    (tmp_path / "other").symlink_to(docs)
    monkeypatch.chdir(docs)

    [whole, second] = find_files([docs])
    [relative, _] = find_files([Path("sub")])
    [linked, _] = find_files([tmp_path / "other"])

    assert whole.document_id == relative.document_id == linked.document_id
    assert whole.document_id != second.document_id


def test_a_single_file_of_an_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.pdf").touch()

    with pytest.raises(SourceUnusable, match=r"x\.pdf is of no known format"):
        find_files([tmp_path / "x.pdf"])


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").touch()
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may list everything
    with pytest.raises(SourceUnusable, match="closed cannot be listed: Permission denied"):
        find_files([tmp_path])


def test_a_dangling_link_is_no_document(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md")
    (docs / "dangling.md").symlink_to(tmp_path / "nowhere.md")

    assert names(docs) == ["docs/one.md"]


def test_a_missing_path_is_refused_by_name_even_beside_one_that_is_there(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md")

    with pytest.raises(SourceUnusable, match=r"gone is not there"):
        find_files([docs, tmp_path / "gone"])


def test_folders_without_any_document_are_refused_and_the_formats_told(tmp_path: Path) -> None:
    write(tmp_path / "docs", "image.png")

    with pytest.raises(SourceUnusable) as refused:
        find_files([tmp_path / "docs"])

    assert str(tmp_path / "docs") in str(refused.value)
    assert all(suffix in str(refused.value) for suffix in FORMATS)


def test_an_empty_folder_beside_a_full_one_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    docs = write(tmp_path / "docs", "one.md")

    assert names(tmp_path / "empty", docs) == ["docs/one.md"]


def test_what_is_read_are_the_bytes_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_bytes(b"\xff\x00\r\n")

    [file] = find_files([tmp_path / "one.txt"])

    assert file.read() == b"\xff\x00\r\n"


def test_a_file_that_vanished_is_one_unusable_document_with_the_reason(tmp_path: Path) -> None:
    file = SourceFile(tmp_path / "gone.md", "docs/gone.md")

    with pytest.raises(DocumentUnusable, match=os.strerror(2)):
        file.read()
