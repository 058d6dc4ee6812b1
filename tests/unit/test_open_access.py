"""A gateway without keys is there for its own machine, by its own names."""

import pytest

from gateway.access.open_access import anybody_here
from gateway.errors import Refused


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:8080", "127.8.9.1:1", "[::1]:8080"],
)
def test_who_asks_for_this_machine_is_let_in(host: str) -> None:
    caller = anybody_here("acme")([(b"accept", b"*/*"), (b"host", host.encode())])

    assert caller.tenant == "acme"


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ),
        *("10.0.0.1:8080", "0.0.0.0", "[::2]:8080", "::1]", "[]", "localhost@evil.example"),
        "evil.example:127.0.0.1",
    ],
)
def test_who_asks_for_another_host_is_not(host: str) -> None:
    with pytest.raises(Refused) as refused:
        anybody_here("acme")([(b"host", host.encode())])

    assert (refused.value.status, refused.value.code) == (403, "host_not_allowed")


def test_a_request_without_a_host_is_not_let_in() -> None:
    with pytest.raises(Refused):
        anybody_here("acme")([])
