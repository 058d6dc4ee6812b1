"""What LangChain's ChatOpenAI and OpenAIEmbeddings get from the gateway at BASE_URL."""

# mypy: disable-error-code="import-not-found"
# It runs in an environment of its own, and finds what stands beside it.

import asyncio
import os
from typing import Any

import openai
import pydantic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from steps import CITES, QUESTION, tell

BASE_URL = os.environ["BASE_URL"]
STORE = os.environ["KNOWLEDGE_BASE"]
ASKED = QUESTION[0]["content"]
SERVER: dict[str, Any] = {"base_url": BASE_URL, "api_key": "unused", "max_retries": 0}
CHAT: dict[str, Any] = {**SERVER, "model": "default", "temperature": 0, "max_tokens": 16}


class Measured(pydantic.BaseModel):
    """How high something is."""

    metres: int = pydantic.Field(json_schema_extra={"enum": [43, 44]})


def shown(message: Any) -> Any:
    """A message as JSON."""
    return message.model_dump(mode="json")


def together(chunks: Any) -> Any:
    """Chunks of a stream, added up as LangChain does."""
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def invoke() -> Any:
    """A plain answer."""
    return shown(ChatOpenAI(**CHAT, extra_body=CITES).invoke(ASKED))


def stream() -> Any:
    """The same in pieces."""
    chunks = list(ChatOpenAI(**CHAT, extra_body=CITES, stream_usage=True).stream(ASKED))
    return {"pieces": len(chunks), "whole": shown(together(chunks))}


def astream() -> Any:
    """The same from the asynchronous client."""

    async def whole() -> Any:
        chat = ChatOpenAI(**CHAT, extra_body=CITES)
        return together([chunk async for chunk in chat.astream(ASKED)])

    return asyncio.run(whole()).text


def batch() -> Any:
    """Two questions at once, one of them with a history."""
    history = [SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Hello.")]
    asked = [ASKED, [*history, HumanMessage("When does the ferry to Port Vennel leave?")]]
    return [answer.text for answer in ChatOpenAI(**CHAT).batch(asked)]


def retrieval() -> Any:
    """Tokens of a prompt without context, and with two chunks."""
    told = [
        ChatOpenAI(**CHAT, extra_body={"retrieval": said}).invoke(ASKED).usage_metadata
        for said in (False, {"max_num_results": 2})
    ]
    return [usage["input_tokens"] for usage in told]


def bind_tools() -> Any:
    """A call of a tool that the model must make."""
    chat = ChatOpenAI(**CHAT | {"max_tokens": 80})
    bound = chat.bind_tools([Measured], tool_choice="Measured", strict=True)
    return {
        "whole": bound.invoke(ASKED).tool_calls,
        "streamed": together(list(bound.stream(ASKED))).tool_calls,
    }


def structured_output() -> Any:
    """An answer as an object, by each of the ways that ask for a schema."""
    chat = ChatOpenAI(**CHAT | {"max_tokens": 80})
    return [
        chat.with_structured_output(Measured, method=method, strict=True).invoke(ASKED).metres
        for method in ("json_schema", "function_calling")
    ]


def responses() -> Any:
    """The Responses API with the search of its own."""
    search = {"type": "file_search", "vector_store_ids": [STORE], "max_num_results": 1}
    chat = ChatOpenAI(
        **CHAT | {"max_tokens": None},
        use_responses_api=True,
        extra_body=CITES,
        include=["file_search_call.results"],
    ).bind_tools([search])
    return {
        "whole": shown(chat.invoke(ASKED)),
        "streamed": shown(together(list(chat.stream(ASKED)))),
    }


def errors() -> Any:
    """What a model raises that is not there."""
    try:
        ChatOpenAI(**CHAT | {"model": "gpt-none"}).invoke(ASKED)
    except openai.NotFoundError as error:
        return [error.code, error.param]
    return None


def embeddings() -> Any:
    """Vectors of a query and of documents."""
    encoder = OpenAIEmbeddings(**SERVER, model="default", check_embedding_ctx_length=False)
    texts = ["The lighthouse of Port Vennel", "The ferry"]
    return {
        "query": encoder.embed_query(texts[0]),
        "documents": encoder.embed_documents(texts),
        "asynchronous": asyncio.run(encoder.aembed_query(texts[0])),
    }


tell(
    invoke,
    stream,
    astream,
    batch,
    retrieval,
    bind_tools,
    structured_output,
    responses,
    errors,
    embeddings,
)
