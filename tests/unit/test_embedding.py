"""The encoder around its model, with a fake of the model."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from indexer.index.embedding import CHARS_FOR_A_TOKEN, MIXED_AT_ONCE_ON_CPU, Encoder
from indexer.index.encoder_backends import dtype_of
from indexer.index.errors import EncoderUnavailable, EncodingFailed
from indexer.index.settings import IndexSettings
from tests.unit.index_fakes import IDENTITY


class FakeModel:
    """A text becomes the vector (its length, its place in the batch, 0, 0)."""

    max_seq_length: float | None = 256
    tokenizer: object = None

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.failure: Exception | None = None
        self.factor = np.float32(1)
        self.batches: list[list[str]] = []
        self.pooled: list[tuple[list[str], dict[str, Any]]] = []
        self.devices: list[str] = []
        self.stopped = 0
        self.trains = True

    def eval(self) -> "FakeModel":
        self.trains = False
        return self

    def preprocess(self, texts: list[str]) -> dict[str, Any]:
        """Each word is a token, and the shorter texts are padded."""
        self.batches.append(texts)
        if self.failure is not None:
            raise self.failure
        words = [text.split() for text in texts]
        longest = max(map(len, words))
        return {
            "attention_mask": torch.tensor(
                [[1] * len(each) + [0] * (longest - len(each)) for each in words]
            ),
            "modality": "text",
        }

    def __call__(self, features: dict[str, Any]) -> dict[str, torch.Tensor]:
        assert features["modality"] == "text"
        assert torch.is_inference_mode_enabled()
        assert not self.trains
        return {"sentence_embedding": torch.from_numpy(self._rows(self.batches[-1]))}

    def encode(self, texts: list[str], **options: Any) -> Any:
        self.pooled.append((texts, options))
        return self._rows(texts)

    def _rows(self, texts: list[str]) -> NDArray[np.float32]:
        rows = [[len(text), place, 0, 0] for place, text in enumerate(texts)]
        with np.errstate(invalid="ignore"):
            return np.asarray(rows, dtype=np.float32) * self.factor

    def start_multi_process_pool(self, devices: list[str]) -> str:
        self.devices = devices
        return "pool"

    def stop_multi_process_pool(self, pool: str) -> None:
        assert pool == "pool"
        self.stopped += 1


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


def encoder_of(model: FakeModel, devices: Sequence[str] = (), batch_size: int = 2) -> Encoder:
    return Encoder(cast("Any", model), IDENTITY, batch_size, devices)


def test_every_vector_is_of_unit_norm_whatever_the_model_gives(model: FakeModel) -> None:
    model.factor = np.float32(1e-3)
    vectors = encoder_of(model).encode_passages(["a", "bb", "ccc"])

    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0].tolist() == [1, 0, 0, 0]
    assert np.isclose(vectors[1][0] / vectors[1][1], 2 / 1)


def test_a_text_without_a_direction_stays_nothing_rather_than_becoming_no_number(
    model: FakeModel,
) -> None:
    assert encoder_of(model).encode_passages([""]).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("factor", [np.inf, np.nan])
def test_numbers_that_are_not_finite_are_an_error(model: FakeModel, factor: float) -> None:
    model.factor = np.float32(factor)
    with pytest.raises(EncodingFailed, match="not finite"):
        encoder_of(model).encode_passages(["a", "bb"])


@pytest.mark.parametrize(
    "failure", [RuntimeError("out of memory"), ValueError("x"), TypeError("y")]
)
def test_what_the_model_raises_becomes_the_contracts_error(
    model: FakeModel, failure: Exception
) -> None:
    model.failure = failure
    with pytest.raises(EncodingFailed, match=f"failed on 2 texts: {failure}"):
        encoder_of(model).encode_queries(["a", "b"])


def test_queries_and_passages_have_their_own_prefix(model: FakeModel) -> None:
    encoder = encoder_of(model)
    encoder.encode_queries(["What?"])
    encoder.encode_passages(["That."])

    assert model.batches == [["query: What?"], ["That."]]


def test_a_text_as_it_is_gets_no_prefix(model: FakeModel) -> None:
    encoder_of(model).encode_texts(["That."])

    assert model.batches == [["That."]]


def test_tokens_are_counted_as_the_model_reads_them_without_the_padding(model: FakeModel) -> None:
    encoder = encoder_of(model)

    assert encoder.count_tokens(["one", "one two three", "one two"]) == [1, 3, 2]
    assert encoder.count_tokens([]) == []
    model.failure = RuntimeError("out of memory")
    with pytest.raises(EncodingFailed, match="failed on 1 texts: out of memory"):
        encoder.count_tokens(["one"])


def test_a_model_that_pads_nothing_lets_its_tokenizer_count(model: FakeModel) -> None:
    class Tokenizer:
        def encode(self, text: str) -> list[str]:
            return text.split()

    model.tokenizer = Tokenizer()
    model.preprocess = lambda texts: {"input_ids": texts}  # type: ignore[method-assign]

    assert encoder_of(model).count_tokens(["one two", "one"]) == [2, 1]


def test_of_an_endless_text_the_tokenizer_sees_the_beginning_alone(model: FakeModel) -> None:
    model.max_seq_length = 2
    encoder = encoder_of(model)
    encoder.encode_queries(["x" * 1_000])
    encoder.encode_texts(["x" * 1_000, "short"])

    lengths = [[len(text) for text in texts] for texts in model.batches]
    assert lengths == [[2 * CHARS_FOR_A_TOKEN], [2 * CHARS_FOR_A_TOKEN, 5]]
    assert encoder.count_tokens(["x y " * 100]) == [100]


@pytest.mark.parametrize("longest", [None, math.inf])
def test_a_model_without_a_longest_text_reads_all_of_it(
    model: FakeModel, longest: float | None
) -> None:
    model.max_seq_length = longest
    encoder = encoder_of(model)
    encoder.encode_texts(["x" * 100_000])

    assert encoder.max_tokens == 0
    assert len(model.batches[0][0]) == 100_000


def test_no_texts_are_no_vectors_and_do_not_reach_the_model(model: FakeModel) -> None:
    assert encoder_of(model).encode_passages([]).shape == (0, IDENTITY.dimension)
    assert model.batches == []


def test_texts_go_by_their_length_and_come_back_in_their_order(model: FakeModel) -> None:
    texts = ["aaa", "b", "ccccc", "dd", "eeee"]
    vectors = encoder_of(model).encode_passages(texts)

    assert model.batches == [["ccccc", "eeee"], ["aaa", "dd"], ["b"]]
    expected = np.array([[3, 0], [1, 0], [5, 0], [2, 1], [4, 1]], dtype=np.float32)
    assert np.allclose(vectors[:, :2], expected / np.linalg.norm(expected, axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("device", "batch_size", "at_once"),
    [("cpu", 32, MIXED_AT_ONCE_ON_CPU), ("cpu", 2, 2), ("meta", 32, 32)],
)
def test_of_unlike_texts_a_cpu_takes_few_at_once(
    device: str, batch_size: int, at_once: int
) -> None:
    model = FakeModel(device)
    encoder = encoder_of(model, batch_size=batch_size)
    # No GPU here, and nothing can be computed on the device that stands in for one.
    encoder._device = torch.device("cpu")
    encoder.encode_queries(["a"] * 32)
    encoder.encode_texts(["a"] * 32)
    assert [len(texts) for texts in model.batches] == [at_once] * (2 * 32 // at_once)

    model.batches.clear()
    encoder.encode_passages(["a"] * 32)
    assert [len(texts) for texts in model.batches] == [batch_size] * (32 // batch_size)


def test_several_devices_get_batches_of_one_length_and_the_order_stays(model: FakeModel) -> None:
    texts = ["aaa", "b", "ccccc", "dd", "eeee"]
    encoder = encoder_of(model, ["cuda:0", "cuda:1"])
    vectors = encoder.encode_passages(texts)

    assert model.devices == ["cuda:0", "cuda:1"]
    [(given, options)] = model.pooled
    assert [len(text) for text in given] == [5, 4, 3, 2, 1]
    assert (options["pool"], options["chunk_size"], options["prompt"]) == ("pool", 2, "")
    expected = [[len(text), given.index(text), 0, 0] for text in texts]
    assert np.allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_one_device_starts_no_processes_and_there_is_nothing_to_close(model: FakeModel) -> None:
    encoder = encoder_of(model, ["cuda:0"])
    encoder.encode_passages(["a"])
    encoder.close()

    assert (model.devices, model.stopped, model.pooled) == ([], 0, [])


def test_closing_ends_the_processes_once(model: FakeModel) -> None:
    encoder = encoder_of(model, ["cpu", "cpu"])
    encoder.close()
    encoder.close()

    assert model.stopped == 1


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"encoder_dtype": "int8"}, "int8 needs the backend openvino"),
        ({"encoder_dtype": "int8", "encoder_backend": "onnx"}, "int8 needs the backend openvino"),
        ({"encoder_dtype": "float16", "encoder_backend": "onnx"}, "onnx computes with float32"),
        (
            {"encoder_device": "cuda:0,cuda:1", "encoder_backend": "onnx"},
            "several devices need the backend torch",
        ),
        (
            {"encoder_device": "cuda", "encoder_backend": "openvino"},
            "openvino runs on the device cpu",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused_at_once(
    stated: dict[str, str], reason: str
) -> None:
    with pytest.raises(EncoderUnavailable, match=reason):
        Encoder.load(IndexSettings.model_validate({"encoder_model": "nowhere", **stated}))


@pytest.mark.parametrize(
    ("device", "knows", "expected"),
    [
        ("cpu", {"avx512_bf16": True}, torch.bfloat16),
        ("cpu", {"amx_bf16": True}, torch.bfloat16),
        ("cpu", {"bf16": True}, torch.bfloat16),
        ("cpu", {"avx512_bf16": False, "avx512_f": True}, torch.float32),
        ("mps", {"bf16": True}, torch.float32),
    ],
)
def test_numbers_that_are_not_named_are_those_with_instructions_of_their_own(
    monkeypatch: pytest.MonkeyPatch, device: str, knows: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: knows)
    assert dtype_of(IndexSettings(), torch.device(device)) is expected
    named = IndexSettings(encoder_dtype="float16")
    assert dtype_of(named, torch.device(device)) is torch.float16
