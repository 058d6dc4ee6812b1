"""Turns GGUF weights into safetensors and a tokenizer: `python convert.py WEIGHTS FOLDER`.

A program of its own, so that its gigabyte of memory is given back before servers start.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(weights: Path, folder: Path) -> None:
    """Write the model in `weights` to `folder` in bfloat16, the type that vLLM serves it in."""
    model = AutoModelForCausalLM.from_pretrained(  # nosec B615  # a folder of this machine
        weights.parent,
        gguf_file=weights.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype="bfloat16",
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(  # nosec B615  # likewise
        weights.parent, gguf_file=weights.name
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
