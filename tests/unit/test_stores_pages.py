"""Pages of a list: against an oracle, and what clients may say."""

import time
from itertools import product
from typing import NamedTuple

import pytest

from gateway.errors import InvalidRequest
from gateway.stores.pages import FilesQuery, Page, PageQuery, listing, page
from indexer.index.library import made_at, new_id


class Item(NamedTuple):
    id: str


def items(count: int) -> list[Item]:
    """The odd numbers, oldest first: between two of them something may have been."""
    return [Item(f"{1 + 2 * at:02}") for at in range(count)]


def expected(there: list[Item], query: PageQuery) -> tuple[list[str], bool]:
    """The page by OpenAI's own words, one item at a time."""
    ids = sorted((item.id for item in there), reverse=query.newest_first)

    def is_behind(one: str, other: str) -> bool:
        return one < other if query.newest_first else one > other

    if query.after is not None:
        ids = [each for each in ids if is_behind(each, query.after)]
    if query.before is not None:
        ids = [each for each in ids if is_behind(query.before, each)]
    if query.before is not None and query.after is None:
        return ids[max(0, len(ids) - query.limit) :], len(ids) > query.limit
    return ids[: query.limit], len(ids) > query.limit


def got(there: list[Item], query: PageQuery) -> tuple[list[str], bool]:
    def place(cursor: str) -> int:
        return sum(item.id < cursor for item in there)

    found = page(there, query, lambda item: item.id, place)
    return [item.id for item in found.items], found.has_more


@pytest.mark.parametrize("count", range(6))
def test_a_page_is_what_an_oracle_says_for_every_cursor_that_is_there_or_gone(count: int) -> None:
    there = items(count)
    cursors = [None, *(f"{at:02}" for at in range(2 * count + 1))]
    for limit, newest_first, after, before in product((1, 2, 3), (True, False), cursors, cursors):
        query = PageQuery(limit, newest_first, after, before)
        assert got(there, query) == expected(there, query), query


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_whoever_goes_on_behind_the_last_item_sees_each_once(
    limit: int, newest_first: bool
) -> None:
    there, seen, after = items(7), list[str](), None
    while True:
        ids, has_more = got(there, PageQuery(limit, newest_first, after))
        seen += ids
        if not has_more:
            break
        after = ids[-1]

    assert seen == sorted((item.id for item in there), reverse=newest_first)


def test_who_deletes_each_page_that_he_sees_still_sees_each_item_once() -> None:
    there, seen, after = items(7), list[str](), None
    while True:
        ids, has_more = got(there, PageQuery(2, True, after))
        seen += ids
        there = [item for item in there if item.id not in ids]
        if not has_more:
            break
        after = ids[-1]

    assert len(seen) == len(set(seen)) == 7


@pytest.mark.parametrize(
    ("name", "query"),
    [("after", PageQuery(after="x" * 1000)), ("before", PageQuery(before="x" * 1000))],
)
def test_a_cursor_of_which_nothing_is_known_is_refused_by_name(name: str, query: PageQuery) -> None:
    with pytest.raises(InvalidRequest) as failure:
        page(items(2), query, lambda item: item.id)
    assert failure.value.param == name
    assert len(str(failure.value)) < 300


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({}, PageQuery(20, True)),
        ({"limit": "1", "order": "asc"}, PageQuery(1, False)),
        ({"limit": "100", "after": "a", "before": "b"}, PageQuery(100, True, "a", "b")),
        ({"after": "", "before": "", "api-version": "1"}, PageQuery()),
    ],
)
def test_what_a_client_may_say(params: dict[str, str], wanted: PageQuery) -> None:
    assert PageQuery.read(params) == wanted


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "", "x", "\u0663", "9" * 5000, "1e1"])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    with pytest.raises(InvalidRequest, match="from 1 to 100") as failure:
        PageQuery.read({"limit": limit})
    assert failure.value.param == "limit"


@pytest.mark.parametrize("order", ["", "ASC", "newest", "desc "])
def test_an_order_that_is_none_is_refused(order: str) -> None:
    with pytest.raises(InvalidRequest) as failure:
        PageQuery.read({"order": order})
    assert failure.value.param == "order"


def test_the_status_of_files_is_one_of_four() -> None:
    assert FilesQuery.read({"filter": "failed"}).status == "failed"
    assert FilesQuery.read({}) == FilesQuery()
    with pytest.raises(InvalidRequest) as failure:
        FilesQuery.read({"filter": "done"})
    assert failure.value.param == "filter"


def test_an_empty_list_has_neither_first_nor_last() -> None:
    assert listing([], has_more=False) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_a_list_names_its_first_and_its_last_item() -> None:
    told = Page(["a", "b"], has_more=True).told(lambda item: {"id": item})

    assert (told["first_id"], told["last_id"], told["has_more"]) == ("a", "b", True)
    assert told["data"] == [{"id": "a"}, {"id": "b"}]


def test_ids_tell_when_they_were_made() -> None:
    before = int(time.time())
    made = [made_at(new_id("file")), made_at(new_id("vector store")), made_at(new_id("file batch"))]

    assert all(each is not None and before <= each <= time.time() for each in made)
    assert made_at("vs_1") is made_at("handbook") is made_at(f"vs_{'g' * 32}") is None
