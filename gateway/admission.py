"""Lets a request in: every route is closed but those that say of themselves that they are open."""

from collections.abc import Callable, Iterable

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.callers import Caller, acting_as
from gateway.access.limits import Admission, Limiter, under
from gateway.deadline import Deadlines, ending_by
from gateway.edge import limit_headers
from gateway.exchanges import exchange_of

TIMED_OUT = 504
OPEN = "open"
"""Key in the `opt` of a route that anybody may ask, such as health."""


Headers = Iterable[tuple[bytes, bytes]]


def admission(
    admitted: Callable[[Headers], Caller], limiter: Limiter
) -> Callable[[ASGIApp], ASGIApp]:
    """The middleware that finds out who asks, and whether it may ask now.

    `admitted` raises Unauthenticated, `limiter` RateLimited and Overloaded. Nothing of a body has
    been read by then.
    """

    def around(app: ASGIApp) -> ASGIApp:
        async def admit(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["route_handler"].opt.get(OPEN):
                await app(scope, receive, send)
                return
            who = admitted(scope["headers"])
            limited = await limiter.admitted(who)
            with acting_as(who):
                if limited is None:
                    await app(scope, receive, send)
                else:
                    await _answered_under(limited, app, scope, receive, send)

        return admit

    return around


def in_time(deadlines: Deadlines) -> Callable[[ASGIApp], ASGIApp]:
    """The middleware that ends a request, an exchange, when its time is over.

    A route that is open looks after its own.
    """

    def around(app: ASGIApp) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["route_handler"].opt.get(OPEN):
                await app(scope, receive, send)
                return
            with ending_by(deadlines.of(scope["headers"]), exchange_of(scope)):
                await app(scope, receive, send)

        return answer

    return around


async def _answered_under(
    limited: Admission, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Have `app` answer; whatever becomes of it, what the request holds is given back.

    A client that leaves, or gives it too little time, pays what was charged: the work may be done.
    """
    failed = False

    async def sent(message: Message) -> None:
        nonlocal failed
        if message["type"] == "http.response.start":
            failed = message["status"] >= 400 and message["status"] != TIMED_OUT
            told = limit_headers(scope, limited.standings)
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in told.items()),
            ]
        await send(message)

    try:
        with under(limited):
            await app(scope, receive, sent)
    except Exception:
        failed = True
        raise
    finally:
        limited.end(failed=failed)
