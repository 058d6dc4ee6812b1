"""Whose a response is, told by its id."""

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.callers import Caller, acting_as
from gateway.responses.ids import is_own, new_id

TENANTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
HEX = st.text("0123456789abcdef", min_size=1, max_size=40)


def made_by(tenant: str) -> str:
    with acting_as(Caller(name="x", tenant=tenant)):
        return new_id()


def is_of(tenant: str, response_id: str) -> bool:
    with acting_as(Caller(name="y", tenant=tenant)):
        return is_own(response_id)


@given(one=TENANTS, other=TENANTS)
def test_an_id_is_that_of_its_tenant_alone(one: str, other: str) -> None:
    made = made_by(one)

    assert re.fullmatch("resp_[0-9a-f]{48}", made)
    assert is_of(one, made)
    assert is_of(other, made) is (one == other)


@given(tenant=TENANTS, moved=HEX)
def test_a_tenant_that_ends_like_an_id_is_another_one(tenant: str, moved: str) -> None:
    """Tenant and random bits stand side by side in what is hashed."""
    made = made_by(tenant + moved)

    assert not is_of(tenant, made)
    assert not is_of(tenant, f"resp_{moved}{made.removeprefix('resp_')}")


@given(said=st.text(max_size=80) | HEX.map(lambda digits: f"resp_{digits}"))
def test_what_no_gateway_has_made_is_nobodys(said: str) -> None:
    assert not is_of("acme", said)


def test_no_two_ids_are_the_same() -> None:
    assert len({made_by("acme") for _ in range(1000)}) == 1000


def test_an_id_is_not_taken_with_something_around_it() -> None:
    made = made_by("acme")
    for changed in (made.upper(), f"{made}\n", f" {made}", f"{made}0", made[:-1], f"{made}/cancel"):
        assert not is_of("acme", changed)
