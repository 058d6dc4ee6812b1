"""Ids of responses. vLLM keeps responses for whoever knows their ids; an id tells whose it is.

The gateway chooses the id, and vLLM takes it: `resp_`, 128 random bits, and 64 bits of the SHA-256
of tenant and random bits. Who brings an id whose last part is not that of its own tenant is told,
before vLLM is asked, what is told of an id that nothing has.

No secret is needed. Anybody can work out what an id with another tenant's random bits would be for
itself; but that is another id, and no response has it. Where two tenants' last parts are equal for
the same random bits, which happens to one response in 1.8e19, one could read the other's. So any
number of gateways know whose an id is, and none has to remember it.
"""

import hashlib
import re
import secrets

from gateway.access.callers import caller

_ID = re.compile(r"resp_([0-9a-f]{32})([0-9a-f]{16})")


def new_id() -> str:
    """An id for a response of the caller."""
    random = secrets.token_hex(16)
    return f"resp_{random}{_tag(random)}"


def is_own(response_id: str) -> bool:
    """Whether a response of the caller can have this id."""
    found = _ID.fullmatch(response_id)
    return found is not None and found[2] == _tag(found[1])


def _tag(random: str) -> str:
    return hashlib.sha256(f"{caller().tenant}{random}".encode()).hexdigest()[:16]
