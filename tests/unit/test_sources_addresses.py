"""Nothing that a page, a redirect or a name server says leads to an address that is not public."""

import itertools
import socket
from collections.abc import Callable, Iterator

import pytest

from indexer.errors import DocumentUnusable
from indexer.sources import WebRules
from indexer.sources.web import connections
from indexer.sources.web.client import WebClient, redirected
from indexer.sources.web.connections import is_public
from tests.unit.web_fakes import FakeWeb, Reply, serving

Clients = Callable[..., WebClient]


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    with serving() as running:
        yield running


@pytest.fixture
def client() -> Iterator[Clients]:
    """Makes clients that are closed after the test."""
    made = []

    def make(rules: WebRules | None = None, **options: object) -> WebClient:
        made.append(WebClient(rules or WebRules(), **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def here_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as public, so that a first step can be made; all else is as it is."""
    monkeypatch.setattr(
        connections, "is_public", lambda address: address == "127.0.0.1" or is_public(address)
    )


def refusal(client: WebClient, url: str) -> str:
    with pytest.raises(DocumentUnusable) as refused:
        client.get(url)
    return str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_everyones_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"],
)
def test_other_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "good.example@127.0.0.1",
    ],
)
def test_this_machine_is_not_asked_whatever_it_is_called(
    web: FakeWeb, client: Clients, host: str
) -> None:
    told = refusal(client(), f"http://{host}:{web.port}/")

    assert "is not public" in told
    assert web.asked == []


def test_this_machine_is_asked_where_the_rules_allow_it(web: FakeWeb, client: Clients) -> None:
    web.replies["/"] = Reply(b"here")

    assert client(WebRules(allow_private=True)).get(f"{web.url}/").data == b"here"


def test_a_name_that_leads_to_a_private_address_is_refused(web: FakeWeb, client: Clients) -> None:
    reader = client(resolve=lambda *_: ["127.0.0.1"])

    told = refusal(reader, f"http://good.example:{web.port}/")

    assert told == "good.example, which is 127.0.0.1, is not public"
    assert web.asked == []


@pytest.mark.parametrize("addresses", [["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"]])
def test_one_private_address_among_public_ones_is_enough_to_refuse(
    client: Clients, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", None)

    assert "127.0.0.1, is not public" in refusal(
        client(resolve=lambda *_: addresses), "http://good.example/"
    )


def test_a_name_that_nobody_knows_is_told_at_once(client: Clients) -> None:
    asked = []

    def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    reader = client(WebRules(respect_robots=False), resolve=resolve)

    assert refusal(reader, "http://gone.example/") == (
        "cannot be reached: gone.example is not known"
    )
    assert asked == ["gone.example"]


@pytest.mark.usefixtures("here_is_public")
def test_the_connection_goes_to_the_address_that_was_checked(web: FakeWeb, client: Clients) -> None:
    """A name server that answers differently the second time is not asked a second time."""
    answers = itertools.chain([["127.0.0.1"]], itertools.repeat(["127.0.0.2"]))
    asked = []

    def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        return next(answers)

    web.replies["/"] = Reply(b"here")
    reader = client(WebRules(respect_robots=False), resolve=resolve)

    assert reader.get(f"http://good.example:{web.port}/").data == b"here"
    assert asked == ["good.example"]
    assert web.asked[0].headers["host"] == f"good.example:{web.port}"


def test_an_address_that_does_not_answer_leaves_the_others(web: FakeWeb, client: Clients) -> None:
    web.replies["/"] = Reply(b"here")
    reader = client(WebRules(allow_private=True), resolve=lambda *_: ["127.0.0.3", "127.0.0.1"])

    assert reader.get(f"http://good.example:{web.port}/").data == b"here"


@pytest.mark.usefixtures("here_is_public")
def test_every_new_connection_is_checked_anew(web: FakeWeb, client: Clients) -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    reader = client(WebRules(respect_robots=False), resolve=lambda *_: next(answers))
    web.replies["/"] = Reply(pieces=lambda: iter([b"then the connection ends"]))

    reader.get(f"http://good.example:{web.port}/")

    assert "127.0.0.2, is not public" in refusal(reader, f"http://good.example:{web.port}/")


@pytest.mark.usefixtures("here_is_public")
@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("http://127.0.0.2:{port}/secret", "127.0.0.2 is not public"),
        ("//127.0.0.2:{port}/secret", "127.0.0.2 is not public"),
        ("http://[::ffff:127.0.0.2]:{port}/", "::ffff:127.0.0.2 is not public"),
        ("http://2130706434:{port}/secret", "127.0.0.2, is not public"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 is not public"),
        ("file:///etc/passwd", "is redirected to something else than http or https"),
        ("ftp://127.0.0.1/", "is redirected to something else than http or https"),
        ("gopher://127.0.0.1:{port}/", "is redirected to something else than http or https"),
        ("http://user:secret@127.0.0.1:{port}/", "is redirected to an address with a user name"),
        ("http://0177.0.0.1:{port}/", "is redirected to something that is no URL"),
        ("http://127.0.0.1:99999999/", "is redirected to something that is no URL"),
    ],
)
def test_a_redirect_is_checked_as_a_first_address_is(
    web: FakeWeb, client: Clients, location: str, told: str
) -> None:
    web.replies["/"] = Reply(status=302, headers={"Location": location.format(port=web.port)})

    assert told in refusal(client(), f"{web.url}/")
    assert web.paths() == ["/"]


def test_a_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(DocumentUnusable, match="is redirected from https to http"):
        redirected("https://example.org/a", "http://example.org/a")


def test_a_redirect_is_relative_to_what_it_comes_from() -> None:
    assert redirected("http://example.org/a/b?c", "../d#e") == "http://example.org/d"
    assert redirected("http://example.org/", "https://other.org") == "https://other.org/"


@pytest.mark.usefixtures("here_is_public")
def test_five_redirects_are_followed_and_no_sixth(web: FakeWeb, client: Clients) -> None:
    for number in range(6):
        web.replies[f"/{number}"] = Reply(status=301, headers={"Location": f"/{number + 1}"})
    web.replies["/6"] = Reply(b"the end")
    reader = client()

    assert reader.get(f"{web.url}/1").data == b"the end"
    assert refusal(reader, f"{web.url}/0") == "is redirected more than 5 times"


def test_proxies_of_the_environment_are_not_used(
    web: FakeWeb, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, web.url)

    reader = client(resolve=lambda *_: ["127.0.0.1"])

    assert "is not public" in refusal(reader, "http://good.example/")
    assert web.asked == []


def test_a_configured_proxy_is_asked(web: FakeWeb, client: Clients) -> None:
    web.replies["http://good.example/page"] = Reply(b"through the proxy")
    rules = WebRules(
        allow_private=True, proxy=f"http://user:word@127.0.0.1:{web.port}", respect_robots=False
    )

    assert client(rules).get("http://good.example/page").data == b"through the proxy"
    assert web.asked[0].headers["proxy-authorization"] == "Basic dXNlcjp3b3Jk"
