"""The documentation is true: every setting and every file is in it, with the right default."""

import re
import subprocess
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from indexer.index.settings import ENV_PREFIX, IndexSettings
from indexer.settings import RunSettings, WatchSettings
from tests.unit.test_indexer_settings import OF_ONE_RUN

ROOT = Path(__file__).parents[2]
ROW = re.compile(rf"^\| `({ENV_PREFIX}\w+)` \| ?(.*?) ?\| (.*) \|$", re.MULTILINE)


def _rows(readme: str) -> dict[str, str]:
    """Variable and default of each row of a settings table."""
    return {name: default for name, default, _ in ROW.findall((ROOT / readme).read_text())}


@pytest.mark.parametrize(
    ("readme", "settings", "documented_elsewhere"),
    [
        ("gateway/README.md", [GatewaySettings], IndexSettings),
        ("indexer/README.md", [RunSettings, WatchSettings], None),
    ],
)
def test_every_setting_is_documented_and_nothing_else(
    readme: str,
    settings: list[type[IndexSettings]],
    documented_elsewhere: type[IndexSettings] | None,
) -> None:
    elsewhere = set(documented_elsewhere.model_fields) if documented_elsewhere else set()
    expected = {
        ENV_PREFIX + name.upper()
        for each in settings
        for name in each.model_fields
        if name not in elsewhere | OF_ONE_RUN
    }
    assert set(_rows(readme)) == expected


@pytest.mark.parametrize("settings", [GatewaySettings, RunSettings, WatchSettings])
def test_the_documented_default_is_the_real_one(settings: type[IndexSettings]) -> None:
    documented = _rows("gateway/README.md") | _rows("indexer/README.md")
    checked = 0
    for name, field in settings.model_fields.items():
        text = documented.get(ENV_PREFIX + name.upper(), "").strip("`")
        if isinstance(field.default, str | int | float) and name not in OF_ONE_RUN:
            expected = str(field.default)
            assert text in (expected, expected.lower(), expected.removesuffix(".0")), name
            checked += 1
    assert checked > 5


def _listed(tree: str) -> set[str]:
    """File names in the tree; `test_{a,b}.py` stands for two of them."""
    names = set(re.findall(r"[\w.-]+", tree))
    for start, middles, end in re.findall(r"(\w+)\{([\w,\s]+)\}([\w.]+)", tree):
        names |= {f"{start}{middle.strip()}{end}" for middle in middles.split(",")}
    return names


def test_every_file_is_in_the_tree_of_the_readme() -> None:
    listed = _listed((ROOT / "README.md").read_text().split("## The tree")[1])
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert not [file for file in files if Path(file).name not in listed and (ROOT / file).exists()]
