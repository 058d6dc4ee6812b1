"""How limits stand, as headers of OpenAI's API and of Anthropic's."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from gateway.access.ledger import Standing


def openai_headers(standings: Mapping[str, tuple[int, Standing]]) -> dict[str, str]:
    """By the kind of the limit: its number, what is left, and until when."""
    headers: dict[str, str] = {}
    for kind, (limit, standing) in standings.items():
        headers[f"x-ratelimit-limit-{kind}"] = str(limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(standing.remaining)
        headers[f"x-ratelimit-reset-{kind}"] = duration(standing.reset_s)
    return headers


def anthropic_headers(standings: Mapping[str, tuple[int, Standing]]) -> dict[str, str]:
    """The same as Anthropic's clients read it, with a time instead of a duration."""
    headers: dict[str, str] = {}
    for kind, (limit, standing) in standings.items():
        resets = datetime.now(UTC) + timedelta(seconds=math.ceil(standing.reset_s))
        headers[f"anthropic-ratelimit-{kind}-limit"] = str(limit)
        headers[f"anthropic-ratelimit-{kind}-remaining"] = str(standing.remaining)
        headers[f"anthropic-ratelimit-{kind}-reset"] = resets.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes it: 0s, 20ms, 7.66s, 6m0s."""
    milliseconds = math.ceil(max(0.0, seconds) * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    told = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{told}" if minutes else told
