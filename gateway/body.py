"""The JSON object of a request: what is read is decoded, the rest stays as it came."""

import re
from typing import Annotated, Any

import msgspec

from gateway.errors import InvalidRequest

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a wrong value; the last one for a very deep one."""

COUNT = Annotated[int, msgspec.Meta(ge=1)] | None
"""How often something is to be done."""
_PLACE = re.compile(r" - at `\$(.*)`$")
"""How msgspec tells where in a value it met what it did not expect."""
_NULL = msgspec.Raw(b"null")


class Body:
    """The fields of a request, byte for byte."""

    def __init__(self, content: bytes) -> None:
        """Raises InvalidRequest when `content` is no JSON object."""
        try:
            self.fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        except UNREADABLE as exc:
            raise InvalidRequest(f"The request body is not a JSON object: {exc}") from exc

    def get(self, name: str, expected: Any) -> Any:
        """The field as `expected`, a type; None where it is missing. Raises InvalidRequest."""
        raw = self.fields.get(name)
        return None if raw is None else decoded(raw, expected, name)

    def required(self, name: str, expected: Any) -> Any:
        """The field as `expected`. Raises InvalidRequest, also where it is missing or null."""
        if self.is_absent(name):
            raise InvalidRequest(f"Missing required parameter: {name!r}.", name)
        return self.get(name, expected)

    def lenient(self, name: str, expected: Any, default: Any = None) -> Any:
        """The field as `expected`; `default` where it is something else, which vLLM refuses."""
        try:
            found = self.get(name, expected | None)
        except InvalidRequest:
            return default
        return default if found is None else found

    def is_absent(self, name: str) -> bool:
        """Whether the field is missing, or null."""
        return bytes(self.fields.get(name, _NULL)) == b"null"

    def raw(self, name: str) -> bytes:
        """The field as it came; empty where it is missing."""
        return bytes(self.fields.get(name, b""))


def decoded(raw: msgspec.Raw, expected: Any, name: str) -> Any:
    """`raw`, the part of a request that is called `name`, as `expected`. Raises InvalidRequest."""
    try:
        return msgspec.json.decode(raw, type=expected)
    except UNREADABLE as exc:
        place = _PLACE.search(str(exc))
        param = name + (place[1] if place else "")
        raise InvalidRequest(f"Invalid value for {param!r}: {exc}", param) from exc
