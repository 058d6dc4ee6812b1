"""The real encoder with other numbers, other backends and several devices."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from indexer.index.embedding import Encoder
from indexer.index.errors import EncoderUnavailable
from indexer.index.settings import IndexSettings

TEXTS = [
    "Llamas eat grass and hay.",
    "Bread.",
    "A geostationary orbit is 35,786 km above the equator. " * 8,
]
Load = Callable[..., Encoder]


@pytest.fixture(scope="module")
def load(encoder_folder: Path) -> Load:
    """The encoder in float32, with some settings stated."""
    usual = {"encoder_model": str(encoder_folder), "encoder_dtype": "float32"}

    def load(batch_size: int = 32, **stated: object) -> Encoder:
        return Encoder.load(IndexSettings.model_validate(usual | stated), batch_size)

    return load


def cosines(first: Encoder, second: Encoder) -> list[float]:
    one, other = first.encode_passages(TEXTS), second.encode_passages(TEXTS)
    assert np.allclose(np.linalg.norm(other, axis=1), 1, atol=1e-6)
    return [float(cosine) for cosine in (one * other).sum(axis=1)]


def test_the_vectors_are_those_of_the_models_own_encode(
    encoder: Encoder, encoder_folder: Path
) -> None:
    model = SentenceTransformer(str(encoder_folder), device="cpu")
    texts = [*TEXTS, "", *(text[:40] for text in TEXTS * 4)]
    expected = model.encode(texts, normalize_embeddings=True)
    assert np.allclose(encoder.encode_texts(texts), expected, atol=1e-6)
    assert np.allclose(encoder.encode_passages(texts), expected, atol=1e-6)


@pytest.mark.long
def test_a_models_default_prompt_is_not_put_before_what_has_its_prefix(
    encoder: Encoder, encoder_folder: Path, load: Load, tmp_path: Path
) -> None:
    model = SentenceTransformer(str(encoder_folder), device="cpu")
    model.prompts, model.default_prompt_name = {"query": "Asked: "}, "query"
    model.save(str(tmp_path))
    prompted = load(encoder_model=str(tmp_path))
    spread = load(encoder_model=str(tmp_path), encoder_device="cpu,cpu")
    try:
        for asked in (prompted, spread):
            queries = asked.encode_queries(TEXTS)
            expected = encoder.encode_texts([f"Asked: {text}" for text in TEXTS])
            assert np.allclose(queries, expected, atol=1e-6)
            assert np.allclose(
                asked.encode_passages(TEXTS), encoder.encode_passages(TEXTS), atol=1e-6
            )
    finally:
        spread.close()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_vectors_and_is_the_same_encoder(
    encoder: Encoder, load: Load, dtype: str
) -> None:
    half = load(encoder_dtype=dtype)
    assert half.identity == encoder.identity
    found = cosines(encoder, half)
    assert all(0.999 < cosine < 1.00001 for cosine in found)
    assert not np.array_equal(half.encode_passages(TEXTS), encoder.encode_passages(TEXTS))


def test_not_said_it_is_whichever_of_both_is_faster_here(encoder: Encoder, load: Load) -> None:
    capabilities = torch.cpu.get_capabilities()
    is_half = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    found = load(encoder_dtype="auto").encode_passages(TEXTS)
    expected = load(encoder_dtype="bfloat16") if is_half else encoder
    assert np.array_equal(found, expected.encode_passages(TEXTS))


def test_in_bfloat16_batches_have_few_shapes(load: Load) -> None:
    """Each would get kernels of its own, which stay in memory."""
    half, whole = load(encoder_dtype="bfloat16"), load()
    shapes = [
        {encoder._model.preprocess(["word " * count])["input_ids"].shape for count in range(1, 25)}
        for encoder in (half, whole)
    ]
    assert shapes[0] == {(1, 8), (1, 16), (1, 24), (1, 32)}
    assert len(shapes[1]) == 24


@pytest.mark.long
def test_several_devices_give_the_vectors_of_one(encoder: Encoder, load: Load) -> None:
    spread = load(batch_size=3, encoder_device="cpu, cpu")
    try:
        texts = TEXTS * 4
        assert spread.identity == encoder.identity
        assert np.allclose(spread.encode_passages(texts), encoder.encode_passages(texts), atol=1e-5)
    finally:
        spread.close()


@pytest.mark.parametrize(
    ("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")]
)
def test_a_backend_without_its_packages_names_them(load: Load, backend: str, package: str) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(EncoderUnavailable, match=f"backend {backend} .* needs .*{package}"):
        load(encoder_backend=backend)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_gives_the_same_vectors_and_prints_nothing(
    encoder: Encoder, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    same = load(encoder_backend="openvino")
    assert same.identity == encoder.identity
    assert min(cosines(encoder, same)) > 0.99999
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_int8_is_another_encoder_of_nearly_the_same_vectors(encoder: Encoder, load: Load) -> None:
    small = load(encoder_backend="openvino", encoder_dtype="int8")
    assert len(small.identity.differences(encoder.identity)) == 1
    assert small.identity.revision == f"{encoder.identity.revision}+int8"
    assert 0.99 < min(cosines(encoder, small)) < 0.99999


def test_a_model_that_is_not_there_is_unavailable(load: Load, tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="could not be loaded"):
        load(encoder_model=str(tmp_path))
