"""The three modes of a search on a Milvus Lite server, neighbours, and a real cross-encoder."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder as SentenceCrossEncoder

from gateway.retrieval.cross_encoder import CrossEncoder
from gateway.retrieval.options import Wanted
from gateway.retrieval.reranking import LocalReranker
from gateway.retrieval.retriever import Retrieved
from gateway.stages import Stages
from indexer.index.collection import IndexReader
from indexer.index.embedding import Encoder
from indexer.index.errors import EncoderUnavailable
from indexer.index.metadata_filters import parse_filter
from indexer.index.records import SearchMode
from indexer.index.settings import IndexSettings
from indexer.report import Report
from tests.searching import searching

pytestmark = pytest.mark.anyio

RunIndexer = Callable[..., Report]
MODES: list[SearchMode] = ["dense", "bm25", "hybrid"]
BY_WORDS = "error XK-7421"
BY_MEANING = "Which animals give wool in the mountains of Peru?"
OTHERS = {
    "bread": "Sourdough bread rises with wild yeast and bacteria over night.",
    "orbit": "A geostationary orbit lies 35,786 km above the equator.",
    "glass": "Glass is made of sand that is molten and cools down without crystals.",
    "chess": "In chess the bishop moves along diagonals, the rook along files and ranks.",
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = OTHERS | {
        "pump": "Where the display of the pump shows XK-7421, replace its seal.",
        "valve": "Where the display of the pump shows XK-1999, close its valve.",
        "alpaca": "Alpacas and llamas are herded on Andean heights and shorn for their fleece.",
    }
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(f"{text}\n")
        (folder / f"{name}.txt.meta.toml").write_text(f"public = {str(name != 'pump').lower()}\n")
    return folder


@asynccontextmanager
async def retrieving(
    settings: IndexSettings, encoder: Encoder, reranker: LocalReranker | None = None
) -> AsyncIterator[Callable[..., Any]]:
    """Asks what the gateway would be given."""
    async with searching(
        IndexReader(settings),
        lambda: encoder,
        tenant=settings.tenant,
        knowledge_base=settings.knowledge_base,
        reranker=reranker,
    ) as retriever:

        async def ask(*questions: str, **wanted: Any) -> Retrieved:
            return await retriever.retrieve(questions, Wanted(**wanted), Stages())

        yield ask


def names(found: Retrieved) -> list[str]:
    return [Path(hit.source).stem for hit in found.hits]


async def test_words_are_found_by_words_and_meaning_by_meaning_and_both_by_both(
    index_settings: IndexSettings, encoder: Encoder, corpus: Path, run_indexer: RunIndexer
) -> None:
    await asyncio.to_thread(run_indexer, corpus)
    async with retrieving(index_settings, encoder) as ask:
        assert names(await ask(BY_WORDS, mode="bm25"))[0] == "pump"
        assert names(await ask(BY_MEANING, mode="dense"))[0] == "alpaca"
        assert "alpaca" not in names(await ask("wool Peru", mode="bm25", limit=9))
        for weight in (None, 0.5):
            assert names(await ask(BY_WORDS, mode="hybrid", text_weight=weight))[0] == "pump"
            assert names(await ask(BY_MEANING, mode="hybrid", text_weight=weight))[0] == "alpaca"


async def test_scores_lie_in_0_to_1_and_fall(
    index_settings: IndexSettings, encoder: Encoder, corpus: Path, run_indexer: RunIndexer
) -> None:
    await asyncio.to_thread(run_indexer, corpus)
    async with retrieving(index_settings, encoder) as ask:
        for mode, weight in itertools.product(MODES, (None, 0.0, 0.3, 1.0)):
            for question in (BY_WORDS, BY_MEANING, OTHERS["bread"], "Whales?"):
                found = await ask(question, mode=mode, text_weight=weight, limit=9)
                scores = [hit.score for hit in found.hits]

                assert scores == sorted(scores, reverse=True)
                assert all(0 <= score <= 1 for score in scores)
            same = (await ask(OTHERS["bread"], mode=mode, text_weight=weight)).hits[0]
            assert Path(same.source).stem == "bread"
            assert same.score > 0.5
            if mode == "hybrid" and weight is None:
                assert same.score == pytest.approx(1)  # the first of both legs


async def test_the_weight_decides_which_leg_counts(
    index_settings: IndexSettings, encoder: Encoder, corpus: Path, run_indexer: RunIndexer
) -> None:
    await asyncio.to_thread(run_indexer, corpus)
    question = f"{BY_MEANING} XK-7421 display seal pump"
    async with retrieving(index_settings, encoder) as ask:
        by_words = names(await ask(question, mode="hybrid", text_weight=1.0))
        by_meaning = names(await ask(question, mode="hybrid", text_weight=0.0))

        assert by_words[0] == names(await ask(question, mode="bm25"))[0] == "pump"
        assert by_meaning[0] == names(await ask(question, mode="dense"))[0] == "alpaca"


async def test_tenant_and_filter_hold_on_every_leg(
    index_settings: IndexSettings,
    encoder: Encoder,
    corpus: Path,
    tmp_path: Path,
    run_indexer: RunIndexer,
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    question = "The seal of the pump with XK-7421 on its display"
    (theirs / "secret.txt").write_text(f"{question}\n" * 2)
    await asyncio.to_thread(run_indexer, corpus, attributes={"public": "boolean"})
    await asyncio.to_thread(run_indexer, theirs, tenant="theirs", attributes={"public": "boolean"})
    public = parse_filter({"type": "eq", "key": "public", "value": True})
    secret = parse_filter({"type": "ne", "key": "public", "value": True})
    settings = index_settings.model_copy(update={"tenant": "theirs"})
    async with (
        retrieving(index_settings, encoder) as ours,
        retrieving(settings, encoder) as their,
    ):
        for mode, weight in itertools.product(MODES, (None, 0.5)):
            wanted = {"mode": mode, "text_weight": weight, "limit": 20, "explain": True}
            wanted["neighbours"] = 2
            assert names(await ours(question, **wanted))[0] == "pump"
            assert "secret" not in names(await ours(question, **wanted))
            seen = names(await ours(question, **wanted, filters=public))
            assert seen[0] == "valve"
            assert not {"pump", "secret"} & set(seen)
            assert names(await ours(question, **wanted, filters=secret)) == ["pump"]
            assert names(await their(question, **wanted)) == ["secret"]
            assert names(await their(question, **wanted, filters=public)) == []


async def test_a_question_without_a_word_finds_nothing_by_words_and_is_no_failure(
    index_settings: IndexSettings, encoder: Encoder, corpus: Path, run_indexer: RunIndexer
) -> None:
    await asyncio.to_thread(run_indexer, corpus)
    async with retrieving(index_settings, encoder) as ask:
        for question in ("?!", "…", "🦙", '") or (tenant != "'):
            by_words = await ask(question, mode="bm25", limit=3)
            by_both = await ask(question, mode="hybrid", limit=3, explain=True)

            if question != '") or (tenant != "':
                assert by_words.hits == []
            assert len(by_both.hits) == 3
            assert all(0 <= hit.score <= 1 for hit in by_both.hits)


async def test_questions_that_come_at_the_same_time_find_what_each_finds_by_itself(
    index_settings: IndexSettings, encoder: Encoder, corpus: Path, run_indexer: RunIndexer
) -> None:
    """Those without a word among them: they take no words from the others."""
    await asyncio.to_thread(run_indexer, corpus)
    questions = [BY_WORDS, "?!", BY_MEANING, "bread", "🦙", "chess bishop", "display of the pump"]
    for mode in MODES:
        async with retrieving(index_settings, encoder) as ask:
            alone = [await ask(question, mode=mode, limit=3) for question in questions]
        async with retrieving(index_settings, encoder) as ask:
            together = await asyncio.gather(
                *(ask(question, mode=mode, limit=3) for question in questions * 3)
            )
        assert list(map(names, together)) == list(map(names, alone)) * 3


async def test_an_explanation_has_every_score_of_every_candidate(
    index_settings: IndexSettings, encoder: Encoder, corpus: Path, run_indexer: RunIndexer
) -> None:
    await asyncio.to_thread(run_indexer, corpus)
    async with retrieving(index_settings, encoder) as ask:
        found = await ask(BY_WORDS, mode="hybrid", limit=9, explain=True)
        by_leg = {
            mode: {
                hit.chunk_id: hit.score for hit in (await ask(BY_WORDS, mode=mode, limit=9)).hits
            }
            for mode in MODES
        }

    assert len(found.scores) == 7
    for chunk_id, scores in found.scores.items():
        assert scores == pytest.approx(
            {mode: hits[chunk_id] for mode, hits in by_leg.items() if chunk_id in hits}, abs=1e-4
        )


async def test_a_hit_is_widened_within_its_document(
    index_settings: IndexSettings, encoder: Encoder, corpus: Path, run_indexer: RunIndexer
) -> None:
    lines = [f"Step {n} of the recipe takes {n * 3 + 2} minutes of patience." for n in range(40)]
    lines[20] = "Now the marzipan is put upon the cake."
    text = " ".join(lines)
    (corpus / "recipe.txt").write_text(text)
    await asyncio.to_thread(run_indexer, corpus, size=150)
    question, start = "When is the marzipan put on?", "Step 0 of the recipe takes 2 minutes"
    async with retrieving(index_settings, encoder) as ask:
        [alone] = (await ask(question, limit=1)).hits
        assert "marzipan" in alone.text
        for distance in (1, 2, 5):
            [wide] = (await ask(question, limit=1, neighbours=distance)).hits
            [first] = (await ask(start, limit=1, neighbours=distance)).hits

            assert (wide.chunk_id, wide.score) == (alone.chunk_id, alone.score)
            assert wide.ordinal == alone.ordinal - distance
            assert wide.chunks == 2 * distance + 1
            assert wide.text.split() == text[wide.start : wide.end].split()
            assert (first.ordinal, first.start) == (0, 0)
            assert first.text.split() == text[: first.end].split()


@pytest.fixture(scope="module")
def cross_encoder_folder(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder's own layers with one output on top: no good ranker, but a real one."""
    folder = tmp_path_factory.mktemp("cross") / "encoder"
    torch.manual_seed(7)
    SentenceCrossEncoder(str(encoder_folder), num_labels=1, device="cpu").save_pretrained(
        str(folder)
    )
    return folder


async def test_a_real_cross_encoder_gives_questions_at_once_the_scores_they_get_alone(
    cross_encoder_folder: Path,
) -> None:
    reranker = LocalReranker(lambda: CrossEncoder(str(cross_encoder_folder), "cpu", batch_size=4))
    await reranker.start()
    passages = list(OTHERS.values())
    asked = [
        (question, passages[: n + 1]) for n, question in enumerate((BY_WORDS, BY_MEANING, "?"))
    ]
    alone = [await reranker.scores(*each) for each in asked]
    working = [asyncio.create_task(reranker.scores(*each)) for each in asked * 3]
    turns = 0
    while not all(task.done() for task in working):
        await asyncio.sleep(0)
        turns += 1
    together = [task.result() for task in working]
    await reranker.close()

    assert turns > 10
    assert [len(scores) for scores in alone] == [1, 2, 3]
    assert all(0 <= score <= 1 for scores in alone for score in scores)
    assert len({score for scores in alone for score in scores}) == 6
    for scores, wanted in zip(together, alone * 3, strict=True):
        assert scores == pytest.approx(wanted, abs=1e-5)


async def test_a_real_cross_encoder_decides_what_the_gateway_gives(
    index_settings: IndexSettings,
    encoder: Encoder,
    corpus: Path,
    run_indexer: RunIndexer,
    cross_encoder_folder: Path,
) -> None:
    await asyncio.to_thread(run_indexer, corpus)
    model = CrossEncoder(str(cross_encoder_folder), "cpu")
    async with retrieving(index_settings, encoder, LocalReranker(lambda: model)) as ask:
        found = await ask(BY_MEANING, limit=7, rerank=True)

    pairs = [(BY_MEANING, f"{hit.title}\n{hit.text}") for hit in found.hits]
    scores = [hit.score for hit in found.hits]
    assert len(scores) == 7
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(model.scores(pairs), abs=1e-5)
    assert found.relevance == scores[0]


def test_a_model_that_is_no_cross_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="no-such-model"):
        CrossEncoder(str(tmp_path / "no-such-model"), "cpu")
