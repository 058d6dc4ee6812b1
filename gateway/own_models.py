"""Names of the models that the gateway itself runs: the encoder and the reranking model."""

import msgspec

from gateway.access.permissions import may_ask, model_not_found
from gateway.names import DEFAULT_MODEL


class OwnModel(msgspec.Struct, frozen=True):
    """A model as clients know it."""

    name: str
    """What answers call it; never the path of a folder."""
    source: str
    """What it was loaded from, which clients may say as well."""

    @classmethod
    def called(cls, source: str, name: str | None = None) -> "OwnModel":
        """The model of `source`, by default under the last part of that."""
        return cls(name or source.rstrip("/").rpartition("/")[2] or source, source)

    def check(self, requested: str) -> None:
        """Raises ModelNotFound where `requested` is no name of it, or none that may be asked."""
        if requested not in (self.name, self.source, DEFAULT_MODEL) or not may_ask(requested):
            raise model_not_found(requested, (DEFAULT_MODEL, self.name))
