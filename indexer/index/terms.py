"""What BM25 compares: the words of a text, brought into one form. Knows no search engine.

Passages and questions go through the same steps, whatever backend stores them: Milvus' own
analyzers differ between its editions, and Milvus Lite knows no stemmer.
"""

import re
import unicodedata

import Stemmer

from indexer.index.stream_safe import stream_safe

LANGUAGES = frozenset(Stemmer.algorithms()) | {"none"}
"""Languages whose words are stemmed by Snowball; "none" leaves words as they are."""

# Scripts that put no spaces between words: each two characters are a term, as in Lucene's
# CJKAnalyzer. Kana, ideographs with their extensions, Hangul, Thai, Lao, Khmer, Myanmar.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"((?:(?=[^\W_])[{_UNSPACED}])+)|[^\W_{_UNSPACED}]+")
# Lucene's list for English: words that stand in every text and tell nothing apart.
_STOP_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        "a an and are as at be but by for if in into is it no not of on or such that the their "
        "then there these they this to was will with",
    )
)


class Terms:
    """Makes terms of texts in one language. Not safe for two threads at once."""

    def __init__(self, language: str) -> None:
        """Raises ValueError for a language that is not among LANGUAGES."""
        if language not in LANGUAGES:
            raise ValueError(f"{language!r} is none of {', '.join(sorted(LANGUAGES))}")
        self._stop_words = _STOP_WORDS if language == "english" else frozenset()
        self._stemmer = None if language == "none" else Stemmer.Stemmer(language)

    def __call__(self, text: str) -> str:
        """The terms of `text` in their order, parted by spaces: letters and digits alone.

        A question of nothing but stop words keeps them.
        """
        words = list(_WORD.finditer(_plain(text)))
        telling = [word for word in words if word[0] not in self._stop_words]
        terms: list[str] = []
        for word in telling or words:
            terms += _bigrams(word[0]) if word[1] else [self._stemmed(word[0])]
        return " ".join(terms)

    def _stemmed(self, word: str) -> str:
        # Porter's first stemmer leaves nothing of "s".
        return word if self._stemmer is None else self._stemmer.stemWord(word) or word


def _plain(text: str) -> str:
    """`text` in one form: case folded, and without the marks that stand on letters.

    A mark is no letter: it would cut words into pieces in Hindi and Thai, and after a capital I
    with a dot, which folds into two characters.
    """
    if text.isascii():
        return text.casefold()
    # Unicode's own order for this, section 3.13: folding may undo a normal form.
    decomposed = unicodedata.normalize("NFKD", stream_safe(text))
    folded = unicodedata.normalize("NFKC", decomposed.casefold())
    return "".join(each for each in folded if not unicodedata.category(each).startswith("M"))


def _bigrams(word: str) -> list[str]:
    return [word[at : at + 2] for at in range(len(word) - 1)] or [word]
