"""Which files are found below paths, and under which names."""

import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from indexer.documents import SourceDocument
from indexer.errors import SourceUnusable
from indexer.parsing import FORMATS
from indexer.sources import Listing, Source, sources_of
from indexer.sources.patterns import Patterns
from indexer.sources.tree import Entry, walk


def write(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")
    return folder


def listed(*locations: Path | str, **fields: Any) -> list[SourceDocument]:
    """What sources of these locations list, none of which may fail."""
    listing = Listing([Source(location=str(location), **fields) for location in locations])
    documents = list(listing)
    assert listing.failures == []
    return documents


def names(*locations: Path | str, **fields: Any) -> list[str]:
    return [document.name for document in listed(*locations, **fields)]


def test_files_are_named_from_the_folder_the_user_named_in_a_stable_order(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "b.md", "a/z.html", "a/y.txt", "A.markdown", "a.md", "a-b.md")

    assert names(docs) == [
        "docs/A.markdown",
        "docs/a-b.md",
        "docs/a.md",
        "docs/a/y.txt",
        "docs/a/z.html",
        "docs/b.md",
    ]


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


def test_a_glob_finds_what_it_describes_below_its_folder(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "top.md", "top.txt", "v1/guide/a.md", "v2/guide/b.md")

    assert names(docs / "**/*.md") == [
        "docs/top.md",
        "docs/v1/guide/a.md",
        "docs/v2/guide/b.md",
    ]
    assert names(docs / "*.md") == ["docs/top.md"]
    assert names(docs / "v[2-9]/guide") == ["docs/v2/guide/b.md"]


def test_a_folder_whose_name_looks_like_a_glob_is_that_folder(tmp_path: Path) -> None:
    write(tmp_path, "docs [old]/a.md", "docs o/b.md")

    assert names(tmp_path / "docs [old]") == ["docs [old]/a.md"]


def test_patterns_choose_files_as_gitignore_does(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "a.md", "a.txt", "drafts/b.md", "v1/drafts/c.md", "v1/d.md")

    assert names(docs, include=["*.md"], exclude=["drafts/"]) == ["docs/a.md", "docs/v1/d.md"]
    assert names(docs, include=["/*.md"], exclude=["v1/"]) == ["docs/a.md"]


def test_a_file_that_is_reached_twice_is_listed_once(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "sub/one.md")
    (docs / "link.md").symlink_to(docs / "sub" / "one.md")

    assert len(listed(docs, docs / "sub", docs / "sub" / "one.md")) == 1


def test_two_tenants_may_have_the_same_file(tmp_path: Path) -> None:
    docs = str(write(tmp_path / "docs", "one.md"))
    sources = [Source(location=docs, tenant=tenant) for tenant in ("a", "b", "a")]

    assert [document.tenant for document in Listing(sources)] == ["a", "b"]


def test_a_document_keeps_its_uri_whatever_path_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = write(tmp_path / "docs", "sub/one.md", "sub/two.md")
    (tmp_path / "other").symlink_to(docs)
    monkeypatch.chdir(docs)

    [relative, _] = Listing(sources_of(["sub"], "t"))

    assert relative.uri == f"file://{docs}/sub/one.md"
    assert listed(docs)[0].uri == relative.uri
    assert listed(tmp_path / "other")[0].uri == relative.uri
    assert listed(f"file://{docs}/sub")[0].uri == relative.uri


def test_links_that_lead_round_in_circles_end(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "a/one.md", "b/two.md")
    (docs / "a" / "up").symlink_to(docs)
    (docs / "a" / "b").symlink_to(docs / "b")
    (docs / "b" / "a").symlink_to(docs / "a")
    (docs / "self").symlink_to(docs / "self")
    (docs / "self.md").symlink_to(docs / "self.md")

    assert names(docs) == ["docs/a/one.md", "docs/b/two.md"]


def test_a_linked_folder_is_searched_under_the_name_of_the_link(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md")
    write(tmp_path / "elsewhere", "two.md", "deep/three.md")
    (docs / "a").mkdir()
    (docs / "a" / "link").symlink_to(tmp_path / "elsewhere")

    found = listed(docs)

    assert [document.name for document in found] == [
        "docs/one.md",
        "docs/a/link/deep/three.md",
        "docs/a/link/two.md",
    ]
    assert found[2].uri == f"file://{tmp_path}/elsewhere/two.md"
    assert names(docs, exclude=["a/link/deep/"]) == ["docs/one.md", "docs/a/link/two.md"]


def test_a_link_has_the_format_of_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "blobs", "0a1b2c")
    docs = write(tmp_path / "docs")
    docs.mkdir()
    (docs / "readme.md").symlink_to(tmp_path / "blobs" / "0a1b2c")

    [document] = listed(docs)
    content = document.read()

    assert content is not None
    assert content.format == ".md"
    assert document.uri == f"file://{tmp_path}/blobs/0a1b2c"


def test_a_dangling_link_is_no_document(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md")
    (docs / "dangling.md").symlink_to(tmp_path / "nowhere.md")

    assert names(docs) == ["docs/one.md"]


def test_pipes_and_sockets_are_passed_over(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md")
    os.mkfifo(docs / "pipe.md")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(docs / "socket.md"))

        assert names(docs) == ["docs/one.md"]
        with pytest.raises(SourceUnusable, match="is neither a file nor a folder"):
            listed(docs / "pipe.md")


def test_a_tree_deeper_than_the_stack_is_listed() -> None:
    def scan(folder: str) -> list[Entry]:
        is_folder = folder.count("/") < 2000
        return [Entry("d" if is_folder else "deep.md", is_folder)]

    assert len(list(walk(scan, Patterns([], [])))) == 1


def test_names_that_are_no_utf_8_are_shown_as_text_and_can_be_read(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs")
    docs.mkdir()
    (docs / os.fsdecode(b"caf\xe9.md")).write_text("text")

    [document] = listed(docs)

    assert document.name == "docs/caf\N{REPLACEMENT CHARACTER}.md"
    assert document.uri.endswith("caf%E9.md")
    assert document.read() is not None


def test_a_document_can_be_sent_to_another_process(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md")
    [document] = listed(docs, attributes={"year": 2024})

    assert pickle.loads(pickle.dumps(document)) == document
