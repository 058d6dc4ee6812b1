"""From token ids back to text, with a check that they are this tokenizer's own.

Knows of a tokenizer what those of transformers can do; loads none.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from indexer.index.errors import TokensInvalid

_WHOSE = (
    "Token ids belong to the tokenizer of this embedding model; those of another, such as "
    "tiktoken's, mean other words. LangChain's OpenAIEmbeddings sends text with "
    "check_embedding_ctx_length=False."
)


def texts_of_tokens(
    tokenizer: Any, arrays: Sequence[Sequence[int]], max_tokens: int = 0
) -> list[str]:
    """The text of each array of token ids; special ones at its ends are left out.

    What lies beyond `max_tokens` ids, if that is not 0, the model does not read. Raises
    TokensInvalid: an id that the tokenizer does not have, or ids that it would never give.
    """
    if not hasattr(tokenizer, "all_special_ids"):
        raise TokensInvalid("This embedding model takes text alone, no token ids.", 0)
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    texts = []
    for place, ids in enumerate(arrays):
        unknown = next((each for each in ids if not 0 <= each < len(tokenizer)), None)
        if unknown is not None:
            raise TokensInvalid(
                f"{unknown} is no token id of this model, which has {len(tokenizer)}. {_WHOSE}",
                place,
            )
        read = [each for each in ids[: max_tokens or None] if each not in special]
        text: str = tokenizer.decode(read)
        if not text.strip():
            raise TokensInvalid("The token ids hold no text.", place)
        if not _are_own(read, tokenizer.encode(text, add_special_tokens=False)):
            raise TokensInvalid(f"The token ids make no text of this model. {_WHOSE}", place)
        texts.append(text)
    return texts


def _are_own(ids: Sequence[int], again: Sequence[int]) -> bool:
    """Whether `ids` come back as `again` when their text is read: those of another rarely do.

    A quarter may differ: clients cut arrays in the middle of a word.
    """
    lost = (Counter(ids) - Counter(again)).total()
    return lost <= len(ids) / 4
