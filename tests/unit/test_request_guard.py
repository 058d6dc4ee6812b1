"""What of a request reaches a vLLM server that other tenants use too."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.callers import Caller, acting_as
from gateway.access.request_guard import RequestGuard
from gateway.body import Body
from gateway.errors import InvalidRequest

GUARD = RequestGuard("default")


def sent(said: dict[str, Any] | bytes, tenant: str = "default") -> dict[str, Any]:
    """The fields that are left, and those that were added."""
    body = Body(said if isinstance(said, bytes) else msgspec.json.encode(said))
    with acting_as(Caller(name="x", tenant=tenant)):
        GUARD.guard(body)
    return {name: msgspec.json.decode(raw) for name, raw in body.fields.items()}


def test_a_gateway_with_one_tenant_changes_nothing() -> None:
    said = {"model": "m", "priority": 0, "vllm_xargs": {"a": 1}, "kv_transfer_params": None}

    assert sent(said) == said


def test_the_id_of_a_request_is_not_the_clients_choice() -> None:
    assert sent({"request_id": "somebody's", "model": "m"}) == {"model": "m"}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"kv_transfer_params": {"remote_host": "10.0.0.1"}}, "kv_transfer_params"),
        ({"ec_transfer_params": {}}, "ec_transfer_params"),
        ({"vllm_xargs": {"kv_transfer_params": "x"}}, "vllm_xargs.kv_transfer_params"),
        ({"vllm_xargs": {"a": 1, "ec_transfer_params": 1}}, "vllm_xargs.ec_transfer_params"),
        ({"priority": -1}, "priority"),
        ({"priority": "-5"}, "priority"),
        ({"priority": -5.5}, "priority"),
        (b'{"priority": -5e0}', "priority"),
        (b'{"priority": -5.0}', "priority"),
        ({"cache_salt": 7}, "cache_salt"),
    ],
)
def test_what_reaches_for_others_is_refused_by_its_name(
    said: dict[str, Any] | bytes, param: str
) -> None:
    with pytest.raises(InvalidRequest) as failure:
        sent(said)

    assert failure.value.param == param


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SALTS = st.none() | TEXT


@given(tenants=st.lists(TEXT | st.just("default"), min_size=2, max_size=2, unique=True), salt=SALTS)
def test_no_two_tenants_have_a_salt_in_common_whatever_they_say(
    tenants: list[str], salt: str | None
) -> None:
    """Not even where one says what the other's is."""
    one, two = tenants
    theirs = sent({"cache_salt": salt}, one).get("cache_salt")
    ours = [sent({"cache_salt": said}, two).get("cache_salt") for said in (salt, theirs, None)]

    assert theirs is None or theirs not in ours
    assert theirs is not None or one == "default"
    assert all(each is not None for each in ours) or two == "default" or salt is None


@given(tenant=TEXT, salt=TEXT)
def test_a_salt_is_one_that_vllm_takes_and_the_same_on_every_gateway(
    tenant: str, salt: str
) -> None:
    first, second = (sent({"cache_salt": salt}, tenant)["cache_salt"] for _ in range(2))

    assert first == second
    assert 0 < len(first) <= 128
    assert not set("@/\\\0") & set(first)
