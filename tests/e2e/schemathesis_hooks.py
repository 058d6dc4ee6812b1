"""Keeps what schemathesis asks of a real model short; everything else stays as it was generated."""

from typing import Any

import schemathesis

LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
SHORTEST = {**dict.fromkeys(LENGTHS, 4), "n": 1, "best_of": 1, "min_tokens": 0}


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext,  # noqa: ARG001  # so schemathesis calls it
    case: Any,
    kwargs: dict[str, Any],  # noqa: ARG001
) -> None:
    """Fields that make an answer long are at their least; wrong values stay wrong."""
    body = case.body
    if not isinstance(body, dict) or "model" not in body:
        return
    for name, least in SHORTEST.items():
        if isinstance(body.get(name), int):
            body[name] = least
    if not any(name in body for name in LENGTHS):
        body["max_output_tokens" if "input" in body else "max_tokens"] = 4
