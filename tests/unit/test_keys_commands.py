"""`python -m gateway keys`: what it prints, what it writes, and that every failure is one line."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.access import commands
from gateway.access.callers import Limits
from gateway.access.key_file import KeyFile
from gateway.access.keyring import Keyring
from gateway.access.keys import Key
from tests.unit.test_architecture import ROOT, loaded_by

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the file with the keys, which is not there yet."""
    monkeypatch.setenv("GROUNDSERVE_API_KEYS_FILE", str(tmp_path / "keys.json"))
    return tmp_path / "keys.json"


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:  # noqa: ARG001 - the variable
    def run(*arguments: str) -> tuple[int, str, str]:
        code = commands.main(arguments)
        return code, *capsys.readouterr()

    return run


def made(run: Run, *options: str) -> str:
    code, token, told = run("make", *options)
    assert (code, told) == (0, "")
    return token.removesuffix("\n")


def only(path: Path) -> Key:
    [key] = KeyFile(path).read()
    return key


def test_a_key_is_printed_alone_and_once_and_lets_its_holder_in(run: Run, path: Path) -> None:
    token = made(run, "--name", "alice")

    assert re.fullmatch(r"gs-[A-Za-z0-9_-]{43}", token)
    assert token not in path.read_text()
    assert token not in run("list")[1]
    who = Keyring(KeyFile(path).read()).caller([(b"api-key", token.encode())])
    assert (who.name, who.tenant, who.may_write, who.limits) == ("alice", "default", True, Limits())
    assert (who.knowledge_bases, who.models) == (None, None)


def test_what_a_key_may_do_is_said_by_options(run: Run, path: Path) -> None:
    before = int(time.time())
    made(
        run,
        *("--name", "reports@acme", "--tenant", "acme & co", "--read-only"),
        *("--knowledge-bases", "handbook, tickets", "--models", "default,org/model-a"),
        *("--expires-after-days", "90", "--requests-per-minute", "60"),
        *("--tokens-per-minute=1000", "--concurrent-requests=4", "--answer-tokens=256"),
    )
    key = only(path)

    assert (key.name, key.tenant, key.may_write) == ("reports@acme", "acme & co", False)
    assert key.knowledge_bases == ("handbook", "tickets")
    assert key.models == ("default", "org/model-a")
    assert key.limits == Limits(
        requests_per_minute=60, tokens_per_minute=1000, concurrent_requests=4, answer_tokens=256
    )
    assert before <= key.created_at <= time.time()
    assert key.expires_at == key.created_at + 90 * 86_400


def test_every_limit_has_its_option(run: Run, path: Path) -> None:
    names = Limits.__struct_fields__
    options = [f"--{name.replace('_', '-')}={i}" for i, name in enumerate(names, start=7)]
    made(run, "--name", "a", *options)

    assert only(path).limits == Limits(**{name: i for i, name in enumerate(names, start=7)})


def test_the_tenant_is_the_gateways_own_and_its_other_variables_mean_something_else(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDSERVE_TENANT", "acme")
    monkeypatch.setenv("GROUNDSERVE_KNOWLEDGE_BASES", "tickets")
    monkeypatch.setenv("GROUNDSERVE_NAME", "wrong")
    monkeypatch.setenv("GROUNDSERVE_MILVUS_URI", "no url at all")
    made(run, "--name", "alice")

    assert (only(path).name, only(path).tenant) == ("alice", "acme")
    assert only(path).knowledge_bases is None


def test_a_list_tells_what_is_known_of_each(run: Run, path: Path) -> None:
    made(run, "--name", "alice", "--requests-per-minute=3", "--answer-tokens=9", "--models=")
    made(run, "--name", "bob", "--read-only", "--expires-after-days=1", "--knowledge-bases=a,b")
    code, told, _ = run("list")
    alice, bob = KeyFile(path).read()

    assert code == 0
    head, *rows = (re.split(r" {2,}", line) for line in told.splitlines())
    assert head == list(commands._COLUMNS)
    day = rows[0][-2]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", day)
    assert rows[0] == [
        *(alice.id, "alice", "default", "all", "none", "yes"),
        *("requests_per_minute=3 answer_tokens=9", day, "-"),
    ]
    assert rows[1][:7] == [bob.id, "bob", "default", "a,b", "all", "no", "-"]
    assert rows[1][8] > day


def test_a_list_of_none_is_its_head(run: Run, path: Path) -> None:
    path.write_text('{"keys": []}')

    assert run("list")[1].split() == " ".join(commands._COLUMNS).split()


@pytest.mark.parametrize("by_name", [True, False])
def test_a_key_is_revoked_by_its_name_or_its_id_and_its_name_is_free_again(
    by_name: bool, run: Run, path: Path
) -> None:
    made(run, "--name", "alice")
    alice = only(path)
    made(run, "--name", "bob")
    code, told, _ = run("revoke", "alice" if by_name else alice.id)

    assert (code, told) == (0, f"alice ({alice.id}) is revoked\n")
    assert only(path).name == "bob"
    made(run, "--name", "alice")
    assert {key.name for key in KeyFile(path).read()} == {"alice", "bob"}


def test_a_name_that_looks_like_the_id_of_another_is_a_name(run: Run, path: Path) -> None:
    made(run, "--name", "alice")
    alice = only(path)
    made(run, "--name", alice.id)
    run("revoke", alice.id)

    assert only(path) == alice


ANY = ("make", "--name", "alice")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name one of the commands make, list, revoke"),
        (("drop",), "name one of the commands make, list, revoke"),
        (("make",), "--name: "),
        (("make", "--name", "a b"), "--name: "),
        (("make", "--name", ""), "--name: "),
        (("make", "--name", "x" * 65), "--name: "),
        (("make", "--name"), "--name"),
        ((*ANY, "--tenant", ""), "--tenant: "),
        ((*ANY, "--tenant", "x" * 129), "--tenant: "),
        ((*ANY, "--requests-per-minute", "0"), "--requests-per-minute: "),
        ((*ANY, "--answer-tokens", "many"), "--answer-tokens: "),
        ((*ANY, "--expires-after-days", "0"), "--expires-after-days: "),
        ((*ANY, "--expires-after-days", "99999999"), "--expires-after-days: "),
        ((*ANY, "--read-only", "--limit", "3"), "unrecognized arguments: --limit 3"),
        ((*ANY, "--name", "taken"), "there is a key taken already"),
        (("revoke",), "KEY"),
        (("revoke", "nobody"), "no key has this name or id"),
        (("list", "--api-keys-file", "/no/such/keys.json"), "/no/such/keys.json is not there"),
        ((*ANY, "--api-keys-file", "/no/such/keys.json"), "/no/such/keys.json cannot be written"),
        ((*ANY, "--api-keys-file", "/"), "/ is a folder"),
        ((*ANY, "--api-keys-file", ""), " is a folder"),
        (("list", "--api-keys-file", "/"), "/ cannot be read"),
        (("list", "--api-keys-file", "BROKEN"), "these are no keys"),
        ((*ANY, "--api-keys-file", "BROKEN"), "these are no keys"),
        (("revoke", "taken", "--api-keys-file", "BROKEN"), "these are no keys"),
    ],
)
def test_every_failure_is_one_line_and_exit_code_2_and_changes_nothing(
    arguments: tuple[str, ...], told: str, run: Run, path: Path
) -> None:
    made(run, "--name", "taken")
    broken = path.with_name("broken.json")
    broken.write_text('{"keys": [{"name": 1}]}')
    before = path.read_bytes(), broken.read_bytes()
    code, out, error = run(*(str(broken) if each == "BROKEN" else each for each in arguments))

    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: [^\n]*{re.escape(told)}[^\n]*\n", error), error
    assert (path.read_bytes(), broken.read_bytes()) == before


def test_without_a_file_both_ways_to_name_one_are_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROUNDSERVE_API_KEYS_FILE")

    for command in (("list",), ("make", "--name", "a"), ("revoke", "a")):
        code, _, error = run(*command)
        assert code == 2
        assert error.startswith("error: --api-keys-file or GROUNDSERVE_API_KEYS_FILE: ")


def test_the_program_has_the_commands_and_tells_of_them(tmp_path: Path) -> None:
    def started(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=os.environ | {"GROUNDSERVE_API_KEYS_FILE": str(tmp_path / "keys.json")},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = started("keys", "make", "--name", "alice")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gs-")
    assert started("keys", "list").stdout.splitlines()[1].split()[1] == "alice"
    assert started("keys", "--help").stdout.startswith("usage: python -m gateway keys COMMAND")
    assert "python -m gateway keys" in started("--help").stdout


def test_the_commands_load_nothing_of_what_answers() -> None:
    loaded = loaded_by("gateway.access.commands")

    assert {"gateway.access.key_file", "pydantic_settings"} <= loaded
    assert loaded.isdisjoint(
        {"torch", "pymilvus", "grpc", "litestar", "uvicorn", "openai", "numpy", "gateway.app"}
    )
