"""Which generation a run writes to, which ones go, and which one readers see."""

from collections.abc import Collection

import msgspec

from indexer.index.collection import Generation, IndexWriter
from indexer.index.errors import FingerprintMismatch, KnowledgeBaseMissing
from indexer.index.records import Fingerprint


class Target(msgspec.Struct, frozen=True):
    """Where a run writes to."""

    generation: Generation
    published: Generation | None
    """What readers see now."""

    @property
    def is_published(self) -> bool:
        """Whether readers see what is written at once."""
        return (
            self.published is not None and self.published.collection == self.generation.collection
        )


def open_target(writer: IndexWriter, fingerprint: Fingerprint, tenants: Collection[str]) -> Target:
    """The published generation where it has `fingerprint`, a new one otherwise.

    What an earlier run was building is this run's to finish, or is dropped; either way that run
    cannot publish it any more. Raises FingerprintMismatch, before anything is changed, when
    building anew would lose the documents of other tenants than `tenants`.
    """
    published = writer.published()
    later = [
        generation
        for generation in writer.generations()
        if published is None or generation.number > published.number
    ]
    if published is not None and published.fingerprint == fingerprint:
        _drop(writer, later)
        return Target(published, published)
    if published is not None and writer.has_other_tenants(published, tenants):
        raise FingerprintMismatch(
            f"{published.collection!r} was built with other parameters and holds documents of "
            "other tenants, which this run would lose: name the sources of all tenants, or use "
            "the parameters that it was built with"
        )
    unfinished = [
        generation
        for generation in later
        # An import goes on in Milvus after its run has died: its rows would be added to ours.
        if generation.fingerprint == fingerprint and not generation.is_loading
    ]
    _drop(writer, [generation for generation in later if generation not in unfinished[-1:]])
    if unfinished:
        return Target(writer.adopt(unfinished[-1]), published)
    return Target(writer.create(fingerprint), published)


def known_in(target: Target) -> list[Generation]:
    """The generations whose vectors `target` may use again: those of the same encoder."""
    generations = [target.generation]
    if target.published is not None and not target.is_published:
        generations.append(target.published)
    wanted = target.generation.fingerprint
    return [
        generation for generation in generations if has_same_vectors(generation.fingerprint, wanted)
    ]


def has_same_vectors(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether the same passage has the same vector under both."""
    return one.schema_version == other.schema_version and not one.encoder.differences(other.encoder)


def prune(writer: IndexWriter, keep: int) -> list[str]:
    """Drop all generations but the published one and the `keep` before it; gives their names."""
    published = writer.published()
    if published is None:
        return []
    before = [
        generation
        for generation in writer.generations()
        if generation.number < published.number and generation.last_run is not None
    ]
    kept = {published.collection, *(generation.collection for generation in before[-keep:][:keep])}
    dropped = [
        generation for generation in writer.generations() if generation.collection not in kept
    ]
    _drop(writer, dropped)
    return [generation.collection for generation in dropped]


def roll_back(writer: IndexWriter) -> Generation:
    """Publish the generation before the published one, and give it.

    Raises KnowledgeBaseMissing when there is none.
    """
    published = writer.published()
    before = [
        generation
        for generation in writer.generations()
        if published is not None
        and generation.number < published.number
        and generation.last_run is not None
    ]
    if not before:
        raise KnowledgeBaseMissing("there is no earlier generation to roll back to")
    writer.publish(before[-1])
    return before[-1]


def forget(writer: IndexWriter, tenant: str) -> int:
    """Delete every row of `tenant` from every generation; gives how many rows that were."""
    deleted = 0
    for generation in writer.generations():
        _, rows = writer.count(generation, [tenant])
        if rows:
            writer.delete_tenant(generation, tenant)
            writer.flush(generation)
        deleted += rows
    return deleted


def _drop(writer: IndexWriter, generations: Collection[Generation]) -> None:
    for generation in generations:
        writer.drop(generation)
