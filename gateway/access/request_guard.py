"""Keeps a request from what a vLLM server holds of other tenants.

vLLM knows no tenants. What it keeps of a prompt, so that the next one with the same beginning is
read faster, it keeps for all: who asks can measure whether somebody has sent a text before. And
some fields of requests reach for what others are doing. This decides about each of them:

- `cache_salt` parts what is kept of prompts. Each tenant gets a salt of its own. Only the one of
  the setting GROUNDSERVE_TENANT goes without, so that a gateway without keys adds nothing. A
  client's own salt parts further, and cannot be chosen to be another tenant's.
- `request_id` is dropped: who gives the id of somebody's running request and then leaves ends both.
- `kv_transfer_params` and `ec_transfer_params`, in `vllm_xargs` as well, are refused: they fetch
  what a server keeps of prompts and images from servers that they name.
- `priority` below 0 is refused: it goes before everybody who says nothing. Others may wait longer.

The `uuid` of an image, by which vLLM keeps media, is refused where all parts of messages are looked
at: in gateway/media.py.
"""

import hashlib

import msgspec

from gateway.access.callers import caller
from gateway.body import Body
from gateway.errors import InvalidRequest

_TRANSFERS = ("kv_transfer_params", "ec_transfer_params")


class RequestGuard:
    """Decides what of a request reaches vLLM."""

    def __init__(self, unsalted: str) -> None:
        """`unsalted` is the one tenant whose requests need no salt, as all others have one."""
        self._unsalted = unsalted

    def guard(self, body: Body) -> None:
        """Change the fields of `body` to what may be sent. Raises InvalidRequest."""
        fields = body.fields
        fields.pop("request_id", None)
        _check_transfers(body)
        # Strictly a number: vLLM takes "-5" and -5.0 for one as well.
        if (body.get("priority", int | None) or 0) < 0:
            raise InvalidRequest(
                "Invalid value for 'priority': below 0 it would go before everybody else's.",
                "priority",
            )
        if (salt := self.salt(body.get("cache_salt", str | None))) is not None:
            fields["cache_salt"] = msgspec.Raw(msgspec.json.encode(salt))

    def salt(self, said: str | None = None) -> str | None:
        """What parts the caller's prompts from others in vLLM's cache; `said` is the client's own.

        Nobody has to keep it secret: whatever a client says, it gets its own tenant's.
        """
        tenant = caller().tenant
        if said is None and tenant == self._unsalted:
            return None
        return hashlib.sha256(msgspec.json.encode((tenant, said))).hexdigest()


def _check_transfers(body: Body) -> None:
    named = [name for name in _TRANSFERS if not body.is_absent(name)]
    if "vllm_xargs" in body.fields:
        said = body.lenient("vllm_xargs", dict[str, msgspec.Raw], {})
        named += [f"vllm_xargs.{name}" for name in _TRANSFERS if name in said]
    if named:
        raise InvalidRequest(
            f"{named[0]!r} is not taken here: it is for what stands between model servers.",
            named[0],
        )
