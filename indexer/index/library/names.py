"""What the objects of a library are called. Whatever a client names is checked here first.

::

    tenants/TENANT/files/FILE_ID.json
    tenants/TENANT/contents/FILE_ID
    tenants/TENANT/vector_stores/STORE_ID/store.json
    tenants/TENANT/vector_stores/STORE_ID/files/FILE_ID.CREATED_AT.VERSION[.cancelled].json
    tenants/TENANT/vector_stores/STORE_ID/outcome.json
    tenants/TENANT/vector_stores/STORE_ID/deleted.json
    tenants/TENANT/vector_stores/STORE_ID/batches/BATCH_ID.json
    pending/TENANT.STORE_ID.NONCE

Ids and versions begin with the time, so that names sort as what they name was made.
"""

import re
import secrets
import time
from typing import NamedTuple
from urllib.parse import quote, unquote

from indexer.index.errors import LibraryKind, NotInLibrary
from indexer.index.library.records import Membership
from indexer.index.records import key

PENDING = "pending"
TENANTS = "tenants"
TENANT_FILE = "tenant.json"
"""Says the name of a tenant that is too long for the name of a folder."""

_PREFIXES: dict[LibraryKind, str] = {
    "file": "file-",
    "file in this vector store": "file-",
    "vector store": "vs_",
    "file batch": "vsfb_",
}
_HEX = "[0-9a-f]{32}"
_MEMBER = re.compile(rf"(file-{_HEX})\.([0-9]{{1,15}})\.([0-9a-f]{{24}})(\.cancelled)?\.json")
_MARKER = re.compile(rf"([^.]+)\.(vs_{_HEX})\.[0-9a-f]+")
_MADE = re.compile("(?:file-|vs_|vsfb_)([0-9a-f]{12})[0-9a-f]{20}")
_FOLDER_MAX_CHARS = 150
_TOO_LONG = "="  # no quoted name has it


class Marker(NamedTuple):
    """Says that a store has changed, or was deleted."""

    name: str
    tenant: str
    store_id: str


def new_id(kind: LibraryKind) -> str:
    """An id that no other has, and that sorts behind those made before."""
    return f"{_PREFIXES[kind]}{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def made_at(identity: str) -> int | None:
    """When an id was made, in seconds since the epoch; None where `new_id` has not made it."""
    match = _MADE.fullmatch(identity)
    return None if match is None else int(match[1], 16) // 1000


def checked(kind: LibraryKind, identity: str) -> str:
    """`identity` itself. Raises NotInLibrary where nothing can have it."""
    if not is_id(kind, identity):
        raise NotInLibrary(kind, identity)
    return identity


def is_id(kind: LibraryKind, identity: str) -> bool:
    """Whether `identity` has the form of ids of this kind."""
    return re.fullmatch(_PREFIXES[kind] + _HEX, identity) is not None


def new_version(after: str = "") -> str:
    """A version that sorts behind `after`, and behind what was made before."""
    moment = max(time.time_ns(), int(after[:16] or "0", 16) + 1)
    return f"{moment:016x}{secrets.token_hex(4)}"


def tenant_folder(tenant: str) -> str:
    """A name for the folder of `tenant`, whatever characters it has."""
    # A dot alone is a folder itself, and parts the names of markers.
    quoted = quote(tenant, safe="", errors="surrogatepass").replace(".", "%2E")
    return quoted if 0 < len(quoted) <= _FOLDER_MAX_CHARS else f"{_TOO_LONG}{key(quoted)}"


def tenant_of(folder: str) -> str | None:
    """The tenant whose folder this is; None where the name does not tell."""
    return None if folder.startswith(_TOO_LONG) else unquote(folder, errors="surrogatepass")


def files_of(tenant: str) -> str:
    """The folder with what is said of the tenant's files."""
    return f"{TENANTS}/{tenant_folder(tenant)}/files"


def file_path(tenant: str, file_id: str) -> str:
    """Where what is said of a file is. Raises NotInLibrary."""
    return f"{files_of(tenant)}/{checked('file', file_id)}.json"


def contents_of(tenant: str) -> str:
    """The folder with the bytes of the tenant's files."""
    return f"{TENANTS}/{tenant_folder(tenant)}/contents"


def content_path(tenant: str, file_id: str) -> str:
    """Where the bytes of a file are. Raises NotInLibrary."""
    return f"{contents_of(tenant)}/{checked('file', file_id)}"


def stores_of(tenant: str) -> str:
    """The folder of the tenant's stores."""
    return f"{TENANTS}/{tenant_folder(tenant)}/vector_stores"


def store_folder(tenant: str, store_id: str) -> str:
    """The folder of a store. Raises NotInLibrary."""
    return f"{stores_of(tenant)}/{checked('vector store', store_id)}"


def batch_path(tenant: str, store_id: str, batch_id: str) -> str:
    """Where a batch is. Raises NotInLibrary."""
    return f"{store_folder(tenant, store_id)}/batches/{checked('file batch', batch_id)}.json"


def members_of(tenant: str, store_id: str) -> str:
    """The folder with the memberships of a store. Raises NotInLibrary."""
    return f"{store_folder(tenant, store_id)}/files"


def member_path(tenant: str, member: Membership) -> str:
    """Where a membership is. Raises NotInLibrary."""
    state = ".cancelled" if member.is_cancelled else ""
    name = f"{checked('file', member.file_id)}.{member.created_at}.{member.version}{state}.json"
    return f"{members_of(tenant, member.store_id)}/{name}"


def member_of(store_id: str, name: str) -> Membership | None:
    """The membership whose object is called `name`, without its attributes."""
    match = _MEMBER.fullmatch(name)
    if match is None:
        return None
    return Membership(
        store_id=store_id,
        file_id=match[1],
        created_at=int(match[2]),
        version=match[3],
        is_cancelled=match[4] is not None,
    )


def new_marker(tenant: str, store_id: str) -> str:
    """Where a new marker of this store goes."""
    return f"{PENDING}/{tenant_folder(tenant)}.{store_id}.{secrets.token_hex(8)}"


def marked(name: str) -> tuple[str, str] | None:
    """The tenant's folder and the store that a marker is about; None where it is none."""
    match = _MARKER.fullmatch(name)
    return None if match is None else (match[1], match[2])
