"""What each request may have, and what becomes of it: let in, charged, refused, given back."""

import itertools
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Literal

import msgspec
from prometheus_client import Counter

from gateway.access.callers import Caller, Limits
from gateway.access.ledger import Charge, Give, Ledger, Slot, Standing, Take, Taken
from gateway.access.windows import WINDOW_S
from gateway.errors import GatewayFailure, InvalidRequest, Overloaded, RateLimited
from gateway.settings import GatewaySettings

BYTES_A_TOKEN = 4
"""Of English text; what is charged at first, until the real number is known."""
BUSY_S = 1.0
"""What clients are told to wait for a slot: nobody knows when an answer ends."""

Kind = Literal["requests", "tokens", "concurrent_requests", "answer_tokens"]
Whose = Literal["key", "all"]
_REFUSED = Counter(
    "groundserve_limited", "Requests that were refused for a limit.", ["limit", "whose"]
)
_KNOWN = 4096


class Rule(msgspec.Struct, frozen=True):
    """One limit."""

    kind: Kind
    limit: int
    key: str
    """What the ledger counts it under."""
    whose: Whose


class Rules(msgspec.Struct, frozen=True):
    """All limits that a caller's requests are under."""

    requests: tuple[Rule, ...]
    tokens: tuple[Rule, ...]
    slots: tuple[Rule, ...]
    answer: Rule | None
    """The lower one, where there are two."""


class Limiter:
    """Lets requests in."""

    def __init__(self, settings: GatewaySettings, ledger: Ledger) -> None:
        self._ledger = ledger
        self._all = Limits(
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            concurrent_requests=settings.concurrent_requests,
            answer_tokens=settings.max_answer_tokens,
        )
        self._default = Limits(
            requests_per_minute=settings.key_requests_per_minute,
            tokens_per_minute=settings.key_tokens_per_minute,
            concurrent_requests=settings.key_concurrent_requests,
            answer_tokens=settings.key_answer_tokens,
        )
        self._rules = lru_cache(_KNOWN)(self._made)
        # Leases of other processes, and of this one before it was started anew, are other ones.
        self._leases = map((secrets.token_hex(8) + ":%d").__mod__, itertools.count())

    async def admitted(self, who: Caller) -> "Admission | None":
        """The request of `who`, which the caller of this ends; None where nothing limits it.

        Raises RateLimited, and Overloaded where there are too many in all.
        """
        rules = self._rules(who.name, who.limits)
        if rules is None:
            return None
        admission = Admission(rules, self._ledger, next(self._leases))
        await admission.enter()
        return admission

    def _made(self, name: str, own: Limits) -> Rules | None:
        """None where there are none."""
        limits: dict[tuple[Whose, str], Limits] = {
            ("key", name): Limits(
                requests_per_minute=own.requests_per_minute or self._default.requests_per_minute,
                tokens_per_minute=own.tokens_per_minute or self._default.tokens_per_minute,
                concurrent_requests=own.concurrent_requests or self._default.concurrent_requests,
                answer_tokens=own.answer_tokens or self._default.answer_tokens,
            ),
            ("all", ""): self._all,
        }

        def rules(kind: Kind, field: str) -> tuple[Rule, ...]:
            return tuple(
                Rule(kind, limit, f"{kind}:{whose}:{name}", whose)
                for (whose, name), of in limits.items()
                if (limit := getattr(of, field)) is not None
            )

        answers = rules("answer_tokens", "answer_tokens")
        found = Rules(
            rules("requests", "requests_per_minute"),
            rules("tokens", "tokens_per_minute"),
            rules("concurrent_requests", "concurrent_requests"),
            min(answers, key=lambda rule: rule.limit, default=None),
        )
        return found if any([found.requests, found.tokens, found.slots, answers]) else None


class Admission:
    """A request that is under limits."""

    def __init__(self, rules: Rules, ledger: Ledger, lease: str) -> None:
        self._rules = rules
        self._ledger = ledger
        self._lease = lease
        self._second = -1
        self._prompt = 0
        self._charged = 0
        self._used: int | None = None
        self._used_besides = 0
        self._standings: dict[str, Standing] = {}

    @property
    def is_metered(self) -> bool:
        """Whether tokens count."""
        return bool(self._rules.tokens)

    @property
    def answer_tokens(self) -> int | None:
        """How long an answer may be; None is no limit."""
        return None if self._rules.answer is None else self._rules.answer.limit

    async def enter(self) -> None:
        """Take what every request needs. Raises RateLimited and Overloaded.

        Where no token is left, it ends here: before anything of a body is read.
        """
        if not (self._rules.requests or self._rules.tokens or self._rules.slots):
            return
        rules = (*self._rules.requests, *self._rules.tokens)
        charges = [Charge(each.key, each.limit, int(each.kind == "requests")) for each in rules]
        slots = [Slot(each.key, each.limit) for each in self._rules.slots]
        taken = await self._ledger.take(Take(self._lease, tuple(charges), tuple(slots)))
        self._remember(rules, taken)
        if taken.refused >= 0:
            raise self._refusal([*rules, *self._rules.slots][taken.refused], taken.wait_s, 1)

    async def spend(self, prompt: int, answer: int) -> None:
        """Charge tokens, about as many as will be used. Raises RateLimited."""
        if not self._rules.tokens:
            return
        amount = prompt + answer
        charges = [Charge(each.key, each.limit, amount) for each in self._rules.tokens]
        taken = await self._ledger.take(Take(self._lease, tuple(charges)))
        self._remember(self._rules.tokens, taken)
        if taken.refused >= 0:
            raise self._refusal(self._rules.tokens[taken.refused], taken.wait_s, amount)
        self._prompt, self._charged, self._second = prompt, amount, taken.second

    def used(self, tokens: int) -> None:
        """So many tokens were really used."""
        self._used = tokens

    def used_besides(self, tokens: int) -> None:
        """So many more were used on the way to an answer; they count whatever becomes of it."""
        self._used_besides += tokens

    def came(self, pieces: int) -> None:
        """An answer broke off after so many pieces, of a token or more each."""
        if self._used is None:
            self._used = max(self._charged, self._prompt + pieces)

    def end(self, *, failed: bool) -> None:
        """Give back what the request held, and what was charged for nothing where it `failed`."""
        used = self._used
        if used is None:
            used = 0 if failed else self._charged
        difference = used + self._used_besides - self._charged
        settled = tuple((rule.key, difference) for rule in self._rules.tokens) if difference else ()
        slots = tuple(rule.key for rule in self._rules.slots)
        self._ledger.give(Give(self._lease, slots, self._second, settled))

    def check_answer(self, param: str, tokens: int) -> None:
        """Raises InvalidRequest where the request wants a longer answer than it may have."""
        rule = self._rules.answer
        if rule is not None and tokens > rule.limit:
            _REFUSED.labels(rule.kind, rule.whose).inc()
            raise InvalidRequest(
                f"Invalid value for {param!r}: an answer may have {rule.limit} tokens here, not "
                f"{tokens}.",
                param,
            )

    @property
    def standings(self) -> dict[str, tuple[int, Standing]]:
        """Limit and standing of requests and of tokens, of whichever is nearest to its end."""
        found: dict[str, tuple[int, Standing]] = {}
        for rule in (*self._rules.requests, *self._rules.tokens):
            standing = self._standings.get(rule.key)
            known = found.get(rule.kind)
            if standing and (known is None or standing.remaining < known[1].remaining):
                found[rule.kind] = rule.limit, standing
        return found

    def _remember(self, rules: Sequence[Rule], taken: Taken) -> None:
        self._standings |= {
            rule.key: standing for rule, standing in zip(rules, taken.standings, strict=True)
        }

    def _refusal(self, rule: Rule, wait_s: float, amount: int) -> GatewayFailure:
        _REFUSED.labels(rule.kind, rule.whose).inc()
        whose = "this key" if rule.whose == "key" else "the whole gateway"
        if rule.kind == "concurrent_requests":
            message = (
                f"Too many requests at a time for {whose}: limit {rule.limit}. "
                f"Please try again in {BUSY_S:.0f}s."
            )
            if rule.whose == "all":
                return Overloaded(message)
            return RateLimited(message, "requests", BUSY_S, self.standings)
        used = rule.limit - self._standings[rule.key].remaining
        told = f"{rule.kind} per min: limit {rule.limit}, used {used}, requested {amount}"
        if wait_s < 0:
            return RateLimited(
                f"Request too large for {whose} on {told}. Send a shorter prompt, or ask for a "
                "shorter answer.",
                rule.kind,
                None,
                self.standings,
            )
        return RateLimited(
            f"Rate limit reached for {whose} on {told}. Please try again in {wait_s:.3f}s.",
            rule.kind,
            min(wait_s, WINDOW_S + 1),
            self.standings,
        )


_ADMISSION: ContextVar[Admission | None] = ContextVar("admission", default=None)


def admission() -> Admission | None:
    """The request that is being answered; None where nothing limits it."""
    return _ADMISSION.get()


async def spend(content: bytes) -> None:
    """Charge the caller about as many tokens as `content` has. Raises RateLimited."""
    if (limited := admission()) is not None:
        await limited.spend(len(content) // BYTES_A_TOKEN, 0)


@contextmanager
def under(limited: Admission) -> Iterator[None]:
    """Have `admission()` be `limited` in this block, and in the tasks that it starts."""
    token = _ADMISSION.set(limited)
    try:
        yield
    finally:
        _ADMISSION.reset(token)
