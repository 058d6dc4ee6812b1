"""Which models are loaded now, and where.

vLLM is asked again and again: a model is swapped by restarting it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.access.permissions import may_ask, model_not_found, usual_model
from gateway.deadline import entered, within
from gateway.errors import UpstreamFailure, UpstreamUnavailable
from gateway.names import DEFAULT_MODEL, named
from gateway.routing import Care, Route, by_affinity
from gateway.upstream import ServedModel, Upstream

_LOOK_S = 0.25
"""Between looks at vLLM while a request waits for it."""
_LEAST_S = 1.0
"""What one look may take also where nothing is waited for."""

_log = logging.getLogger(__name__)


class Loaded(msgspec.Struct, frozen=True):
    """A model that requests can be sent to."""

    name: str
    """As vLLM knows it."""
    route: Route
    """Where requests for it go."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together; None where the server does not tell."""
    swaps: int = 0
    """How often what is served had changed: another model may bear the same name."""


class Models:
    """What each vLLM server served when it was last asked."""

    def __init__(
        self,
        servers: Sequence[Upstream],
        *,
        poll_interval_s: float,
        wait_s: float = 0.0,
        care: Care | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """A request waits up to `wait_s` while nothing is loaded."""
        self._servers = servers
        self._poll_interval_s = poll_interval_s
        self._wait_s = wait_s
        self._care = msgspec.structs.replace(care or Care(), on_failure=self._forget)
        self._breakers = self._care.breakers
        self.aliases = dict(aliases or {})
        self._served: dict[Upstream, list[ServedModel]] = {server: [] for server in servers}
        self._refreshing: asyncio.Task[None] | None = None
        self._swaps = 0

    async def refresh(self) -> list[ServedModel]:
        """Ask every server now. Raises UpstreamFailure when none answers."""
        looks = await asyncio.gather(*map(self._look, self._servers))
        failures = [look for look in looks if isinstance(look, UpstreamFailure)]
        if len(failures) == len(self._servers):
            raise failures[0]
        return self.served

    async def until_served(self) -> None:
        """Wait for the first server that serves something now; another one may hang.

        Raises UpstreamFailure where none does.
        """
        failure: UpstreamFailure | None = None
        looks = [asyncio.create_task(self._look(server)) for server in self._servers]
        try:
            for ended in asyncio.as_completed(looks):
                look = await ended
                if isinstance(look, UpstreamFailure):
                    failure = look
                elif look:
                    return
        finally:
            for each in looks:
                each.cancel()
        raise failure or UpstreamUnavailable("the model server has no model loaded yet")

    @property
    def served(self) -> list[ServedModel]:
        """Each model once, in the order of the servers."""
        models: dict[str, ServedModel] = {}
        for model in (model for served in self._served.values() for model in served):
            models.setdefault(model.id, model)
        return list(models.values())

    async def listed(self) -> list[dict[str, Any]]:
        """Entries of what is served, `default`, and the aliases, as far as the caller may ask them.

        Raises UpstreamFailure.
        """
        served = await self.refresh()
        meant = {
            name: self._find(named(name, self.aliases).model)
            for name in (DEFAULT_MODEL, *self.aliases)
        }
        names = [*((each.id, each) for each in served), *meant.items()]
        return [
            self._entry(model, name) for name, model in names if model is not None and may_ask(name)
        ]

    async def entry(self, requested: str) -> dict[str, Any]:
        """One entry, by any name that requests may have. Raises what `loaded` does."""
        name = (await self.loaded(requested)).name
        model = self._find(name)
        if model is None:  # swapped in this very moment
            raise UpstreamUnavailable("the model server has no model loaded yet")
        return self._entry(model, requested)

    async def loaded(self, requested: str | None, opening: Callable[[], bytes] = bytes) -> Loaded:
        """The model that a client asked for, and where requests that begin with `opening` go.

        Raises UpstreamUnavailable while nothing is loaded, ModelNotFound for another name than
        those that are and that the caller may ask.
        """
        requested = requested or usual_model()
        # A name that it may not ask is one that nothing has, and that is found out as late.
        wanted = named(requested, self.aliases).model if may_ask(requested) else ""
        if self._find(wanted) is None:
            await self._waited(wanted)
        if (model := self._find(wanted)) is None:
            known = (DEFAULT_MODEL, *self.aliases, *(each.id for each in self.served))
            raise model_not_found(requested, known)
        servers = [
            server
            for server, served in self._served.items()
            if any(each.id == model.id for each in served)
        ]
        if not any(self._breakers.of(server).may_be_asked for server in servers):
            raise self._breakers.refusal(servers)
        if len(servers) > 1:  # what a request begins with may be megabytes of images
            servers = by_affinity(servers, opening())
        route = Route(servers, self._care)
        return Loaded(model.id, route, self._max_model_len(model), self._swaps)

    def everywhere(self) -> Sequence[Upstream]:
        """All servers: for what one of them has kept, such as a response."""
        return self._servers

    @property
    def none_may_be_asked(self) -> bool:
        """Whether no server that serves something is asked now, since each failed again and again.

        One whose time is over may be: who balances the load must send the request that tries it.
        """
        return not any(
            served and self._breakers.of(server).may_be_asked
            for server, served in self._served.items()
        )

    def troubles(self) -> dict[str, str]:
        """What is the matter with each server that is not asked, by its URL."""
        reasons = {
            server.name: self._breakers.of(server).trouble
            or ("" if served else "it serves nothing")
            for server, served in self._served.items()
        }
        return {name: reason for name, reason in reasons.items() if reason}

    async def watch(self) -> None:
        """Ask again every few seconds, for as long as the task lives."""
        while True:
            with contextlib.suppress(UpstreamFailure):
                await self.refresh()
            await asyncio.sleep(self._poll_interval_s)

    async def _look(self, server: Upstream) -> list[ServedModel] | UpstreamFailure:
        """What it serves, or why it does not tell."""
        try:
            served = await server.models()
        except UpstreamFailure as exc:
            self._remember(server, [])
            return exc
        self._breakers.of(server).was_reached()
        self._remember(server, served)
        return served

    async def _waited(self, wanted: str) -> None:
        """Until `wanted` is served, or every server says that it does not serve it.

        Raises UpstreamFailure when a server stays away for too long: it may be the one.
        """
        entered("model")
        loop = asyncio.get_running_loop()
        # Half of the time, so that there is some left to say why.
        ends = loop.time() + within(self._wait_s, share=0.5)
        while True:
            failure: UpstreamFailure = UpstreamUnavailable(
                "the model server has no model loaded yet"
            )
            try:
                async with asyncio.timeout_at(max(ends, loop.time() + within(_LEAST_S, share=0.5))):
                    await self._refreshed_once()
            except TimeoutError:
                failure = UpstreamUnavailable("the model server does not say what it serves")
            except UpstreamFailure as exc:
                failure = exc
            if self._find(wanted) is not None or all(self._served.values()):
                return
            if loop.time() + _LOOK_S > ends:
                raise failure
            await asyncio.sleep(_LOOK_S)

    async def _refreshed_once(self) -> None:
        """Many may wait at the same time; vLLM is asked once for all of them."""

        async def refresh() -> None:
            await self.refresh()

        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(refresh())
            self._refreshing.add_done_callback(_noticed)
        await asyncio.shield(self._refreshing)

    def _find(self, name: str) -> ServedModel | None:
        served = self.served
        if name == DEFAULT_MODEL:
            return served[0] if served else None
        return next((model for model in served if model.id == name), None)

    def _entry(self, model: ServedModel, name: str) -> dict[str, Any]:
        return {**model.fields, "id": name, "max_model_len": self._max_model_len(model)}

    def _max_model_len(self, model: ServedModel) -> int | None:
        """The shortest that any server tells: a request may go to each of them."""
        told = [
            length
            for served in self._served.values()
            for each in served
            if each.id == model.id and (length := _told_length(each, served)) is not None
        ]
        return min(told, default=None)

    def _forget(self, server: Upstream) -> None:
        self._remember(server, [])

    def _remember(self, server: Upstream, served: list[ServedModel]) -> None:
        before, now = ([model.id for model in models] for models in (self._served[server], served))
        if before != now:
            self._swaps += 1
            _log.info("models served by %s: %s", server.name, ", ".join(now) or "none")
        self._served[server] = served


def _noticed(refreshing: "asyncio.Task[None]") -> None:
    """Who waited for it may have left: nobody else asks how it ended."""
    if not refreshing.cancelled():
        refreshing.exception()


def _told_length(model: ServedModel, served: Sequence[ServedModel]) -> int | None:
    told = model.fields.get("max_model_len")
    if told is None and (parent := model.fields.get("parent")) is not None:
        # vLLM tells it of the model that an adapter is for, not of the adapter.
        told = next(
            (base.fields.get("max_model_len") for base in served if base.id == parent), None
        )
    return told if isinstance(told, int) else None
