"""A generation: its schema, its limits, and the fingerprint that it carries as a property."""

from typing import Any

import msgspec
from pymilvus import CollectionSchema, DataType, Function, FunctionType, MilvusClient

from indexer.index.attributes import STRING_MAX_CHARS, columns
from indexer.index.errors import FingerprintMismatch
from indexer.index.records import AttributeType, Fingerprint

TEXT_MAX_BYTES = 65_535  # Milvus' own limit for VARCHAR
NAME_MAX_BYTES = 4_096
VERSION_MAX_BYTES = 1_024
GRPC_OPTIONS = {
    # pymilvus pings every 10 s even between calls; Milvus Lite closes the connection of who does.
    "grpc.keepalive_permit_without_calls": 0,
    # gRPC waits longer after each attempt that failed, up to 2 min: a Milvus that was away for
    # 45 s was found again 22 s after it was back.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 1_000,
    # How long an attempt may take, the handshake of TLS included; 20 s otherwise.
    "grpc.min_reconnect_backoff_ms": 5_000,
}
_FINGERPRINT_PROPERTY = "groundserve.fingerprint"
BULK_LOAD_PROPERTY = "groundserve.bulk_load"
_LAST_RUN_PROPERTY = "groundserve.last_run"
_ATTRIBUTE_TYPES: dict[AttributeType, DataType] = {
    "string": DataType.VARCHAR,
    "integer": DataType.INT64,
    "number": DataType.DOUBLE,
    "boolean": DataType.BOOL,
}


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the last complete run left written on its generation."""

    run: int
    finished_at: float
    """Seconds since the epoch."""
    seconds: float
    documents: int
    chunks: int


class Generation(msgspec.Struct, frozen=True):
    """One build of a collection."""

    collection: str
    fingerprint: Fingerprint
    last_run: RunRecord | None = None
    """None while it is being built: it was never fit to be published."""
    is_loading: bool = False
    """Whether Milvus imports rows into it, or did when the run that asked for that died."""

    @property
    def number(self) -> int:
        """That of the run which built it: a later generation has a higher one."""
        return int(self.collection.rpartition("__g")[2])


def fingerprint_property(fingerprint: Fingerprint) -> dict[str, str]:
    """The collection property that states `fingerprint`."""
    return {_FINGERPRINT_PROPERTY: msgspec.json.encode(fingerprint).decode()}


def last_run_property(record: RunRecord) -> dict[str, str]:
    """The collection property that states the last complete run."""
    return {_LAST_RUN_PROPERTY: msgspec.json.encode(record).decode()}


def described_generation(described: dict[str, Any]) -> Generation:
    """What Milvus says of a collection, as a generation. Raises FingerprintMismatch."""
    collection = described["collection_name"]
    stated = described.get("properties", {})
    if _FINGERPRINT_PROPERTY not in stated:
        raise FingerprintMismatch(
            f"collection {collection!r} states no fingerprint: it is not ours"
        )
    try:
        return Generation(
            collection,
            msgspec.json.decode(stated[_FINGERPRINT_PROPERTY], type=Fingerprint),
            msgspec.json.decode(stated.get(_LAST_RUN_PROPERTY, "null"), type=RunRecord | None),
            bool(stated.get(BULK_LOAD_PROPERTY)),
        )
    except msgspec.DecodeError as exc:
        raise FingerprintMismatch(
            f"the fingerprint of {collection!r} cannot be read: {exc}"
        ) from exc


def schema(fingerprint: Fingerprint) -> CollectionSchema:
    """The fields of a chunk, its declared attributes, its vector, and BM25 over its terms."""
    fields = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    fields.add_field("chunk_id", DataType.VARCHAR, max_length=32, is_primary=True)
    fields.add_field("tenant", DataType.VARCHAR, max_length=512, is_partition_key=True)
    fields.add_field("document_id", DataType.VARCHAR, max_length=64)
    fields.add_field("document_hash", DataType.VARCHAR, max_length=32)
    fields.add_field("version", DataType.VARCHAR, max_length=VERSION_MAX_BYTES)
    fields.add_field("run", DataType.INT64)
    fields.add_field("source", DataType.VARCHAR, max_length=NAME_MAX_BYTES)
    fields.add_field("title", DataType.VARCHAR, max_length=NAME_MAX_BYTES)
    fields.add_field("heading_path", DataType.VARCHAR, max_length=NAME_MAX_BYTES)
    fields.add_field("anchor", DataType.VARCHAR, max_length=NAME_MAX_BYTES)
    fields.add_field("ordinal", DataType.INT64)
    fields.add_field("chunk_count", DataType.INT64)
    fields.add_field("start", DataType.INT64)
    fields.add_field("end", DataType.INT64)
    fields.add_field("text", DataType.VARCHAR, max_length=TEXT_MAX_BYTES)
    fields.add_field("terms", DataType.VARCHAR, max_length=TEXT_MAX_BYTES, enable_analyzer=True)
    fields.add_field("chunk_hash", DataType.VARCHAR, max_length=32)
    fields.add_field("attributes", DataType.JSON)
    for name, column in columns(fingerprint.attributes).items():
        kind = _ATTRIBUTE_TYPES[fingerprint.attributes[name]]
        limit = {"max_length": 4 * STRING_MAX_CHARS} if kind is DataType.VARCHAR else {}
        fields.add_field(column, kind, nullable=True, **limit)
    fields.add_field("dense", DataType.FLOAT_VECTOR, dim=fingerprint.encoder.dimension)
    fields.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    fields.add_function(
        Function(
            name="bm25",
            function_type=FunctionType.BM25,
            input_field_names=["terms"],
            output_field_names=["sparse"],
        )
    )
    return fields
