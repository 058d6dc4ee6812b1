"""How much of anything a request may bring."""

from pydantic import Field

from indexer.index.settings import IndexSettings


class BoundsSettings(IndexSettings):
    """What is refused before anything expensive is done."""

    max_body_bytes: int = Field(
        default=10_000_000, ge=1, description="Longest request body that is accepted, in bytes."
    )
    max_upload_bytes: int = Field(
        default=536_870_912,
        ge=1,
        description="Longest upload of a file that is accepted, in bytes.",
    )
