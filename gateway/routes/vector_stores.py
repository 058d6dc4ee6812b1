"""OpenAI's vector stores."""

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.answers import server_timing
from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, json_body, json_response
from gateway.schemas.vector_stores import (
    CREATE_VECTOR_STORE,
    DELETE_VECTOR_STORE,
    LIST_VECTOR_STORES,
    RETRIEVE_VECTOR_STORE,
    SEARCH_VECTOR_STORE,
    UPDATE_VECTOR_STORE,
)
from gateway.stages import Stages
from gateway.stores.pages import PageQuery
from gateway.stores.search import StoreSearch
from gateway.stores.vector_stores import VectorStores

PATH = "/v1/vector_stores"


@get(PATH, **documented(LIST_VECTOR_STORES))
async def list_vector_stores(
    request: AnyRequest, vector_stores: NamedDependency[VectorStores]
) -> Response[bytes]:
    """Those that clients have made, and the knowledge bases that the indexer fills."""
    return json_response(await vector_stores.listed(PageQuery.read(request.query_params)))


@post(PATH, status_code=200, **documented(CREATE_VECTOR_STORE))
async def create_vector_store(
    request: AnyRequest, vector_stores: NamedDependency[VectorStores]
) -> Response[bytes]:
    """A new one, with files in it or without."""
    return json_response(await vector_stores.create(await json_body(request)))


@get(f"{PATH}/{{store_id:str}}", **documented(RETRIEVE_VECTOR_STORE))
async def retrieve_vector_store(
    store_id: FromPath[str], vector_stores: NamedDependency[VectorStores]
) -> Response[bytes]:
    """One of them, with the state of its files."""
    return json_response(await vector_stores.retrieve(store_id))


@post(f"{PATH}/{{store_id:str}}", status_code=200, **documented(UPDATE_VECTOR_STORE))
async def update_vector_store(
    store_id: FromPath[str], request: AnyRequest, vector_stores: NamedDependency[VectorStores]
) -> Response[bytes]:
    """Another name, other metadata, another time to live."""
    return json_response(await vector_stores.update(store_id, await json_body(request)))


@delete(f"{PATH}/{{store_id:str}}", status_code=200, **documented(DELETE_VECTOR_STORE))
async def delete_vector_store(
    store_id: FromPath[str], vector_stores: NamedDependency[VectorStores]
) -> Response[bytes]:
    """Delete one; its files stay."""
    return json_response(await vector_stores.delete(store_id))


@post(f"{PATH}/{{store_id:str}}/search", status_code=200, **documented(SEARCH_VECTOR_STORE))
async def search_vector_store(
    store_id: FromPath[str], request: AnyRequest, store_search: NamedDependency[StoreSearch]
) -> Response[bytes]:
    """The chunks of one that belong to a question, best first."""
    stages = Stages()
    body = await json_body(request)
    found = await store_search.answer(store_id, body, stages)
    return json_response(found, headers={"server-timing": server_timing(stages)})


ROUTES = [
    list_vector_stores,
    create_vector_store,
    retrieve_vector_store,
    update_vector_store,
    delete_vector_store,
    search_vector_store,
]
