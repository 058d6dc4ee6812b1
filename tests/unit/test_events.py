"""Events put together from pieces, and looked at: what is one, and how a stream ends."""

from collections.abc import Iterable

import pytest

from gateway import events as module
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected
from gateway.events import Blocks, Watcher, check_whole, data_of, told_failure

CHUNK = b'data: {"choices":[{"index":%d,"delta":{"content":"a"},"finish_reason":%b}]}'
DEEP = b'{"choices":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def chunk(reason: bytes = b"null", index: int = 0) -> bytes:
    return CHUNK % (index, reason)


def put_together(pieces: Iterable[bytes]) -> list[bytes]:
    blocks = Blocks()
    return [*filter(None, map(blocks.whole, pieces))]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\n\n"])
def test_events_come_whole_however_they_are_cut(end: bytes) -> None:
    stream = b"".join(b"data: %d%b" % (number, end) for number in range(5))
    for size in range(1, len(stream) + 1):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        whole = put_together(pieces)

        assert b"".join(whole) == stream
        assert all(block.endswith(end) for block in whole)


def test_the_beginning_of_an_event_waits_for_its_rest() -> None:
    blocks = Blocks()

    assert blocks.whole(b"data: 1\n\nda") == b"data: 1\n\n"
    assert blocks.whole(b"ta: 2\n") == b""
    assert blocks.whole(b"\n") == b"data: 2\n\n"


def test_an_event_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_AN_EVENT", 1000)
    blocks = Blocks()
    assert blocks.whole(b"x" * 1000) == b""
    with pytest.raises(UpstreamBroken, match="longer than 1000 bytes"):
        blocks.whole(b"x")


def test_looking_for_its_end_does_not_begin_anew_with_each_piece() -> None:
    """A megabyte in pieces of a few bytes: quadratic, that would take minutes."""
    blocks = Blocks()
    for _ in range(2**17):
        assert blocks.whole(b"12345678") == b""

    assert len(blocks.whole(b"\n\n")) == 2**20 + 2


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}", b" {}"),
        (b"data:{}", b"{}"),
        (b": ping", b""),
        (b"", b""),
        (b"event: x\ndata: {}", b" {}"),
        (b"event: x\r\nid: 1\r\nretry: 5\r\ndata: {}", b" {}"),
        (b"data: {\ndata: }", b" {\n }"),
    ],
)
def test_what_an_event_says_is_its_data(event: bytes, data: bytes) -> None:
    assert data_of(event) == data


@pytest.mark.parametrize(
    "said", [b"<html>", b"{}", b"data: {}\n<html>", b"HTTP/1.1 200 OK", b"data: \xff", b"\x00"]
)
def test_what_is_no_event_is_a_broken_answer(said: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        data_of(said)


def watched(*events: bytes) -> Watcher:
    watcher = Watcher()
    for event in events:
        assert watcher.edit(event) == event
    return watcher


def test_a_stream_is_complete_when_each_choice_was_finished_and_it_says_that_it_is_done() -> None:
    finished = watched(chunk(), chunk(index=1), chunk(b'"stop"'), chunk(b'"length"', 1))
    assert not finished.is_complete

    finished.edit(b"data: [DONE]")
    assert finished.is_complete


def test_what_comes_of_a_finished_choice_does_not_begin_it_anew() -> None:
    assert watched(chunk(b'"stop"'), chunk(), b"data: [DONE]").is_complete


@pytest.mark.parametrize(
    "before",
    [
        [],
        [b": ping"],
        [b'data: {"choices":[],"usage":{}}'],
        [chunk()],
        [chunk(b'"stop"'), chunk(index=1)],
    ],
)
def test_who_says_so_too_early_has_cut_it_off(before: list[bytes]) -> None:
    watcher = watched(*before)
    with pytest.raises(UpstreamBroken, match="ended before it was complete"):
        watcher.edit(b"data: [DONE]")


@pytest.mark.parametrize("reason", [b'"abort"', b'"error"'])
def test_an_answer_that_vllm_gave_up_is_broken(reason: bytes) -> None:
    with pytest.raises(UpstreamBroken, match="gave the answer up"):
        Watcher().edit(chunk(reason))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ({"message": "CUDA died", "code": 500}, UpstreamRejected, "CUDA died"),
        ({"message": "too long", "code": 400}, UpstreamRejected, "too long"),
        ({"message": "died", "code": "500"}, UpstreamRejected, "died"),
        ("died", UpstreamRejected, "died"),
        ({"code": 500}, UpstreamBroken, "makes no sense"),
        ({"message": 5}, UpstreamBroken, "makes no sense"),
        (5, UpstreamBroken, "makes no sense"),
    ],
)
def test_a_failure_that_is_reported_has_its_words(
    error: object, kind: type[UpstreamFailure], words: str
) -> None:
    failure = told_failure(error)
    assert type(failure) is kind
    assert words in getattr(failure, "message", str(failure))


@pytest.mark.parametrize(
    "event", [b'data: {"error":{"message":"died"}}', b'data:{ "error" : {"message":"died"}}']
)
def test_it_is_one_however_it_is_written(event: bytes) -> None:
    with pytest.raises(UpstreamRejected) as reported:
        Watcher().edit(event)
    assert reported.value.message == "died"


def test_no_error_is_none() -> None:
    watched(b'data: {"choices":[],"error":null}')


def test_an_event_that_is_nested_too_deeply_to_be_read_makes_no_sense() -> None:
    with pytest.raises(UpstreamBroken, match="makes no sense"):
        Watcher().edit(b"data: " + DEEP)


def test_a_whole_answer_that_is_finished_is_one() -> None:
    check_whole(b'{"choices":[{"finish_reason":"stop"},{"finish_reason":"tool_calls"}]}')


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", UpstreamBroken),
        (b"<html>", UpstreamBroken),
        (b"[]", UpstreamBroken),
        (b"{}", UpstreamBroken),
        (b'{"choices":[]}', UpstreamBroken),
        (b'{"choices":[{"finish_reason":"stop"},{}]}', UpstreamBroken),
        (b'{"choices":[{"finish_reason":"abort"}]}', UpstreamBroken),
        (b'{"choices":[{"finish_reason":"stop","text":"\xff"}]}', UpstreamBroken),
        (b'{"choices":[{"finish_reason":"stop"}]', UpstreamBroken),
        (b'{"error":{"message":"died","code":500}}', UpstreamRejected),
        (DEEP, UpstreamBroken),
    ],
    ids=range(11),
)
def test_anything_else_is_a_failure(body: bytes, kind: type[UpstreamFailure]) -> None:
    with pytest.raises(UpstreamFailure) as failed:
        check_whole(body)
    assert type(failed.value) is kind
