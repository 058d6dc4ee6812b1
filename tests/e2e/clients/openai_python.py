"""What openai-python gets from the gateway at BASE_URL: 3.x in .venv, and the last 2.x."""

# mypy: disable-error-code="import-not-found"
# It finds what stands beside it.

import asyncio
import os
from typing import Any

import openai
import pydantic
from steps import CITES, QUESTION, SCHEMA, tell

BASE_URL = os.environ["BASE_URL"]
STORE = os.environ["KNOWLEDGE_BASE"]
ASKED: dict[str, Any] = {"model": "default", "messages": QUESTION, "temperature": 0}
SEARCH: dict[str, Any] = {"type": "file_search", "vector_store_ids": [STORE], "max_num_results": 1}
RESPONSE: dict[str, Any] = {"model": "default", "input": QUESTION[0]["content"], "tools": [SEARCH]}

# The types of two major versions do not agree.
client: Any = openai.OpenAI(base_url=BASE_URL, api_key="unused", max_retries=0)


class Height(pydantic.BaseModel):
    """What the model is asked to answer."""

    metres: int = pydantic.Field(json_schema_extra={"enum": [43, 44]})


def shown(message: Any) -> Any:
    """A message with what openai-python does not declare."""
    return message.model_dump(mode="json", exclude_unset=True)


def refused(call: Any, **arguments: Any) -> Any:
    """The error that a call raises, as its user sees it."""
    try:
        call(**arguments)
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "message": error.message,
            "request_id": error.request_id,
        }
    return None


def version() -> Any:
    """Which openai-python this is."""
    return openai.__version__


def chat() -> Any:
    """A plain answer."""
    completion = client.chat.completions.create(**ASKED, extra_body=CITES)
    return {
        "message": shown(completion.choices[0].message),
        "finish_reason": completion.choices[0].finish_reason,
        "usage": completion.usage.total_tokens,
        "request_id": completion._request_id,
    }


def chat_stream() -> Any:
    """The deltas of a stream, and its usage."""
    with client.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}, extra_body=CITES
    ) as stream:
        chunks = list(stream)
    return {
        "deltas": [shown(chunk.choices[0].delta) for chunk in chunks if chunk.choices],
        "usage": [chunk.usage.total_tokens for chunk in chunks if chunk.usage],
    }


def chat_stream_helper() -> Any:
    """What `.stream()` puts together."""
    with client.chat.completions.stream(**ASKED, extra_body=CITES) as stream:
        kinds = [event.type for event in stream]
        completion = stream.get_final_completion()
    return {"kinds": kinds, "message": shown(completion.choices[0].message)}


def chat_parsed() -> Any:
    """An answer parsed into a model of pydantic's."""
    completion = client.chat.completions.parse(**ASKED, response_format=Height, max_tokens=30)
    return completion.choices[0].message.parsed.metres


def chat_asynchronous() -> Any:
    """All three at once, through the asynchronous client."""
    asked = {**ASKED, "extra_body": CITES}

    async def both() -> Any:
        async with openai.AsyncOpenAI(base_url=BASE_URL, api_key="unused", max_retries=0) as many:

            async def streamed() -> Any:
                stream = await many.chat.completions.create(**asked, stream=True)
                return [chunk async for chunk in stream]

            async def helped() -> Any:
                async with many.chat.completions.stream(**asked) as stream:
                    return await stream.get_final_completion()

            plain, chunks, final = await asyncio.gather(
                many.chat.completions.create(**asked), streamed(), helped()
            )
        return {
            "plain": shown(plain.choices[0].message),
            "first": shown(chunks[0].choices[0].delta),
            "helped": shown(final.choices[0].message),
        }

    return asyncio.run(both())


def chat_raw() -> Any:
    """Headers, and the same answer parsed."""
    raw = client.chat.completions.with_raw_response.create(
        **ASKED, max_tokens=4, extra_headers={"x-request-id": "from-the-client"}
    )
    return {
        "x-request-id": raw.headers["x-request-id"],
        "server-timing": raw.headers.get("server-timing"),
        "content-type": raw.headers["content-type"],
        "role": raw.parse().choices[0].message.role,
    }


def chat_raw_stream() -> Any:
    """The lines of a stream as they are."""
    with client.chat.completions.with_streaming_response.create(
        **ASKED, max_tokens=4, stream=True
    ) as raw:
        lines = [line for line in raw.iter_lines() if line]
    return {"content-type": raw.headers["content-type"], "last": lines[-1]}


def tools() -> Any:
    """A call of a tool that the model must make, whole and as the helper puts it together."""
    function = {"name": "measured", "strict": True, "parameters": SCHEMA}
    choice = {"type": "function", "function": {"name": "measured"}}
    asked = {
        **ASKED,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": choice,
        "max_tokens": 80,
    }
    plain = client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion()
    calls = [completion.choices[0].message.tool_calls[0] for completion in (plain, streamed)]
    return [[call.function.name, call.function.arguments] for call in calls]


def models() -> Any:
    """What is listed, and one of it."""
    listed = client.models.list().data
    return {
        "listed": [model.id for model in listed],
        "retrieved": client.models.retrieve(listed[0].id).id,
        "missing": refused(client.models.retrieve, model="no/such-model"),
    }


def errors() -> Any:
    """What wrong requests raise."""
    create = client.chat.completions.create
    wrong_filter = {"type": "eq", "key": "year", "value": 2024}
    return {
        "model": refused(create, model="gpt-none", messages=QUESTION),
        "messages": refused(create, model="default", messages=[]),
        "temperature": refused(create, **ASKED | {"temperature": 9}),
        "retrieval": refused(create, **ASKED, extra_body={"retrieval": {"top": 3}}),
        "filters": refused(create, **ASKED, extra_body={"retrieval": {"filters": wrong_filter}}),
        "length": refused(
            create, model="default", messages=[{"role": "user", "content": "word " * 6000}]
        ),
        "stream": refused(create, model="gpt-none", messages=QUESTION, stream=True),
        "store": refused(client.vector_stores.search, vector_store_id="vs_none", query="x"),
        "path": refused(client.moderations.create, input="x"),
    }


def completions() -> Any:
    """The older endpoint, whole and streamed."""
    arguments = {"model": "default", "prompt": "The lighthouse", "max_tokens": 4, "temperature": 0}
    plain = client.completions.create(**arguments)
    streamed = client.completions.create(**arguments, stream=True)
    return {
        "text": plain.choices[0].text,
        "streamed": "".join(chunk.choices[0].text for chunk in streamed if chunk.choices),
    }


def embeddings() -> Any:
    """The same text both ways: what openai-python asks for by itself is base64."""
    texts = ["The lighthouse of Port Vennel", "The ferry"]
    packed = client.embeddings.create(model="default", input=texts)
    plain = client.embeddings.create(model="default", input=texts, encoding_format="float")
    return {
        "packed": [embedding.embedding for embedding in packed.data],
        "plain": [embedding.embedding for embedding in plain.data],
        "indices": [embedding.index for embedding in plain.data],
        "usage": plain.usage.total_tokens,
    }


def responses() -> Any:
    """A response that searched, with what it found."""
    response = client.responses.create(
        **RESPONSE, include=["file_search_call.results"], extra_body=CITES
    )
    return {"output": [shown(item) for item in response.output], "text": response.output_text}


def responses_stream() -> Any:
    """The events of one, and what the helper puts together."""
    with client.responses.stream(**RESPONSE, extra_body=CITES) as stream:
        events = list(stream)
        response = stream.get_final_response()
    return {
        "kinds": [event.type for event in events],
        "numbers": [event.sequence_number for event in events],
        "output": [shown(item) for item in response.output],
        "text": response.output_text,
    }


def responses_asynchronous() -> Any:
    """A stream of the asynchronous client."""

    async def texts() -> Any:
        async with openai.AsyncOpenAI(base_url=BASE_URL, api_key="unused", max_retries=0) as one:
            stream = await one.responses.create(**RESPONSE, stream=True, max_output_tokens=16)
            return [event async for event in stream]

    return [event.type for event in asyncio.run(texts())]


def vector_stores() -> Any:
    """The knowledge base as a vector store: listed, retrieved, searched."""
    page = client.vector_stores.search(STORE, query=QUESTION[0]["content"], max_num_results=1)
    return {
        "listed": [store.id for store in client.vector_stores.list()],
        "retrieved": shown(client.vector_stores.retrieve(STORE)),
        "found": [shown(result) for result in page],
    }


def files() -> Any:
    """A file from its upload to its end, through the helpers that wait."""
    text = b"# The bakery\n\nThe bakery of Port Vennel opens at 05:40.\n"
    uploaded = client.files.create(file=("bakery.md", text), purpose="assistants")
    store = client.vector_stores.create(name="Uploads of openai-python")
    held = client.vector_stores.files.create_and_poll(
        uploaded.id, vector_store_id=store.id, attributes={"kind": "shop"}, poll_interval_ms=100
    )
    more = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id,
        file=("smithy.md", b"# The smithy\n\nThe smithy opens at 06:10.\n"),
        poll_interval_ms=100,
    )
    batch = client.vector_stores.file_batches.upload_and_poll(
        store.id,
        files=[("mill.txt", b"The mill opens at 04:20."), ("inn.txt", b"The inn opens at 11:30.")],
        poll_interval_ms=100,
    )
    page = client.vector_stores.search(
        store.id,
        query="When does the bakery open?",
        filters={"type": "eq", "key": "kind", "value": "shop"},
    )
    answer = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "When does the bakery open?"}],
        max_tokens=4,
        extra_body={"retrieval": {"vector_store_ids": [store.id], "max_num_results": 1}},
    )
    told = {
        "uploaded": shown(uploaded),
        "content": client.files.content(uploaded.id).text,
        "held": shown(held),
        "more": shown(more),
        "batch": shown(batch),
        "store": shown(client.vector_stores.retrieve(store.id)),
        "members": len(list(client.vector_stores.files.list(store.id, limit=2))),
        "found": [shown(result) for result in page],
        "context": shown(answer.choices[0].message)["context"]["citations"],
    }
    client.vector_stores.files.delete(uploaded.id, vector_store_id=store.id)
    told["deleted"] = [
        client.files.delete(uploaded.id).deleted,
        client.vector_stores.delete(store.id).deleted,
    ]
    told["gone"] = refused(client.vector_stores.retrieve, vector_store_id=store.id)
    return told


tell(
    version,
    chat,
    chat_stream,
    chat_stream_helper,
    chat_parsed,
    chat_asynchronous,
    chat_raw,
    chat_raw_stream,
    tools,
    models,
    errors,
    completions,
    embeddings,
    responses,
    responses_stream,
    responses_asynchronous,
    vector_stores,
    files,
)
