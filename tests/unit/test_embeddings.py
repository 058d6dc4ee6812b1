"""`/v1/embeddings` over HTTP, with the embedding model faked."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np
import openai.types
import pytest
from litestar.testing import TestClient

from gateway.app import create_app
from gateway.embeddings import MAX_INPUTS, EmbeddingRequest
from gateway.encoding import TEXTS_AT_ONCE
from gateway.errors import InvalidRequest
from gateway.settings import GatewaySettings
from indexer.index.errors import EncoderUnavailable, EncodingFailed
from tests.unit.conftest import FakeReader, FakeUpstream
from tests.unit.index_fakes import IDENTITY, FakeEncoder

PATH = "/v1/embeddings"
Client = TestClient[Any]
Gateway = Callable[..., Client]


@pytest.fixture
def gateway(upstream: FakeUpstream, reader: FakeReader, encoder: FakeEncoder) -> Iterator[Gateway]:
    """A started gateway with these settings over the fakes."""
    with ExitStack() as stack:

        def start(**stated: Any) -> Client:
            settings = GatewaySettings(**{"encoder_model": "/models/small-en/", **stated})
            app = create_app(
                settings, servers=[upstream], reader=reader, load_encoder=lambda: encoder
            )
            client = stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))
            ends = time.monotonic() + 10
            while client.get("/health/ready").status_code != 200:
                assert time.monotonic() < ends
            return client

        yield start


@pytest.fixture
def client(gateway: Gateway) -> Client:
    return gateway()


def asked(client: Client, given: Any, **fields: Any) -> dict[str, Any]:
    """The answer, after a look at its shape."""
    response = client.post(PATH, json={"model": "small-en", "input": given} | fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"object", "data", "model", "usage"}
    assert all(set(each) == {"object", "index", "embedding"} for each in body["data"])
    assert [each["index"] for each in body["data"]] == list(range(len(body["data"])))
    if fields.get("encoding_format") != "base64":
        openai.types.CreateEmbeddingResponse.model_validate(body, strict=True)
    return body


def vectors(body: dict[str, Any]) -> list[list[float]]:
    return [each["embedding"] for each in body["data"]]


def refused(client: Client, status: int = 400, **fields: Any) -> dict[str, Any]:
    """The inside of the error; a field that is None is not sent."""
    request = {"model": "small-en", "input": "a"} | fields
    sent = {name: value for name, value in request.items() if value is not None}
    response = client.post(PATH, json=sent)
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["message"]
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    return error


def test_a_text_gets_its_vector_without_any_prefix(client: Client, encoder: FakeEncoder) -> None:
    body = asked(client, "Llamas eat grass.")

    assert encoder.calls == [["Llamas eat grass."]]
    assert vectors(body) == FakeEncoder().encode_texts(["Llamas eat grass."]).tolist()
    assert (body["object"], body["model"]) == ("list", "small-en")
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_many_texts_keep_their_order_and_their_tokens_are_added_up(client: Client) -> None:
    texts = [f"text number {number}" for number in range(3 * TEXTS_AT_ONCE + 5)]
    body = asked(client, texts)

    assert np.array_equal(vectors(body), FakeEncoder().encode_texts(texts).tolist())
    assert body["usage"]["prompt_tokens"] == 4 * len(texts)


def test_every_text_that_is_not_empty_is_taken(client: Client) -> None:
    for given in ("a", " ", "\n", "\u0000", "😀"):
        assert vectors(asked(client, given)) == vectors(asked(client, [given]))
    assert len(vectors(asked(client, ["a", "a"]))) == 2


def test_base64_holds_the_same_numbers_as_little_endian_floats(client: Client) -> None:
    texts = ["a", "b"]
    floats = vectors(asked(client, texts))
    encoded = vectors(asked(client, texts, encoding_format="base64"))

    read = [np.frombuffer(base64.b64decode(str(each)), "<f4").tolist() for each in encoded]
    assert read == floats


def test_arrays_of_token_ids_are_read_as_the_text_that_they_are(
    client: Client, encoder: FakeEncoder
) -> None:
    one = asked(client, [7, 8])
    several = asked(client, [[7, 8], [9]])

    assert encoder.calls == [["w7 w8"], ["w7 w8", "w9"]]
    assert vectors(one) == vectors(several)[:1] == vectors(asked(client, "w7 w8"))
    assert [one["usage"]["total_tokens"], several["usage"]["total_tokens"]] == [3, 5]


def test_a_token_id_of_another_tokenizer_is_refused_by_its_place(client: Client) -> None:
    wrong: list[tuple[Any, str]] = [([7, 100], "input"), ([[7], [8, 300]], "input[1]")]
    for given, param in wrong:
        error = refused(client, input=given)
        assert error["param"] == param
        assert "no token id" in error["message"]


@pytest.mark.parametrize(
    ("input_type", "prefix"),
    [("query", "query: "), ("document", ""), (None, "")],
)
def test_what_an_input_is_decides_about_its_prefix(
    client: Client, encoder: FakeEncoder, input_type: str | None, prefix: str
) -> None:
    body = asked(client, ["a", "b c"], input_type=input_type)

    assert encoder.calls == [[f"{prefix}a", f"{prefix}b c"]]
    assert body["usage"]["total_tokens"] == 5 + (2 if prefix else 0)


def test_the_model_has_three_names_and_answers_tell_the_public_one(client: Client) -> None:
    for name in ("small-en", "/models/small-en/", "default"):
        assert asked(client, "a", model=name)["model"] == "small-en"


def test_the_public_name_may_be_chosen(gateway: Gateway) -> None:
    client = gateway(embedding_model_name="text-embedding-3-small")

    assert asked(client, "a", model="text-embedding-3-small")["model"] == "text-embedding-3-small"
    assert asked(client, "a", model="default")["model"] == "text-embedding-3-small"
    assert refused(client, 404, model="small-en")["code"] == "model_not_found"


def test_a_model_that_is_not_there_is_told_with_those_that_are(client: Client) -> None:
    error = refused(client, 404, model="text-embedding-ada-002")

    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "small-en" in error["message"]
    assert "/models" not in error["message"]


def test_the_dimensions_of_the_model_may_be_asked_for(client: Client) -> None:
    assert vectors(asked(client, "a", dimensions=IDENTITY.dimension)) == vectors(asked(client, "a"))
    error = refused(client, dimensions=2)

    assert error["param"] == "dimensions"
    assert "4 dimensions" in error["message"]


def test_fewer_dimensions_are_the_first_ones_of_unit_norm_where_the_model_allows(
    gateway: Gateway,
) -> None:
    client = gateway(embedding_dimensions="3,2, 512")
    [whole] = vectors(asked(client, "a"))
    [cut] = vectors(asked(client, "a", dimensions=2))
    [encoded] = vectors(asked(client, "a", dimensions=2, encoding_format="base64"))

    assert cut == pytest.approx(np.array(whole[:2]) / np.linalg.norm(whole[:2]))
    assert np.linalg.norm(cut) == pytest.approx(1)
    assert np.frombuffer(base64.b64decode(str(encoded)), "<f4").tolist() == cut
    for wrong in (1, 5, 512):  # 512 is more than the model has
        assert refused(client, dimensions=wrong)["param"] == "dimensions"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": {}}, "input"),
        ({"input": 3}, "input"),
        ({"input": True}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", "b", "c", 4]}, "input[3]"),
        ({"input": ["a", ["b"]]}, "input[1]"),
        ({"input": [True]}, "input[0]"),
        ({"input": [{}]}, "input[0]"),
        ({"input": [1, "a"]}, "input[1]"),
        ({"input": [1, 2.5]}, "input[1]"),
        ({"input": [-1]}, "input[0]"),
        ({"input": [[1], [2, "a"]]}, "input[1][1]"),
        ({"input": [[1], 2]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [10**30]}, "input[0]"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input"),
        ({"input": [[1]] * (MAX_INPUTS + 1)}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": 1}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "4"}, "dimensions"),
        ({"input_type": "title"}, "input_type"),
        ({"user": 7}, "user"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    request = {"model": "small-en", "input": "a"} | fields
    with pytest.raises(InvalidRequest) as refused:
        EmbeddingRequest.read(msgspec.json.encode(request))

    assert refused.value.param == param


def test_what_is_wrong_does_not_reach_the_model(client: Client, encoder: FakeEncoder) -> None:
    assert refused(client, input=["a", "b", "c", ""])["param"] == "input[3]"
    assert encoder.calls == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"model": "small-en", "input": "\\ud800"}', b"[" * 100_000],
)
def test_a_body_that_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        EmbeddingRequest.read(content)


def test_fields_may_be_null_spaced_or_unknown_to_us(client: Client) -> None:
    content = b'{ "input" :  [  [ 7 ] , [ 8 ] ] , "model":"default", "x": {} }'
    response = client.post(PATH, content=content, headers={"content-type": "application/json"})
    assert len(response.json()["data"]) == 2

    asked(client, "a", user="u", dimensions=None, encoding_format=None)


def test_an_answer_tells_how_long_it_took(client: Client) -> None:
    response = client.post(PATH, json={"model": "default", "input": "a"})

    assert response.headers["server-timing"].startswith("embed;dur=")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]


def test_a_model_that_fails_is_told(client: Client, encoder: FakeEncoder) -> None:
    encoder.failure = EncodingFailed("out of memory")

    assert refused(client, 500)["code"] == "encoding_failed"


def test_a_model_that_is_not_loaded_is_told(upstream: FakeUpstream, reader: FakeReader) -> None:
    def load() -> FakeEncoder:
        raise EncoderUnavailable("no such folder")

    app = create_app(GatewaySettings(), servers=[upstream], reader=reader, load_encoder=load)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        error = refused(client, 503, model="bge-large-en-v1.5")
        assert error["code"] == "encoder_unavailable"
