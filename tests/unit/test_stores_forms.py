"""The form of an upload: read in whatever pieces it comes, and what is refused."""

import tracemalloc
from collections.abc import AsyncIterator

import pytest

from gateway.errors import InvalidRequest
from gateway.stores.forms import FIELD_MAX_BYTES, IN_MEMORY_BYTES, MOST_PARTS, Form
from indexer.index.errors import LibraryUnavailable

BOUNDARY = "b0undary"
NAME = 'form-data; name="file"; filename="{}"'


def part(disposition: str, content: bytes) -> bytes:
    return (
        f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
    )


def field(name: str, value: bytes = b"x") -> bytes:
    return part(f'form-data; name="{name}"', value)


def file(content: bytes, name: str = "a.md") -> bytes:
    return part(NAME.format(name), content)


END = f"--{BOUNDARY}--\r\n".encode()


async def in_pieces(content: bytes, length: int) -> AsyncIterator[bytes]:
    for at in range(0, len(content), length):
        yield content[at : at + length]


async def read(body: bytes, length: int = 64) -> Form:
    form = Form()
    try:
        await form.read(in_pieces(body, length), BOUNDARY)
    except BaseException:
        form.close()
        raise
    return form


@pytest.mark.anyio
@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 1000])
async def test_a_form_is_the_same_in_whatever_pieces_it_comes(length: int) -> None:
    content = f"\r\n--{BOUNDARY[:-1]}\r\n--\r\n\x00\xff".encode("latin-1")
    body = field("purpose", b"assistants") + file(content) + field("a", "ä".encode()) + END

    form = await read(body, length)
    assert form.fields == {"purpose": "assistants", "a": "ä"}
    assert (form.filename, form.bytes) == ("a.md", len(content))
    assert form.data.read() == form.data.read() == content
    form.close()


@pytest.mark.anyio
async def test_a_form_without_a_file_has_none() -> None:
    form = await read(field("purpose") + END)

    assert (form.filename, form.bytes, form.data.read()) == (None, 0, b"")
    form.close()


@pytest.mark.anyio
async def test_a_long_file_takes_no_more_memory_than_a_short_one() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield file(b"")[:-2]
        for _ in range(12 * IN_MEMORY_BYTES // len(megabyte)):
            yield megabyte
        yield b"\r\n" + END

    megabyte = bytes(1 << 16)
    form = Form()
    tracemalloc.start()
    try:
        await form.read(pieces(), BOUNDARY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert form.bytes == 12 * IN_MEMORY_BYTES
    assert peak < 4 * IN_MEMORY_BYTES
    form.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("param", "body"),
    [
        (None, b""),
        (None, b"{}"),
        (None, file(b"cut off")),
        (None, file(b"cut off")[:-2]),
        (None, b"".join(field(str(at)) for at in range(MOST_PARTS + 1)) + END),
        (None, f"--{BOUNDARY}\r\n{'x' * 9000}".encode()),
        ("file", file(b"a") + file(b"b") + END),
        ("file", field("file", b"no file name") + END),
        ("file", file(b"", name="") + END),
        ("purpose", field("purpose") + field("purpose") + END),
        ("purpose", field("purpose", b"x" * (FIELD_MAX_BYTES + 1)) + END),
        ("purpose", field("purpose", b"\xff") + END),
    ],
)
async def test_what_is_no_form_of_an_upload_is_refused(param: str | None, body: bytes) -> None:
    with pytest.raises(InvalidRequest) as failure:
        await read(body)
    assert failure.value.param == param


@pytest.mark.anyio
async def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    form = Form()
    form.close()
    monkeypatch.setattr(form, "_file", type("Full", (), {"write": staticmethod(full)}))
    with pytest.raises(LibraryUnavailable, match="No space left"):
        await form.read(in_pieces(file(b"x") + END, 100), BOUNDARY)


@pytest.mark.anyio
async def test_a_body_that_breaks_off_is_told_from_a_form_that_is_wrong() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield file(b"begun")[:-2]
        raise ConnectionError("the client closed the connection")

    form = Form()
    with pytest.raises(ConnectionError):
        await form.read(pieces(), BOUNDARY)
    form.close()
