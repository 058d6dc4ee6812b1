"""Chunks and the real encoder: it reads all of every passage."""

import string

import pytest

from indexer.chunking import Chunker, ChunkerSettings
from indexer.index.embedding import Encoder
from indexer.index.passages import passage

TEXTS = {
    "prose": "# Llamas\n\n" + "A llama is a domesticated camelid of South America. " * 60,
    "chinese": "# 羊驼\n\n" + "大羊驼是一种驯化的骆驼科动物。它们生活在南美洲。" * 60,
    "korean": "라마는 남아메리카의 동물이다. " * 60,
    "accents": "Zażółć gęślą jaźń. Příliš žluťoučký kůň. " * 60,
    "marks": "!?#$%&()*+,-./:;<=>@[]^_{|}~" * 100,
    "base64": "\n".join([(string.ascii_letters + string.digits + "+/") * 2] * 40),
    "code": "```c\n" + "int x[] = {0x1f, 0x2e, 0x3d};  /* !!! */\n" * 60 + "```",
    "table": "| a | b |\n|---|---|\n" + "| 1.2.3.4 | (x, y) |\n" * 80,
    "headings": "# " + "大" * 400 + "\n\n## " + "羊" * 400 + "\n\n" + "Words of it. " * 100,
}


@pytest.mark.parametrize("unit", ["characters", "tokens"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_encoder_reads_all_of_every_passage(encoder: Encoder, text: str, unit: str) -> None:
    chunker = Chunker(
        ChunkerSettings(
            size=512,
            overlap_percent=10,
            unit="tokens" if unit == "tokens" else "characters",
            tokenizer=encoder.tokenizer,
            max_tokens=encoder.max_tokens,
        )
    )
    title = "The handbook of the llama — 羊驼手册"

    spans = chunker.split(title=title, text=text)

    tokenizer = encoder._model.tokenizer
    passages = [passage(title, span.heading_path, span.text) for span in spans]
    lengths = [len(tokenizer(each, truncation=False)["input_ids"]) for each in passages]
    assert max(lengths) <= encoder.max_tokens == 256
    assert unit == "characters" or max(lengths) > 150  # it is made use of, too
