"""Lets a request in: every route is closed but those that say of themselves that they are open."""

from collections.abc import Callable

from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.access.callers import Caller, acting_as

OPEN = "open"
"""Key in the `opt` of a route that anybody may ask, such as health."""


def admission(admitted: Callable[[Scope], Caller]) -> Callable[[ASGIApp], ASGIApp]:
    """The middleware that finds out who asks; `admitted` raises what a refusal looks like."""

    def around(app: ASGIApp) -> ASGIApp:
        async def admit(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["route_handler"].opt.get(OPEN):
                await app(scope, receive, send)
                return
            with acting_as(admitted(scope)):
                await app(scope, receive, send)

        return admit

    return around
