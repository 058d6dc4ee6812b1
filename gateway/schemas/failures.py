"""Which failures each kind of request may meet, for documentation. The table has their statuses."""

from gateway.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    NothingFound,
    Overloaded,
    UpstreamBroken,
    UpstreamRejected,
    UpstreamUnavailable,
    VectorStoreNotFound,
)
from indexer.index.errors import (
    EncoderUnavailable,
    EncodingFailed,
    FilterInvalid,
    FingerprintMismatch,
    IndexFailure,
    IndexUnavailable,
    KnowledgeBaseMissing,
)

UPSTREAM = (UpstreamUnavailable, UpstreamRejected, UpstreamBroken)
ENCODER = (EncoderUnavailable, EncodingFailed, Overloaded)
INDEX = (IndexUnavailable, IndexFailure, FingerprintMismatch, KnowledgeBaseMissing)
ANSWER = (
    InvalidRequest,
    ContextLengthExceeded,
    FilterInvalid,
    ModelNotFound,
    NothingFound,
    VectorStoreNotFound,
    *UPSTREAM,
    *ENCODER,
    *INDEX,
)
"""Of a request that a model answers from documents."""
