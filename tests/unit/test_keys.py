"""Keys: what is kept of them, the file that they are in, and how a request's is found."""

import asyncio
import hmac
import json
import logging
import multiprocessing
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.access import keyring as module
from gateway.access.callers import Limits
from gateway.access.key_file import KeyFile
from gateway.access.keyring import Keyring, configured_keyring
from gateway.access.keys import Key, KeysUnusable, digest, new_token, parsed, written
from gateway.errors import Unauthenticated
from gateway.settings import GatewaySettings

Headers = list[tuple[bytes, bytes]]


def key_for(token: str, name: str = "alice", **stated: Any) -> Key:
    said = {"tenant": "acme", "sha256": digest(token.encode()).hex(), "created_at": 1_700_000_000}
    return Key(**{"name": name, **said, **stated})


def bearer(token: str) -> Headers:
    return [(b"authorization", f"Bearer {token}".encode())]


def is_let_in(keyring: Keyring, token: str) -> bool:
    try:
        keyring.caller(bearer(token))
    except Unauthenticated:
        return False
    return True


def test_a_key_is_random_and_known_by_sight() -> None:
    tokens = {new_token() for _ in range(1000)}

    assert len(tokens) == 1000
    # 32 bytes in base64 without padding.
    assert {(token[:3], len(token)) for token in tokens} == {("gs-", 46)}


def test_what_is_written_of_keys_is_read_again_and_has_no_key_in_it() -> None:
    token = new_token()
    keys = [
        key_for(token, limits=Limits(requests_per_minute=3), knowledge_bases=("a",), models=()),
        key_for("b", name="bob", may_write=False, expires_at=1_800_000_000),
    ]

    assert parsed(written(keys)) == keys
    assert token not in written(keys).decode()


def document(**changed: Any) -> bytes:
    """A good document with one key, in which some fields are others."""
    [key] = json.loads(written([key_for("a")]))["keys"]
    kept = {name: value for name, value in (key | changed).items() if value is not ...}
    return json.dumps({"keys": [kept]}).encode()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "object"),
        (b"{}", "`keys`"),
        (b'{"keys": [], "key": []}', "`key`"),
        (b'{"keys": [{}]}', "keys[0]"),
        (b"\xff" + document(), "malformed"),
        (document(tenant=""), "tenant"),
        (document(tenant=...), "`tenant`"),
        (document(name="a b"), "name"),
        (document(name="alice\n"), "name"),
        (document(name="a" * 65), "name"),
        (document(sha256="gs-what-somebody-put-there-by-mistake"), "sha256"),
        (document(sha256="A" * 64), "sha256"),
        (document(created_at=-1), "created_at"),
        (document(expires_at=10**12), "expires_at"),
        (document(expires_at="2030-01-01"), "expires_at"),
        (document(models="default"), "models"),
        (document(may_write="no"), "may_write"),
        (document(may_wrote=False), "`may_wrote`"),
        (document(limits={"requests_per_minute": 0}), "requests_per_minute"),
        (document(limits={"request_per_minute": 60}), "`request_per_minute`"),
    ],
)
def test_a_document_that_is_wrong_is_refused_with_the_place_and_without_the_value(
    wrong: bytes, told: str
) -> None:
    with pytest.raises(KeysUnusable) as refused:
        parsed(wrong)

    assert told in str(refused.value)
    assert "mistake" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_two_keys_of_one_name_or_with_one_digest_are_refused(name: str) -> None:
    with pytest.raises(KeysUnusable, match=r"keys\[1\].*twice"):
        parsed(written([key_for("a"), key_for("a" if name == "bob" else "b", name=name)]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
IN_A_KEY = st.fixed_dictionaries(
    dict.fromkeys(("name", "tenant", "sha256", "created_at"), JSON),
    optional=dict.fromkeys(("limits", "models", "knowledge_bases", "expires_at", "x"), JSON),
)


@examples(max_examples=60)
@given(
    st.binary()
    | JSON.map(lambda found: json.dumps(found).encode())
    | st.lists(IN_A_KEY).map(lambda found: json.dumps({"keys": found}).encode())
)
@example(b"[" * 100_000)
@example(b'{"keys": [' + b'{"limits": ' * 100_000)
def test_whatever_is_in_the_file_is_keys_or_a_refusal(content: bytes) -> None:
    with suppress(KeysUnusable):
        assert isinstance(parsed(content), list)


@pytest.mark.parametrize(
    "headers",
    [
        bearer("gs-right"),
        [(b"authorization", b"bearer gs-right")],
        [(b"authorization", b"BEARER   gs-right ")],
        [(b"api-key", b"gs-right")],
        [(b"x-api-key", b"gs-right")],
        [(b"x-api-key", b"other"), (b"host", b"x"), (b"api-key", b"gs-right")],
        [(b"x-api-key", b"other"), (b"api-key", b"other"), *bearer("gs-right")],
    ],
)
def test_a_key_is_taken_from_the_headers_of_all_three_kinds_of_clients(headers: Headers) -> None:
    who = Keyring([key_for("gs-right"), key_for("other-one", name="bob")]).caller(headers)

    assert (who.name, who.tenant) == ("alice", "acme")


WRONG: dict[str, Headers] = {
    "none": [],
    "empty": bearer(""),
    "no scheme": [(b"authorization", b"gs-right")],
    "wrong scheme": [(b"authorization", b"Basic gs-right")],
    "scheme alone": [(b"authorization", b"Bearer")],
    "unknown": bearer("gs-wrong"),
    "too long": bearer("gs-right" * 5000),
    "longer by one": bearer("gs-right1"),
    "shorter by one": bearer("gs-righ"),
    "in capitals": bearer("GS-RIGHT"),
    "not ascii": [(b"authorization", b"Bearer \xff\xfe")],
    "its digest": bearer(digest(b"gs-right").hex()),
    "expired": bearer("gs-expired"),
    "right, behind a wrong one": [*bearer("gs-wrong"), (b"api-key", b"gs-right")],
}


def closed() -> Keyring:
    return Keyring([key_for("gs-right"), key_for("gs-expired", name="old", expires_at=1)])


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_whatever_is_wrong_is_refused_in_the_same_words_after_the_same_steps(
    headers: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    compare_digest = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare_digest(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    with pytest.raises(Unauthenticated) as refused:
        closed().caller(headers)

    assert str(refused.value) == module._REFUSAL
    assert compared == [(32, 32)]


def test_a_key_is_not_let_in_any_more_from_the_second_of_its_end_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyring = Keyring([key_for("gs-a", expires_at=1000)])
    for now, expected in ((999.9, True), (1000.0, False), (1000.1, False)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert is_let_in(keyring, "gs-a") is expected


def test_finding_the_caller_costs_microseconds() -> None:
    keyring = Keyring([key_for(f"gs-{i}", name=f"n{i}") for i in range(1000)])
    headers = [*((f"h{i}".encode(), b"x") for i in range(12)), *bearer("gs-500")]
    best = 1.0
    for _ in range(20):
        began = time.process_time()
        for _ in range(100):
            keyring.caller(headers)
        best = min(best, (time.process_time() - began) / 100)

    assert best < 50e-6


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def test_a_new_file_is_its_owners_alone_and_nothing_but_the_lock_stays_beside_it(
    file: KeyFile,
) -> None:
    with file.changing(may_be_new=True) as keys:
        keys.append(key_for("a"))

    assert file.path.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in file.path.parent.iterdir()} == {"keys.json", ".keys.json.lock"}
    assert file.read() == [key_for("a")]


def test_a_file_is_exchanged_and_not_written_to(file: KeyFile) -> None:
    file.path.write_bytes(written([key_for("a")]))
    with file.path.open("rb") as before:
        with file.changing() as keys:
            keys.append(key_for("b", name="bob"))

        assert parsed(before.read()) == [key_for("a")]
    assert [key.name for key in file.read()] == ["alice", "bob"]


def test_a_change_that_fails_changes_nothing(file: KeyFile) -> None:
    file.path.write_bytes(written([key_for("a")]))
    with pytest.raises(KeysUnusable, match="no"), file.changing() as keys:
        keys.clear()
        raise KeysUnusable("no")

    assert file.read() == [key_for("a")]


def test_behind_a_link_the_file_is_changed_and_the_link_stays(
    file: KeyFile, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.json"
    file.path.symlink_to(real)
    with file.changing(may_be_new=True) as keys:
        keys.append(key_for("a"))

    assert file.path.is_symlink()
    assert parsed(real.read_bytes()) == [key_for("a")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_root_leaves_a_file_to_the_user_whose_it_was(file: KeyFile) -> None:
    file.path.write_bytes(written([]))
    os.chown(file.path, 12345, 54321)
    with file.changing() as keys:
        keys.append(key_for("a"))

    found = file.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 54321, 0o600)


def _add(path: Path, name: str) -> None:
    with KeyFile(path).changing(may_be_new=True) as keys:
        time.sleep(0.01)
        keys.append(key_for(name, name=name))


def test_of_many_changes_at_the_same_time_none_is_lost(file: KeyFile) -> None:
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(4) as pool:
        pool.starmap(_add, [(file.path, f"n{i}") for i in range(40)])

    assert {key.name for key in file.read()} == {f"n{i}" for i in range(40)}


@asynccontextmanager
async def following(file: KeyFile) -> AsyncIterator[Keyring]:
    keyring = Keyring(file.read(), file)
    watching = asyncio.create_task(keyring.watch())
    try:
        yield keyring
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def within(seconds: float, condition: Any) -> bool:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(0.02)
    return True


@pytest.mark.anyio
async def test_a_key_that_is_added_is_let_in_and_one_that_is_removed_no_more(file: KeyFile) -> None:
    file.path.write_bytes(written([key_for("a")]))
    async with following(file) as keyring:
        assert is_let_in(keyring, "a")
        with file.changing() as keys:
            keys[:] = [key_for("b", name="bob")]

        assert await within(10.0, lambda: is_let_in(keyring, "b"))
        assert not is_let_in(keyring, "a")


@pytest.mark.anyio
async def test_a_change_that_time_and_size_do_not_tell_is_seen(file: KeyFile) -> None:
    file.path.write_bytes(written([key_for("a")]))
    before = file.path.stat()
    async with following(file) as keyring:
        with file.path.open("r+b") as same:
            same.write(written([key_for("b")]))
        os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))

        assert await within(10.0, lambda: is_let_in(keyring, "b"))
        assert not is_let_in(keyring, "a")


@pytest.mark.anyio
@pytest.mark.parametrize("broken", ["half", "gone", "a folder"])
async def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_once(
    broken: str, file: KeyFile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_S", 0.02)
    caplog.set_level(logging.INFO, logger=module.__name__)
    file.path.write_bytes(written([key_for("a")]))
    async with following(file) as keyring:
        good = file.path.read_bytes()
        if broken == "half":
            file.path.write_bytes(good[: len(good) // 2])
        else:
            file.path.unlink()
        if broken == "a folder":
            file.path.mkdir()
        assert await within(10.0, lambda: caplog.records)
        await asyncio.sleep(0.2)

        assert is_let_in(keyring, "a")
        [told] = caplog.records
        assert (told.levelname, "\n" in told.message) == ("ERROR", False)
        assert str(file.path) in told.message
        assert key_for("a").sha256 not in told.message

        if broken == "a folder":
            file.path.rmdir()
        file.path.write_bytes(written([]))
        assert await within(10.0, lambda: not is_let_in(keyring, "a"))
        assert caplog.messages[1:] == [f"{file.path} has changed: 0 keys are let in"]


@pytest.mark.anyio
async def test_keys_that_are_no_file_are_not_followed() -> None:
    await asyncio.wait_for(Keyring([key_for("a")]).watch(), 10)


def settings(**stated: Any) -> GatewaySettings:
    return GatewaySettings(**{"open_access": False, **stated})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_access_is_open_on_a_loopback_address_where_that_is_said(host: str) -> None:
    assert configured_keyring(settings(open_access=True, listen_host=host)) is None


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "192.168.1.1", "example.org", "127.0.0.1.example.org", "::ffff:0:0"],
)
def test_access_is_open_on_no_other_address(host: str) -> None:
    with pytest.raises(KeysUnusable, match="GROUNDSERVE_OPEN_ACCESS is for a loopback address"):
        configured_keyring(settings(open_access=True, listen_host=host))


def test_without_keys_and_open_access_nothing_is_configured() -> None:
    with pytest.raises(KeysUnusable, match="nobody would be let in: make a key with"):
        configured_keyring(settings())


@pytest.mark.parametrize(
    "said",
    [
        {"api_keys": '{"keys": []}', "open_access": True},
        {"api_keys_file": "keys.json", "open_access": True},
        {"api_keys_file": "keys.json", "api_keys": '{"keys": []}'},
    ],
)
def test_two_ways_to_say_who_may_ask_exclude_each_other(said: dict[str, Any]) -> None:
    with pytest.raises(KeysUnusable, match="exclude each other"):
        configured_keyring(settings(**said))


def test_keys_may_come_in_a_variable() -> None:
    keyring = configured_keyring(settings(api_keys=written([key_for("a")]).decode()))

    assert keyring is not None
    assert is_let_in(keyring, "a")
    assert not is_let_in(keyring, "b")
    with pytest.raises(KeysUnusable, match=r"^GROUNDSERVE_API_KEYS: these are no keys: .*\$"):
        configured_keyring(settings(api_keys='{"keys": [1]}'))


def test_a_file_that_is_not_there_at_the_start_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        KeysUnusable, match=r"keys\.json is not there: `python -m gateway keys make"
    ):
        configured_keyring(settings(api_keys_file=tmp_path / "keys.json"))
