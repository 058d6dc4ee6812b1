"""What runs an embedding model, and with which numbers: torch, ONNX Runtime, OpenVINO."""

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.index.errors import EncoderUnavailable
from indexer.index.settings import IndexSettings

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

PADDED = 8
"""Tokens that the length of a batch is a multiple of, in bfloat16 on a CPU.

Each shape gets kernels of its own there, which are kept: for questions of any length 190 MiB of
them, for these lengths 45, at the same speed.
"""
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""What torch calls a processor's instructions for it, on x86 and on Arm."""
_PACKAGES = {"onnx": "optimum-onnx and onnxruntime", "openvino": "optimum-intel and openvino"}
_OPENVINO_PRECISIONS = {
    "auto": "f32",
    "float32": "f32",
    "bfloat16": "bf16",
    "float16": "f16",
    "int8": "f32",
}
_PROBES = ["What do llamas eat?", "Sourdough rises for a day before it is baked."]
_PROBE_COSINE = 0.99
"""Below it two models are not the same: int8 is at 0.999, another pooling far below."""


def refuse_what_does_not_go_together(settings: IndexSettings, devices: Sequence[str]) -> None:
    """Raises EncoderUnavailable for settings that contradict each other."""
    backend, dtype = settings.encoder_backend, settings.encoder_dtype
    reason = ""
    if dtype == "int8" and backend != "openvino":
        reason = "int8 needs the backend openvino"
    elif backend == "onnx" and dtype not in {"auto", "float32"}:
        reason = "the backend onnx computes with float32"
    elif backend != "torch" and len(devices) > 1:
        reason = "several devices need the backend torch"
    elif backend == "openvino" and devices[0] not in {"", "cpu"}:
        reason = "the backend openvino runs on the device cpu"
    if reason:
        raise EncoderUnavailable(f"the embedding model cannot be loaded so: {reason}")


def dtype_of(settings: IndexSettings, device: "torch.device") -> "torch.dtype":
    """What torch computes with on `device`.

    Not set, that is bfloat16 where the processor or the GPU has instructions for it, which finds
    the same: see the figures in indexer/README.md. Without such instructions it is slower.
    """
    import torch

    if settings.encoder_dtype != "auto":
        dtype: torch.dtype = getattr(torch, settings.encoder_dtype)
        return dtype
    knows_it = False
    if device.type == "cuda":
        knows_it = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        knows_it = any(capabilities.get(name) for name in _BFLOAT16)
    return torch.bfloat16 if knows_it else torch.float32


def compute_with(model: "SentenceTransformer", dtype: "torch.dtype") -> None:
    """Have torch compute with `dtype` from now on."""
    import torch

    model.to(dtype)
    reads: Any = model[0]
    if (
        dtype is torch.bfloat16
        and model.device.type == "cpu"
        and hasattr(reads, "processing_kwargs")
    ):
        reads.processing_kwargs.setdefault("text", {}).setdefault("pad_to_multiple_of", PADDED)


def with_another_backend(
    model: "SentenceTransformer", settings: IndexSettings
) -> "SentenceTransformer":
    """The model once more, run by another library. Raises EncoderUnavailable."""
    import transformers
    from sentence_transformers import SentenceTransformer

    backend = settings.encoder_backend
    try:
        # They print tables and progress bars; standard output is the caller's.
        with contextlib.redirect_stdout(sys.stderr):
            other = SentenceTransformer(
                settings.encoder_model,
                revision=settings.encoder_revision,
                backend=backend,
                device=settings.encoder_device,
                model_kwargs=_backend_options(settings),
            )
    except Exception as exc:
        raise EncoderUnavailable(
            f"the backend {backend} could not be loaded: it needs {_PACKAGES[backend]}, of "
            f"versions that go with transformers {transformers.__version__}: {first_line(exc)}"
        ) from exc
    # It may have been exported long ago, from other weights than those that we have identified.
    first, second = (np.asarray(each.encode(_PROBES), dtype=np.float32) for each in (model, other))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    if not ((first * second).sum(axis=1) > _PROBE_COSINE * norms).all():
        raise EncoderUnavailable(
            f"the files for {backend} of {settings.encoder_model!r} give other vectors than its "
            "weights: remove them, and they are made anew"
        )
    return other


def _backend_options(settings: IndexSettings) -> dict[str, Any]:
    if settings.encoder_backend == "onnx":
        is_gpu = (settings.encoder_device or "").startswith("cuda")
        return {"provider": "CUDAExecutionProvider" if is_gpu else "CPUExecutionProvider"}
    precision = _OPENVINO_PRECISIONS[settings.encoder_dtype]
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if settings.encoder_threads is not None:
        config["INFERENCE_NUM_THREADS"] = settings.encoder_threads
    options: dict[str, Any] = {"ov_config": config}
    if settings.encoder_dtype == "int8":
        options["quantization_config"] = {"bits": 8}
    return options


def first_line(exc: Exception) -> str:
    """The first line of what an exception says, or its name where it says nothing."""
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
