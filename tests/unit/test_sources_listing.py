"""When a source has failed, and that listing streams."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import SourceUnusable
from indexer.sources import Listing, Source


def write(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")
    return folder


def reason(location: Path | str, **fields: Any) -> str:
    """Why a source that fails has failed."""
    with pytest.raises(SourceUnusable) as refused:
        list(Listing([Source(location=str(location), **fields)]))
    return str(refused.value)


def close(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder unlistable for root, too."""
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_an_excluded_folder_need_not_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = write(tmp_path / "docs", "a.md", "closed/b.md")
    close(docs / "closed", monkeypatch)

    listing = Listing([Source(location=str(docs), exclude=["closed/"])])

    assert [document.name for document in listing] == ["docs/a.md"]
    assert listing.failures == []


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = write(tmp_path / "docs", "a.md", "closed/b.md", "z.md")
    close(docs / "closed", monkeypatch)
    listing = Listing([Source(location=str(docs))])

    assert [document.name for document in listing] == ["docs/a.md", "docs/z.md"]
    assert listing.failures == [
        (str(docs), f"{docs}/closed cannot be listed: Permission denied"),
    ]


def test_a_source_that_lists_nothing_has_failed_beside_one_that_lists_something(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    docs = write(tmp_path / "docs", "one.md")
    listing = Listing([Source(location=str(tmp_path / name)) for name in ("empty", "gone", "docs")])

    for _ in range(2):
        assert [document.uri for document in listing] == [f"file://{docs}/one.md"]
        assert listing.failures == [
            (f"{tmp_path}/empty", f"{tmp_path}/empty holds no document of a known format"),
            (f"{tmp_path}/gone", f"{tmp_path}/gone is not there"),
        ]


def test_a_source_whose_documents_were_all_listed_before_has_not_failed(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md")

    listing = Listing([Source(location=str(docs))] * 2)

    assert len(list(listing)) == 1
    assert listing.failures == []


def test_sources_that_all_fail_are_told_together(tmp_path: Path) -> None:
    write(tmp_path / "docs", "image.png")
    listing = Listing([Source(location=str(tmp_path / name)) for name in ("docs", "gone")])

    with pytest.raises(SourceUnusable) as refused:
        list(listing)

    assert str(refused.value) == (
        f"{tmp_path}/docs holds no document of a known format; {tmp_path}/gone is not there"
    )
    assert len(listing.failures) == 2


def test_no_source_at_all_is_a_failure_too() -> None:
    with pytest.raises(SourceUnusable, match="there is no source"):
        list(Listing([]))


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("{}/gone/*.md", "{}/gone is not there"),
        ("{}/one.md/deeper", "{}/one.md/deeper is not there"),
        ("{}/loop", "{}/loop is a link that leads to itself"),
        ("file://server/docs", "file://server/docs names another machine"),
    ],
)
def test_a_location_that_cannot_be_used_is_told_by_name(
    tmp_path: Path, location: str, told: str
) -> None:
    write(tmp_path, "one.md")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    assert reason(location.format(tmp_path)).startswith(told.format(tmp_path))


def test_a_single_file_of_an_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.unknown").touch()

    assert reason(tmp_path / "x.unknown") == f"{tmp_path}/x.unknown is of no known format"


def test_only_what_a_source_needs_is_imported(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "one.md")
    program = (
        "import sys; from indexer.sources import Listing, sources_of\n"
        "from indexer.sources import reading\n"
        f"[document] = Listing(sources_of([{str(docs)!r}], 't')); document.read()\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = set(done.stdout.split())
    assert "indexer.sources.local" in loaded
    assert loaded.isdisjoint(
        {"httpx2", "httpcore2", "fsspec", "lxml", "protego", "tenacity", "yaml", "pathspec"}
        | {"trafilatura", "pymilvus", "torch"}
    )


def test_listing_streams(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", "a/one.md", "b/two.md")
    documents = iter(Listing([Source(location=str(docs))]))

    first = next(documents)
    write(docs, "b/three.md")

    assert first.name == "docs/a/one.md"
    assert [document.name for document in documents] == ["docs/b/three.md", "docs/b/two.md"]
