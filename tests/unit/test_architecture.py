"""Who may import whom, read from the source. Each rule is shown to catch what it forbids."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for package in ("gateway", "indexer")
    for path in sorted((ROOT / package).rglob("*.py"))
}
LONGEST_FILE = 300

SETTINGS_FOLDER = "gateway/settings/"
SETTINGS_MODULES = {"indexer/settings.py", "indexer/index/settings.py"}
COMPOSITION_ROOTS = {
    *("gateway/app.py", "gateway/encoder_process.py", "gateway/workers.py", "indexer/__main__.py"),
}
CONSTRUCTED = {
    *("IndexReader", "IndexWriter", "Upstream", "AsyncOpenAI", "OpenAI", "Encoder", "Library"),
    *("RedisLedger", "MachineLedger"),
}
FACTORIES = {"Upstream.connect", "Encoder.load"}
DEFINING_MODULES = {
    "indexer/index/collection/contents.py",
    "indexer/index/collection/foreign.py",
    "indexer/index/collection/reader.py",
    "indexer/index/collection/writer.py",
    "indexer/index/embedding.py",
    "gateway/upstream.py",
    "gateway/access/redis_ledger.py",
    "gateway/access/machine_ledger.py",
}

Check = Callable[[str, str], Iterator[str]]


class Rule(NamedTuple):
    """A check of one file, and snippets (path, source) that it must refuse."""

    name: str
    check: Check
    violations: list[tuple[str, str]]


def imported(source: str) -> set[str]:
    """Full names of everything that `source` imports, in functions and by name as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, names=names, level=level):
                found |= {f"{'.' * level}{module or ''}.{alias.name}" for alias in names}
            case ast.Call(
                func=ast.Name(id="__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.add(name)
    return found


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def only_the_contract(path: str, source: str) -> Iterator[str]:
    if path.startswith("gateway/"):
        for name in imported(source):
            if within(name, "indexer") and not within(name, "indexer.index"):
                yield name


def never_the_gateway(path: str, source: str) -> Iterator[str]:
    if path.startswith("indexer/"):
        yield from (name for name in imported(source) if within(name, "gateway"))


def contract_stands_alone(path: str, source: str) -> Iterator[str]:
    if path.startswith("indexer/index/"):
        for name in imported(source):
            ours = within(name, "indexer") and not within(name, "indexer.index")
            if ours or within(name, "litestar", "openai", "rich", "trafilatura", "lxml"):
                yield name


def no_relative_imports(_: str, source: str) -> Iterator[str]:
    yield from (name for name in imported(source) if name.startswith("."))


def vendors_only_in(vendors: set[str], places: set[str]) -> Check:
    """`places` are files, and folders with "/" at the end."""

    def check(path: str, source: str) -> Iterator[str]:
        if path not in places and f"{path.rpartition('/')[0]}/" not in places:
            yield from (name for name in imported(source) if within(name, *vendors))

    return check


def environment_only_in_settings(path: str, source: str) -> Iterator[str]:
    if path in SETTINGS_MODULES or path.startswith(SETTINGS_FOLDER):
        return
    for name in imported(source):
        if name in {"os.environ", "os.environb", "os.getenv"} or within(name, "dotenv"):
            yield name
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv"):
                yield f"line {node.lineno}: os.{node.attr}"
            case ast.ClassDef(bases=bases):
                if any(ast.unparse(base).endswith("Settings") for base in bases):
                    yield f"line {node.lineno}: class {node.name}"


def clients_only_in_roots(path: str, source: str) -> Iterator[str]:
    if path in COMPOSITION_ROOTS | DEFINING_MODULES:
        return
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=function) if ast.unparse(function).split(".")[-1] in CONSTRUCTED:
                yield f"line {node.lineno}: {ast.unparse(function)}(...)"
            case ast.Attribute() if ".".join(ast.unparse(node).split(".")[-2:]) in FACTORIES:
                yield f"line {node.lineno}: {ast.unparse(node)}"
            case ast.alias(name=name, asname=str(other)) if name in CONSTRUCTED:
                yield f"line {node.lineno}: {name} as {other}"


def readable_in_one_sitting(_: str, source: str) -> Iterator[str]:
    if (lines := len(source.splitlines())) >= LONGEST_FILE:
        yield f"{lines} lines"


def has_a_docstring(_: str, source: str) -> Iterator[str]:
    if not (ast.get_docstring(ast.parse(source)) or "").strip():
        yield "no module docstring"


def tenants_only_in(places: set[str]) -> Check:
    """`places` are files that may read whose something is, and folders with "/" at the end."""

    def check(path: str, source: str) -> Iterator[str]:
        folder = f"{path.rpartition('/')[0]}/"
        if not path.startswith("gateway/") or path in places or folder in places:
            return
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Attribute(attr="tenant" | "passages"):
                    yield f"line {node.lineno}: {ast.unparse(node)}"
                case ast.keyword(arg="tenant"):
                    yield f"line {node.value.lineno}: tenant={ast.unparse(node.value)}"
        yield from (name for name in imported(source) if name.endswith(READERS))

    return check


READERS = (".IndexReader", ".ForeignReader")
"""They give rows of any tenant, to whoever names it."""

RULES = [
    Rule(
        "the gateway takes the contract alone from the indexer",
        only_the_contract,
        [
            ("gateway/chat.py", "from indexer.run import Run"),
            ("gateway/chat.py", "from indexer import parsing"),
            ("gateway/chat.py", "import indexer"),
            ("gateway/chat.py", "from indexer.indexes import x"),
            ("gateway/chat.py", "def f():\n    import indexer.chunking"),
            ("gateway/chat.py", "import importlib\nimportlib.import_module('indexer.run')"),
            ("gateway/chat.py", "__import__('indexer.run')"),
        ],
    ),
    Rule(
        "the indexer never imports the gateway",
        never_the_gateway,
        [
            ("indexer/run.py", "from gateway.chat import Chat"),
            ("indexer/index/records.py", "import gateway"),
        ],
    ),
    Rule(
        "the contract imports neither web framework nor loaders nor the rest of the indexer",
        contract_stands_alone,
        [
            ("indexer/index/records.py", "import litestar"),
            ("indexer/index/embedding.py", "from openai import OpenAI"),
            ("indexer/index/filters.py", "from indexer.errors import IndexerFailure"),
            ("indexer/index/filters.py", "from indexer import run"),
        ],
    ),
    Rule(
        "imports are absolute, so that the other rules see them",
        no_relative_imports,
        [
            ("gateway/chat.py", "from . import relay"),
            ("indexer/index/records.py", "from ..run import Run"),
        ],
    ),
    Rule(
        "pymilvus is imported by the collection package alone",
        vendors_only_in({"pymilvus", "grpc", "milvus_lite"}, {"indexer/index/collection/"}),
        [
            ("gateway/retrieval.py", "from pymilvus import MilvusClient"),
            ("indexer/run.py", "import grpc"),
            ("indexer/index/records.py", "import pymilvus"),
        ],
    ),
    Rule(
        "the openai client is imported by the upstream module and by our way to make one alone",
        vendors_only_in({"openai", "aiohttp"}, {"gateway/upstream.py", "gateway/client.py"}),
        [
            ("gateway/app.py", "import openai"),
            ("gateway/relay.py", "from openai.types.chat import ChatCompletion"),
        ],
    ),
    Rule(
        "HTTP is spoken by what leads to upstreams and by the sources of the web alone",
        vendors_only_in(
            {"httpx", "httpx2", "httpcore", "httpcore2", "httptools", "requests"},
            {
                *("gateway/upstream.py", "gateway/client.py", "gateway/transport.py"),
                *("gateway/connection.py", "indexer/sources/web/"),
            },
        ),
        [
            ("gateway/chat.py", "import httpx2"),
            ("indexer/sources/local.py", "import requests"),
        ],
    ),
    Rule(
        "Redis is asked by one kind of ledger alone",
        vendors_only_in({"redis"}, {"gateway/access/redis_ledger.py"}),
        [("gateway/access/limits.py", "from redis.asyncio import Redis")],
    ),
    Rule(
        "torch is imported by the modules of the two kinds of encoders alone",
        vendors_only_in(
            {"sentence_transformers", "torch", "transformers"},
            {
                *("indexer/index/embedding.py", "indexer/index/encoder_backends.py"),
                "gateway/retrieval/cross_encoder.py",
            },
        ),
        [
            ("gateway/retrieval/retriever.py", "import torch.nn"),
            ("indexer/run.py", "def f():\n    from sentence_transformers import util"),
        ],
    ),
    Rule(
        "litestar is imported by the edge to HTTP alone",
        vendors_only_in(
            {"litestar"},
            {
                *("gateway/app.py", "gateway/encoder_process.py", "gateway/edge.py"),
                *("gateway/admission.py", "gateway/exchanges.py", "gateway/heartbeats.py"),
                "gateway/routes/",
            },
        ),
        [
            ("gateway/chat.py", "from litestar import Request"),
        ],
    ),
    Rule(
        "only settings modules read the environment",
        environment_only_in_settings,
        [
            ("gateway/app.py", "import os\nx = os.environ['A']"),
            ("gateway/app.py", "import os\nx = os.getenv('A')"),
            ("indexer/run.py", "from os import environ"),
            ("indexer/run.py", "class A(BaseSettings):\n    x: int"),
            ("gateway/chat.py", "class A(pydantic_settings.BaseSettings): ..."),
            ("gateway/chat.py", "class A(IndexSettings): ..."),
        ],
    ),
    Rule(
        "only composition roots construct clients",
        clients_only_in_roots,
        [
            ("gateway/chat.py", "reader = IndexReader(settings)"),
            ("indexer/run.py", "writer = collection.IndexWriter(settings)"),
            ("gateway/models.py", "upstream = Upstream.connect(settings)"),
            ("gateway/retrieval.py", "load = partial(Encoder.load, settings)"),
            ("gateway/__main__.py", "client = openai.AsyncOpenAI()"),
            ("gateway/chat.py", "from indexer.index.collection import IndexReader as Reader"),
        ],
    ),
    Rule(
        "whose rows and files are read is told in few places, and no other reads the index itself",
        tenants_only_in(
            {
                *("gateway/access/", "gateway/app.py", "gateway/uploads.py"),
                # What is remembered for several requests has the tenant in its key.
                *("gateway/answer_cache.py", "gateway/retrieval/catalogue.py"),
                "gateway/responses/ids.py",
                # Below the place that adds the tenant, and for the proof of the encoder.
                *("gateway/retrieval/published.py", "gateway/retrieval/searches.py"),
            }
        ),
        [
            ("gateway/stores/search.py", "search = Search(tenant=said.tenant_id)"),
            ("gateway/retrieval/retriever.py", "rows = caller().tenant"),
            ("gateway/retrieval/retriever.py", "from indexer.index.collection import IndexReader"),
            ("gateway/stores/search.py", "await reader.passages(generation)"),
        ],
    ),
    Rule(
        f"a file has fewer than {LONGEST_FILE} lines",
        readable_in_one_sitting,
        [("gateway/chat.py", '"""x"""\n' * LONGEST_FILE)],
    ),
    Rule(
        "a module says what it does",
        has_a_docstring,
        [("gateway/chat.py", "x = 1\n"), ("indexer/new.py", ""), ("indexer/new.py", '""" """')],
    ),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_file_follows_the_rule(rule: Rule) -> None:
    broken = {path: found for path, text in SOURCES.items() if (found := [*rule.check(path, text)])}

    assert broken == {}


@pytest.mark.parametrize(
    ("rule", "path", "snippet"),
    [(rule, path, snippet) for rule in RULES for path, snippet in rule.violations],
    ids=lambda value: value.name if isinstance(value, Rule) else None,
)
def test_the_rule_catches_a_violation(rule: Rule, path: str, snippet: str) -> None:
    assert list(rule.check(path, snippet))


def test_the_rules_see_the_files_that_they_name() -> None:
    named = SETTINGS_MODULES | COMPOSITION_ROOTS | DEFINING_MODULES
    assert named <= set(SOURCES)


def loaded_by(modules: str) -> set[str]:
    """What a fresh interpreter has loaded after importing `modules`."""
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_contract_stays_cheap() -> None:
    loaded = loaded_by(
        "indexer.index, indexer.index.errors, indexer.index.records, indexer.index.filters, "
        "indexer.index.settings, indexer.index.library"
    )

    assert "indexer.index.settings" in loaded
    assert loaded.isdisjoint(
        {"torch", "numpy", "pymilvus", "grpc", "litestar", "openai", "trafilatura", "rich"}
        | {"fsspec"}
    )


def test_importing_the_gateway_loads_neither_torch_nor_parsers() -> None:
    loaded = loaded_by("gateway.app")

    assert {"litestar", "openai", "pymilvus", "indexer.index.embedding"} <= loaded
    assert loaded.isdisjoint(
        {"torch", "sentence_transformers", "transformers", "trafilatura", "html_to_markdown"}
        | {"docutils", "semantic_text_splitter", "indexer.parsing", "indexer.sources"}
    )


def test_the_processes_beside_the_workers_load_nothing_of_what_answers() -> None:
    loaded = loaded_by("gateway.__main__")

    assert {"litestar", "uvicorn", "gateway.encoder_process", "gateway.workers"} <= loaded
    assert loaded.isdisjoint({"openai", "pymilvus", "grpc", "pandas", "aiohttp", "torch"})


def test_the_command_line_loads_no_parser_no_model_and_no_web_client() -> None:
    loaded = loaded_by("indexer.__main__")

    assert {"indexer.engines.local", "pymilvus", "indexer.parsing"} <= loaded
    assert loaded.isdisjoint(
        {"torch", "sentence_transformers", "transformers", "trafilatura", "docutils", "pptx"}
        | {"openpyxl", "pypdfium2", "mammoth", "httpx2", "fsspec", "ray", "protego"}
    )


def test_loading_a_parser_would_be_seen() -> None:
    assert {"trafilatura", "lxml", "indexer.parsing"} <= loaded_by("indexer.parsing.webpage")


def test_what_ends_vllm_comes_last() -> None:
    names = sorted(path.name for path in (ROOT / "tests" / "e2e").glob("test_*.py"))

    assert names[-1] == "test_vllm.py"
