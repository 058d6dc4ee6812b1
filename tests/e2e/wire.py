"""What the gateway sends, byte by byte, held against the types of a client's SDK, strictly."""

import json
from typing import Any, Self

import httpx
from openai.types.shared import ErrorObject
from pydantic import TypeAdapter

TIMEOUT_S = 120


def strictly(kind: Any, raw: bytes | str) -> Any:
    """`raw` as an SDK's type: nothing is converted, and nothing that it requires may lack.

    The SDKs themselves are lenient: they build what they get, whatever it is.
    """
    return TypeAdapter(kind).validate_json(raw, strict=True)


class Wire:
    """The gateway, without any SDK between."""

    def __init__(self, base_url: str) -> None:
        self._client = httpx.Client(base_url=base_url, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def answer(self, method: str, path: str, **arguments: Any) -> bytes:
        """The body of an answer, which must be 200."""
        response = self._client.request(method, path, **arguments)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("application/json")
        return response.content

    def post(self, path: str, body: Any) -> bytes:
        """The body of the answer to a JSON body, which must be 200."""
        return self.answer("POST", path, json=body)

    def get(self, path: str, **query: Any) -> bytes:
        """The body of the answer to a GET, which must be 200."""
        return self.answer("GET", path, params=query)

    def refused(self, status: int, path: str, body: Any, method: str = "POST") -> ErrorObject:
        """The error that `body` is answered with."""
        response = self._client.request(method, path, json=body)
        assert response.status_code == status, response.text
        assert response.headers["content-type"].startswith("application/json")
        told = json.loads(response.content)
        assert set(told) == {"error"}
        error: ErrorObject = strictly(ErrorObject, json.dumps(told["error"]))
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert error.message
        return error

    def events(self, path: str, body: Any) -> list[tuple[str | None, str]]:
        """Name and data of each event of a stream."""
        with self._client.stream("POST", path, json={**body, "stream": True}) as response:
            told = response.read().decode()
        assert response.status_code == 200, told
        assert response.headers["content-type"].startswith("text/event-stream")
        assert told.endswith("\n\n")
        return [_event(block) for block in told.removesuffix("\n\n").split("\n\n")]


def _event(block: str) -> tuple[str | None, str]:
    fields = [line.partition(": ") for line in block.split("\n")]
    named = {name: value for name, _, value in fields}
    assert len(named) == len(fields), block
    assert set(named) <= {"event", "data"}, block
    return named.get("event"), named["data"]
