"""Which paths below a source are wanted. Patterns are those of .gitignore; knows no file system."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pathspec

_MAGIC = re.compile(r"[*?\[]")


class Patterns:
    """Include and exclude patterns of one source.

    As in .gitignore, `*.md` holds at any depth, `/*.md` at the top, `drafts/` for a folder and
    all that is in it, and of several patterns the last that fits counts.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str], glob: str = "") -> None:
        """`glob` is what a location had behind its folder; empty when it had no pattern.

        Raises ValueError, naming the pattern that is none.
        """
        self._include = _compiled(include)
        self._exclude = _compiled(exclude)
        self._glob = _compiled([f"/{glob}"] if glob else [])

    def want_folder(self, path: str) -> bool:
        """Whether anything in the folder at `path`, "guide/old", may be wanted."""
        return self._exclude is None or not self._exclude.match_file(f"{path}/")

    def want_file(self, path: str) -> bool:
        """Whether the file at `path`, "guide/setup.md", is wanted."""
        return (
            (self._glob is None or self._glob.match_file(path))
            and (self._include is None or self._include.match_file(path))
            and (self._exclude is None or not self._exclude.match_file(path))
        )


def split_glob(location: str) -> tuple[str, str]:
    """The folder to start from and the pattern below it: ("docs", "**/*.md")."""
    parts = location.split("/")
    for place, part in enumerate(parts):
        if _MAGIC.search(part):
            return "/".join(parts[:place]), "/".join(parts[place:])
    return location, ""


def _compiled(lines: Sequence[str]) -> "pathspec.GitIgnoreSpec | None":
    if not lines:
        return None
    import pathspec

    for line in lines:
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
        except ValueError as exc:
            raise ValueError(f"{line!r} is no pattern") from exc
    return pathspec.GitIgnoreSpec.from_lines(lines)
