"""What a loaded embedding model is: its weights, its prefixes, its pooling, its dimension."""

import hashlib
from typing import Any

from indexer.index.errors import EncoderUnavailable
from indexer.index.records import EncoderIdentity
from indexer.index.settings import IndexSettings

_DOCUMENTED_QUERY_PREFIXES = {
    # From the model cards of the bge v1.5 family; their passages take no prefix.
    "bge-small-en": "Represent this sentence for searching relevant passages: ",
    "bge-base-en": "Represent this sentence for searching relevant passages: ",
    "bge-large-en": "Represent this sentence for searching relevant passages: ",
}


def documented_query_prefix(model: str) -> str:
    """What the card of `model`, a name or a folder, says that questions begin with."""
    return next(
        (prefix for name, prefix in _DOCUMENTED_QUERY_PREFIXES.items() if name in model), ""
    )


def identify(model: Any, settings: IndexSettings) -> EncoderIdentity:
    """The identity of `model`, a SentenceTransformer, by its weights as they are stored.

    Neither the backend nor half precision makes another encoder: what an index holds in one and
    a question in another find the same. int8 does: those are other weights. Raises
    EncoderUnavailable.
    """
    prompts = model.prompts or {}
    query_prefix, passage_prefix = settings.encoder_query_prefix, settings.encoder_passage_prefix
    if query_prefix is None:
        query_prefix = prompts.get("query") or documented_query_prefix(settings.encoder_model)
    if passage_prefix is None:
        passage_prefix = prompts.get("document") or prompts.get("passage") or ""
    dimension = model.get_embedding_dimension()
    if dimension is None:
        raise EncoderUnavailable(
            f"{settings.encoder_model!r} does not say how long its vectors are"
        )
    return EncoderIdentity(
        model=settings.encoder_model,
        revision=_weights_digest(model) + ("+int8" if settings.encoder_dtype == "int8" else ""),
        dimension=dimension,
        pooling="+".join(str(getattr(module, "pooling_mode", "")) for module in model).strip("+"),
        normalised=True,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
    )


def _weights_digest(model: Any) -> str:
    """SHA-256 over the weights in float32: about 0.3 s for each gigabyte.

    Names and folders differ from machine to machine, and a hub's revision is unknown for a
    folder; the numbers are the same wherever they came from.
    """
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return f"sha256:{digest.hexdigest()[:32]}"
