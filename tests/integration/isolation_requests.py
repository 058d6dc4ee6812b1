"""What may be asked of each route of the gateway, about what a tenant has on it."""

from collections.abc import Callable
from typing import Any

import msgspec

MODEL = "org/small"
RESTRICTED = "restricted_kb"
"""A knowledge base that not every key may use."""
QUESTION = "Where is the treasure of the quokka buried?"
STORES = "/v1/vector_stores"
STORE = STORES + "/{store_id:str}"
FILE = STORE + "/files/{file_id:str}"
BATCH = STORE + "/file_batches/{batch_id:str}"
RESPONSE = "/v1/responses/{response_id:str}"

Said = dict[str, Any]


class Ids(msgspec.Struct, kw_only=True):
    """What the owner has, by what it is called in paths."""

    store: str
    file: str
    batch: str
    response: str
    document: str
    knowledge_base: str


class Asked(msgspec.Struct, kw_only=True):
    """A request that may be made of a route."""

    path: str = ""
    """With what stands for its parameters; the route's own, where it has none."""
    said: Said = {}
    """For the client."""
    is_write: bool = False


def grounded(*stores: str, **more: Any) -> Said:
    return {
        "model": "default",
        "retrieval": {"vector_store_ids": list(stores), "max_num_results": 9, "explain": True}
        if stores
        else {"max_num_results": 9, "explain": True, "neighbours": 1},
        **more,
    }


def answers(ids: Ids, path: str, **more: Any) -> list[Asked]:
    """Requests that a model answers, from each place where the owner has something."""
    found = [grounded(**more)]
    found += [grounded(name, **more) for name in (ids.store, ids.knowledge_base, RESTRICTED)]
    return [Asked(path=path, said={"json": each}) for each in found]


CHAT: Said = {"messages": [{"role": "user", "content": QUESTION}]}


def chats(ids: Ids, path: str) -> list[Asked]:
    """Chat completions in each manner of naming a store."""
    source = {"type": "azure_search", "parameters": {"index_name": ids.store, "strictness": 1}}
    hidden = {"type": "azure_search", "parameters": {"index_name": RESTRICTED}}
    more = [CHAT | {"model": "default", "data_sources": [each]} for each in (source, hidden)]
    streams = [grounded(stream=True, **CHAT), grounded(ids.store, stream=True, **CHAT)]
    return [
        *answers(ids, path, **CHAT),
        *(Asked(path=path, said={"json": each}) for each in [*more, *streams]),
    ]


def responses(ids: Ids, path: str) -> list[Asked]:
    tool: Said = {"type": "file_search", "vector_store_ids": [ids.store, ids.knowledge_base]}
    said: Said = {"model": "default", "input": QUESTION}
    more = [
        said | {"tools": [tool], "include": ["file_search_call.results"]},
        said | {"previous_response_id": ids.response},
        said | {"request_id": ids.response, "input": "Mine now"},
    ]
    return [
        *answers(ids, path, input=QUESTION),
        *(Asked(path=path, said={"json": each}) for each in more),
    ]


def stored(ids: Ids, path: str) -> list[Asked]:
    return [Asked(path=placed(path, in_path(ids)))]


def in_path(ids: Ids) -> Said:
    return {
        "response_id": ids.response,
        "store_id": ids.store,
        "file_id": ids.file,
        "batch_id": ids.batch,
    }


def placed(path: str, names: Said) -> str:
    """`path` with names where it has parameters."""
    for parameter, name in names.items():
        path = path.replace(f"{{{parameter}:str}}", name)
    return path


def of_stores(
    *bodies: Callable[[Ids], Said], is_write: bool = False
) -> Callable[[Ids, str], list[Asked]]:
    """Requests with that path for the store of uploads, and for both knowledge bases."""

    def asked(ids: Ids, path: str) -> list[Asked]:
        names = in_path(ids)
        bases = (ids.knowledge_base, RESTRICTED)
        places = [
            names,
            *(names | {"store_id": base, "file_id": ids.document} for base in bases),
        ]
        return [
            Asked(path=placed(path, place), said={"json": body(ids)}, is_write=is_write)
            if bodies
            else Asked(path=placed(path, place), is_write=is_write)
            for place in places
            for body in bodies or (lambda _: {},)
        ]

    return asked


def plain(*said: Said) -> Callable[[Ids, str], list[Asked]]:
    return lambda _, path: [Asked(path=path, said=each) for each in said or ({},)]


def uploads(_: Ids, path: str) -> list[Asked]:
    said: Said = {
        "files": {"file": ("mine.md", b"Mine.")},
        "data": {"purpose": "assistants"},
    }
    return [Asked(path=path, said=said, is_write=True)]


def deployments(ids: Ids, _: str) -> list[Asked]:
    base = "/openai/deployments/default"
    embedded = Asked(path=f"{base}/embeddings", said={"json": {"input": QUESTION}})
    return [
        *chats(ids, f"{base}/chat/completions"),
        *answers(ids, f"{base}/completions", prompt=QUESTION),
        embedded,
    ]


def pages(ids: Ids, path: str) -> list[Asked]:
    cursors = [ids.store, ids.file, ids.knowledge_base, RESTRICTED]
    named = [f"{path}?{side}={each}" for each in cursors for side in ("after", "before")]
    return [Asked(path=each) for each in [path, f"{path}?limit=100", *named]]


REQUESTS: dict[tuple[str, str], Callable[[Ids, str], list[Asked]]] = {
    ("POST", "/v1/chat/completions"): chats,
    ("POST", "/v1/completions"): lambda ids, path: answers(ids, path, prompt=QUESTION),
    ("POST", "/v1/messages"): lambda ids, path: answers(ids, path, max_tokens=99, **CHAT),
    ("POST", "/v1/messages/count_tokens"): lambda ids, path: answers(ids, path, **CHAT),
    ("POST", "/v1/responses"): responses,
    ("GET", RESPONSE): lambda ids, path: [
        *stored(ids, path),
        *stored(ids, path + "?stream=true"),
        *stored(ids, path + "?stream=true&starting_after=1"),
    ],
    ("POST", RESPONSE + "/cancel"): stored,
    ("GET", "/v1/models"): plain(),
    ("GET", "/v1/models/{name:path}"): lambda *_: [Asked(path=f"/v1/models/{MODEL}")],
    ("POST", "/v1/embeddings"): plain({"json": {"model": "default", "input": QUESTION}}),
    ("POST", "/v1/rerank"): plain({"json": {"model": "x", "query": "x", "documents": ["x"]}}),
    ("POST", "/v2/rerank"): plain({"json": {"model": "x", "query": "x", "documents": ["x"]}}),
    ("GET", STORES): pages,
    ("POST", STORES): lambda ids, path: [
        Asked(path=path, said={"json": {"name": "mine", "file_ids": files}}, is_write=True)
        for files in ([], [ids.file])
    ],
    ("GET", STORE): of_stores(),
    ("POST", STORE): of_stores(lambda _: {"name": "taken"}, is_write=True),
    ("POST", STORE + "/search"): of_stores(
        lambda _: {"query": QUESTION, "max_num_results": 50},
        lambda _: {
            "query": QUESTION,
            "filters": {"type": "ne", "key": "place", "value": 'x" or tenant != "'},
        },
    ),
    ("GET", STORE + "/files"): of_stores(),
    ("POST", STORE + "/files"): of_stores(lambda ids: {"file_id": ids.file}, is_write=True),
    ("GET", FILE): of_stores(),
    ("POST", FILE): of_stores(lambda _: {"attributes": {"taken": True}}, is_write=True),
    ("GET", FILE + "/content"): of_stores(),
    ("POST", STORE + "/file_batches"): of_stores(
        lambda ids: {"file_ids": [ids.file]}, is_write=True
    ),
    ("GET", BATCH): of_stores(),
    ("POST", BATCH + "/cancel"): of_stores(is_write=True),
    ("GET", BATCH + "/files"): of_stores(),
    ("GET", "/v1/files"): pages,
    ("POST", "/v1/files"): uploads,
    ("GET", "/v1/files/{file_id:str}"): of_stores(),
    ("GET", "/v1/files/{file_id:str}/content"): of_stores(),
    ("POST", "/openai/deployments/{deployment:path}"): deployments,
    ("GET", "/health/live"): plain(),
    ("GET", "/health/ready"): plain(),
    ("GET", "/metrics"): plain(),
    ("GET", "/openapi.json"): plain(),
    # What deletes comes last.
    ("DELETE", FILE): of_stores(is_write=True),
    ("DELETE", STORE): of_stores(is_write=True),
    ("DELETE", "/v1/files/{file_id:str}"): of_stores(is_write=True),
}
"""What may be asked of each route; those of Azure's names below /openai are asked the same."""


def requests_of(ids: Ids, method: str, path: str) -> list[Asked]:
    """What is asked of a route. Raises KeyError for one that the table does not have."""
    prefix = "/openai" if path.startswith("/openai/v") else ""
    found = REQUESTS[method, path.removeprefix(prefix)](ids, path.removeprefix(prefix))
    return [msgspec.structs.replace(each, path=prefix + each.path) for each in found]
