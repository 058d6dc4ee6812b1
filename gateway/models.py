"""Which model is loaded now. vLLM is asked again and again: a model is swapped by restarting it."""

import asyncio
import contextlib
import logging

import msgspec

from gateway.errors import ModelNotFound, UpstreamFailure, UpstreamUnavailable
from gateway.upstream import ServedModel, Upstream

DEFAULT_MODEL = "default"
"""The name that always means whatever vLLM serves."""

_log = logging.getLogger(__name__)


class Loaded(msgspec.Struct, frozen=True):
    """A model that requests can be sent to."""

    name: str
    """As vLLM knows it."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together; None where the server does not tell."""


class Models:
    """What vLLM served when it was last asked."""

    def __init__(self, upstream: Upstream, poll_interval_s: float) -> None:
        self._upstream = upstream
        self._poll_interval_s = poll_interval_s
        self._served: list[ServedModel] = []

    async def refresh(self) -> list[ServedModel]:
        """Ask vLLM now. Raises UpstreamFailure."""
        try:
            served = await self._upstream.models()
        except UpstreamFailure:
            self._remember([])
            raise
        self._remember(served)
        return served

    async def resolve(self, requested: str | None) -> str:
        """The name under which vLLM knows the model that a client asked for; see `loaded`."""
        return (await self.loaded(requested)).name

    async def loaded(self, requested: str | None) -> Loaded:
        """The model that a client asked for.

        Raises UpstreamUnavailable while nothing is loaded, ModelNotFound for another name than
        those that are.
        """
        if self._find(requested) is None:
            await self.refresh()
        if (model := self._find(requested)) is not None:
            return Loaded(model.id, self._max_model_len(model))
        if not self._served:
            raise UpstreamUnavailable("the model server has no model loaded yet")
        names = ", ".join([DEFAULT_MODEL, *(model.id for model in self._served)])
        raise ModelNotFound(f"The model {requested!r} does not exist. There are: {names}.")

    async def watch(self) -> None:
        """Ask again every few seconds, for as long as the task lives."""
        while True:
            with contextlib.suppress(UpstreamFailure):
                await self.refresh()
            await asyncio.sleep(self._poll_interval_s)

    def _find(self, requested: str | None) -> ServedModel | None:
        if requested in (None, DEFAULT_MODEL):
            return self._served[0] if self._served else None
        return next((model for model in self._served if model.id == requested), None)

    def _max_model_len(self, model: ServedModel) -> int | None:
        told = model.fields.get("max_model_len")
        if told is None and (parent := model.fields.get("parent")) is not None:
            # vLLM tells it of the model that an adapter is for, not of the adapter.
            told = next(
                (base.fields.get("max_model_len") for base in self._served if base.id == parent),
                None,
            )
        return told if isinstance(told, int) else None

    def _remember(self, served: list[ServedModel]) -> None:
        before, now = ([model.id for model in models] for models in (self._served, served))
        if before != now:
            _log.info("models served: %s", ", ".join(now) or "none")
        self._served = served
