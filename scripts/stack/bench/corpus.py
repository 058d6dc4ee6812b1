"""Real documents that every machine has: what Python's standard library says of itself.

A page for each module, a section for each class and function with a docstring; and a question about
each of those.
"""

import ast
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_PAGES = 320
"""About 5,000 chunks of 512 characters."""
_FORMS = (
    "What does {} do, and what does it return?",
    "When would I use {}?",
    "Which errors does {} raise, and why?",
)
_SHORTEST = 40
"""Characters of a docstring that says something."""


def write(folder: Path, questions: Path) -> None:
    """The pages into `folder`, as Markdown, and the questions into a file, as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    library = Path(sysconfig.get_paths()["stdlib"])
    names: list[str] = []
    pages = 0
    for file in sorted(library.glob("[a-z]*.py")) + sorted(library.glob("[a-z]*/[a-z]*.py")):
        if pages == _PAGES or "test" in str(file.relative_to(library)):
            continue
        module = ".".join(file.relative_to(library).with_suffix("").parts)
        if not (sections := dict(_sections(module, file.read_text(errors="replace")))):
            continue
        text = "\n\n".join(f"## {name}\n\n{said}" for name, said in sections.items())
        (folder / f"{module}.md").write_text(f"# The module {module}\n\n{text}\n")
        names += sections
        pages += 1
    asked = [form.format(name) for name in names for form in _FORMS]
    random.Random(0).shuffle(asked)  # nosec B311  # no secret
    questions.write_text(json.dumps(asked))


def _sections(module: str, source: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and len(said := ast.get_docstring(node) or "") > _SHORTEST:
            yield f"{module}.{getattr(node, 'name', '')}".rstrip("."), said
