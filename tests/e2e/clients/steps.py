"""Runs the steps of a client script one after the other, and prints what each came to.

The one line on standard output is a JSON object: the name of each step with `{"value": …}`, or
with `{"failed": …}` for one that raised, which ends no other.
"""

import json
import traceback
from collections.abc import Callable
from typing import Any

QUESTION = [{"role": "user", "content": "How high is the lighthouse of Port Vennel?"}]
CITES = {"structured_outputs": {"regex": r"It is 43 metres high \[1\]\."}}
"""Extra fields with which a model cites that is too small to do it by itself."""
SCHEMA = {
    "type": "object",
    "properties": {"metres": {"type": "integer", "enum": [43, 44]}},
    "required": ["metres"],
    "additionalProperties": False,
}


def tell(*steps: Callable[[], Any]) -> None:
    """Run `steps`, whose values are JSON."""
    told: dict[str, Any] = {}
    for step in steps:
        try:
            told[step.__name__] = {"value": step()}
        except Exception:  # noqa: BLE001  # the test says what is wrong with it
            told[step.__name__] = {"failed": traceback.format_exc(limit=-6)}
    print(json.dumps(told))
