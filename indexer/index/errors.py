"""What can go wrong between a process and the index.

::

    IndexFailure
    ├── IndexUnavailable       Milvus does not answer, or not in time
    ├── KnowledgeBaseMissing   no alias of that name: nothing was published yet
    ├── FingerprintMismatch    the collection was built by another encoder
    ├── IndexRefused           Milvus answered, and said no
    └── EncoderFailure
        ├── EncoderUnavailable the model cannot be loaded, or is not loaded yet
        └── EncodingFailed     the model failed on an input

    FilterInvalid              what a client wants filtered by; `param` names the part

    TokensInvalid              token ids that are not those of the encoder's tokenizer

    LeaseFailure               met by writers alone
    ├── LeaseHeld              another run has the knowledge base
    └── LeaseLost              this run had it, and was taken for dead

    LibraryFailure             met by who stores uploads, or indexes them
    ├── LibraryUnavailable     the storage does not answer, or refuses
    └── NotInLibrary           there is no such file, store or batch
"""

from typing import Literal

LibraryKind = Literal["file", "vector store", "file in this vector store", "file batch"]
"""What has an id in a library of uploads."""


class IndexFailure(Exception):
    """Base of every error that the contract raises."""


class IndexUnavailable(IndexFailure):
    """Milvus does not answer, or not in time. Trying again may help."""


class KnowledgeBaseMissing(IndexFailure):
    """No collection is published under the name of the knowledge base."""


class FingerprintMismatch(IndexFailure):
    """The collection holds vectors that another encoder made; its scores would mean nothing."""


class IndexRefused(IndexFailure):
    """Milvus refused a request for a reason that trying again does not mend."""


class EncoderFailure(IndexFailure):
    """Base of the encoder's errors."""


class EncoderUnavailable(EncoderFailure):
    """The embedding model cannot be loaded, or is still loading."""


class EncodingFailed(EncoderFailure):
    """The embedding model failed on an input."""


class FilterInvalid(Exception):
    """A filter is no filter, or does not fit the attributes that are declared."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        """Where in the request: "filters.filters[1].key"."""


class TokensInvalid(Exception):
    """Token ids that a client wants a vector of are not those of the encoder's tokenizer."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place
        """Which of the arrays it was, from 0."""


class LeaseFailure(Exception):
    """Base of what keeps a run from writing because of another run."""


class LeaseHeld(LeaseFailure):
    """Another run has the lease of the knowledge base."""


class LeaseLost(LeaseFailure):
    """The lease was not renewed in time: another run may have it, so this one may not write."""


class LibraryFailure(Exception):
    """Base of what goes wrong with the library of uploads."""


class LibraryUnavailable(LibraryFailure):
    """The storage does not answer, refuses, or gives back what was not written there."""


class NotInLibrary(LibraryFailure):
    """Nothing of that kind has that id."""

    def __init__(self, kind: LibraryKind, identity: str) -> None:
        super().__init__(f"there is no {kind} {identity[:100]!r}")
        self.kind = kind
        self.identity = identity
