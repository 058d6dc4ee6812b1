"""Models, as they are documented."""

import msgspec

from gateway.errors import ModelNotFound
from gateway.schemas import failures
from gateway.schemas.documented import Documented


class Model(msgspec.Struct, tag_field="object", tag="model"):
    """A model that requests can name."""

    id: str
    created: int | None = None
    owned_by: str | None = None
    max_model_len: int | None = None
    """Tokens of prompt and answer together."""


class ModelList(msgspec.Struct, tag_field="object", tag="list"):
    """What vLLM serves now, `default`, and the configured aliases."""

    data: list[Model]


LIST_MODELS = Documented(
    id="listModels",
    tag="Models",
    summary="List the models",
    answers=(ModelList,),
    failures=failures.UPSTREAM,
)
RETRIEVE_MODEL = Documented(
    id="retrieveModel",
    tag="Models",
    summary="Retrieve a model",
    answers=(Model,),
    failures=(ModelNotFound, *failures.UPSTREAM),
)
