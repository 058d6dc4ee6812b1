"""Faults of vLLM, and what clients see of each.

That is the status and the code of the error, or `event` and its code where an answer had begun.
"""

from collections.abc import Callable
from typing import NamedTuple

from tests.integration.faulty_vllm import JSON, Call, Fault, answers, head, streamed, whole

MUCH = 4 * 1024 * 1024
"""More of one thing than the gateway reads in these tests."""
ERROR = b'{"error":{"message":"CUDA died","type":"InternalServerError","param":null,"code":500}}'
DEEP = b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
PAGE = b"<html>\n\n<body>Bad gateway</body>\n\n</html>\n\n"
BROKEN = "model_answer_broken"
FAILED = "model_server_failed"
CHUNKED = "transfer-encoding: chunked"


def unfinished(call: Call, reason: bytes) -> list[bytes]:
    """The right answer, but for why it ends."""
    said = answers(call)
    if call.path == "/v1/responses":
        status = b'"cancelled"' if reason != b"null" else b'"in_progress"'
        if call.is_stream and reason == b"null":
            return streamed(*call.pieces[:-1])
        pieces = [piece.replace(b'"completed"', status) for piece in call.pieces]
        return streamed(*pieces, kind=call.kind)
    reason = b"null" if call.path == "/v1/messages" else reason
    ends = (b'"finish_reason": "stop"', b'"stop_reason": "end_turn"')
    pieces = call.pieces
    for end in ends:
        pieces = [piece.replace(end, end.split(b" ")[0] + b" " + reason) for piece in pieces]
    assert pieces != call.pieces
    return [said[0], *streamed(*pieces, kind=call.kind)[1:]]


def sized(call: Call, difference: int) -> list[bytes]:
    body = b"".join(call.pieces)
    return [head(200, call.kind, f"content-length: {len(body) + difference}"), body]


def first(call: Call) -> list[bytes]:
    """The beginning of the right answer."""
    return streamed(call.pieces[0], kind=call.kind, ends=False)


def endless(kind: bytes) -> Callable[[Call], list[bytes]]:
    return lambda call: streamed(kind, *[b"x" * 65536] * (MUCH // 65536), kind=call.kind)


def garbled(event: bytes) -> Callable[[Call], list[bytes]]:
    """`event` in the middle of a stream, or for a whole answer."""

    def said(call: Call) -> list[bytes]:
        if call.is_stream:
            return streamed(call.pieces[0], b"data: " + event + b"\n\n", *call.pieces[1:])
        return [whole(200, event)]

    return said


class Row(NamedTuple):
    """A fault, and what clients see: of a whole answer, and of a stream."""

    fault: Fault
    whole: str | None
    stream: str | None
    asked: tuple[int, int] = (1, 1)
    """How often the server is asked, at least and at most."""


def same(fault: Fault, seen: str, asked: tuple[int, int] = (1, 1)) -> Row:
    return Row(fault, seen, seen, asked)


AWAY = "503 model_unavailable"
TWICE = (2, 2)
IF_KEPT = (1, 2)
"""Once more where the connection had been kept: the server may have closed it as idle."""
BEFORE = f"502 {BROKEN}"
WITHIN = f"event {BROKEN}"
FAULTS: dict[str, Row] = {
    "none": same(Fault(answers, "keep"), "200 whole"),
    "closes without a word": same(Fault(lambda _: []), AWAY, IF_KEPT),
    "resets without a word": same(Fault(lambda _: [], "reset"), AWAY, IF_KEPT),
    "hangs without a word": same(Fault(lambda _: [], "hang"), BEFORE),
    "half of its headers": same(Fault(lambda _: [b"HTTP/1.1 200 OK\r\nconten"]), AWAY),
    "headers without an end": same(
        Fault(lambda _: [head()[:-2], *[b"x-more: %b\r\n" % (b"x" * 8000)] * 600], "hang"), BEFORE
    ),
    "no HTTP": same(Fault(lambda _: [b"SSH-2.0-OpenSSH\r\n"]), BEFORE),
    "hangs behind its headers": same(Fault(lambda c: [head(200, c.kind, CHUNKED)], "hang"), BEFORE),
    "400": same(Fault(lambda _: [whole(400, ERROR)], "keep"), "400 None"),
    "429": same(Fault(lambda _: [whole(429, ERROR)], "keep"), "429 rate_limit_exceeded"),
    "302": same(Fault(lambda _: [whole(302, b"", JSON, "location: /")], "keep"), f"502 {FAILED}"),
    "500": same(Fault(lambda _: [whole(500, ERROR)], "keep"), f"502 {FAILED}"),
    "500 with a page": same(Fault(lambda _: [whole(500, PAGE, "text/html")]), f"502 {FAILED}"),
    "500 that hangs": same(Fault(lambda _: [sized_error(99)], "hang"), f"502 {FAILED}"),
    "500 that is reset": same(Fault(lambda _: [sized_error(99)], "reset"), f"502 {FAILED}"),
    "503": same(Fault(lambda _: [whole(503, ERROR)], "keep"), AWAY, TWICE),
    "200 with an error inside": same(Fault(lambda _: [whole(200, ERROR)], "keep"), f"502 {FAILED}"),
    "an error event": Row(Fault(garbled(ERROR), "keep"), f"502 {FAILED}", f"event {FAILED}"),
    "an error event at once": Row(
        Fault(lambda _: streamed(b"data: " + ERROR + b"\n\n"), "keep"), None, f"event {FAILED}"
    ),
    "a page": same(Fault(lambda _: [whole(200, PAGE, "text/html")], "keep"), BEFORE),
    "a page that is called right": Row(
        Fault(lambda c: [whole(200, PAGE, c.kind)], "keep"), BEFORE, WITHIN
    ),
    "no JSON": Row(Fault(garbled(b"{nonsense}"), "keep"), BEFORE, WITHIN),
    "JSON of something else": Row(Fault(garbled(b"[1, 2]"), "keep"), BEFORE, WITHIN),
    "JSON nested too deeply": Row(Fault(garbled(DEEP), "keep"), BEFORE, WITHIN),
    "half of the JSON": Row(Fault(garbled(b'{"id": "x", "choi'), "keep"), BEFORE, WITHIN),
    "no UTF-8": Row(Fault(garbled(b'{"type":"ping","id":"\xff"}'), "keep"), BEFORE, WITHIN),
    "without an end": Row(Fault(endless(b"data: {")), BEFORE, WITHIN),
    "no reason to end": Row(Fault(lambda c: unfinished(c, b"null"), "keep"), BEFORE, WITHIN),
    "gives up": Row(Fault(lambda c: unfinished(c, b'"abort"'), "keep"), BEFORE, WITHIN),
    "no last event": Row(Fault(lambda c: streamed(*c.pieces[:-1]), "keep"), None, WITHIN),
    "closes in the middle": Row(Fault(first), BEFORE, WITHIN),
    "half-closes in the middle": Row(Fault(first, "half-close"), BEFORE, WITHIN),
    "is reset in the middle": Row(Fault(first, "reset"), BEFORE, WITHIN),
    "stalls in the middle": Row(Fault(first, "hang"), BEFORE, WITHIN),
    "no chunks": same(Fault(lambda c: [head(200, c.kind, CHUNKED), b"nonsense\r\n"]), BEFORE),
    "no chunk in the middle": Row(Fault(lambda c: [*first(c), b"nonsense\r\n"]), BEFORE, WITHIN),
    "a length that is too short": Row(Fault(lambda c: sized(c, -5)), BEFORE, WITHIN),
    "a length that is too long": Row(Fault(lambda c: sized(c, 5)), BEFORE, "200 whole"),
}


def sized_error(more: int) -> bytes:
    return head(500, JSON, f"content-length: {len(ERROR) + more}") + ERROR
