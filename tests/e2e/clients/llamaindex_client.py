"""What LlamaIndex's OpenAILike and OpenAILikeEmbedding get from the gateway at BASE_URL."""

# mypy: disable-error-code="import-not-found"
# It runs in an environment of its own, and finds what stands beside it.

import asyncio
import os
from typing import Any

import openai
import pydantic
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from steps import CITES, QUESTION, tell

SERVER: dict[str, Any] = {"api_base": os.environ["BASE_URL"], "api_key": "unused", "max_retries": 0}
CHAT: dict[str, Any] = {
    **SERVER,
    "model": "default",
    "temperature": 0,
    "max_tokens": 16,
    "context_window": 4096,
    "is_chat_model": True,
    "is_function_calling_model": True,
}
MESSAGES = [ChatMessage(role="user", content=QUESTION[0]["content"])]


class Height(pydantic.BaseModel):
    """How high something is."""

    metres: int = pydantic.Field(json_schema_extra={"enum": [43, 44]})


def measured(metres: int) -> int:
    """Take down how high something is."""
    return metres


def model(**changes: Any) -> Any:
    """OpenAILike, which hands extra fields on."""
    return OpenAILike(**CHAT | changes, additional_kwargs={"extra_body": CITES})


def chat() -> Any:
    """A plain answer, and what openai-python made of it."""
    answer = model().chat(MESSAGES)
    return {"text": answer.message.content, "raw": answer.raw.model_dump(mode="json")}


def stream_chat() -> Any:
    """The same in pieces."""
    answers = list(model().stream_chat(MESSAGES))
    return {"deltas": [each.delta for each in answers], "text": answers[-1].message.content}


def asynchronous() -> Any:
    """Both at once, from the asynchronous client."""

    async def both() -> Any:
        one = model()
        stream = await one.astream_chat(MESSAGES)
        return [(await one.achat(MESSAGES)).message.content, [each.delta async for each in stream]]

    plain, deltas = asyncio.run(both())
    return {"plain": plain, "streamed": "".join(deltas)}


def complete() -> Any:
    """A prompt instead of messages, by the chat endpoint and by the older one."""
    asked = QUESTION[0]["content"]
    older = OpenAILike(**CHAT | {"is_chat_model": False, "is_function_calling_model": False})
    return {
        "chat": model().complete(asked).text,
        "chat_streamed": list(model().stream_complete(asked))[-1].text,
        "older": older.complete("The lighthouse").text,
        "older_streamed": list(older.stream_complete("The lighthouse"))[-1].text,
    }


def tools() -> Any:
    """A call of a tool that the model must make."""
    strict = OpenAILike(**CHAT | {"max_tokens": 80, "strict": True})
    tool = FunctionTool.from_defaults(measured)
    answer = strict.chat_with_tools([tool], chat_history=MESSAGES, tool_required=True)
    return [
        {"name": call.tool_name, "arguments": call.tool_kwargs}
        for call in strict.get_tool_calls_from_response(answer)
    ]


def structured() -> Any:
    """An answer as an object."""
    asked = OpenAILike(**CHAT | {"max_tokens": 80, "should_use_structured_outputs": True})
    return asked.as_structured_llm(Height).chat(MESSAGES).raw.metres


def errors() -> Any:
    """What a model raises that is not there."""
    try:
        model(model="gpt-none").chat(MESSAGES)
    except openai.NotFoundError as error:
        return [error.code, error.param]
    return None


def embeddings() -> Any:
    """Vectors of a query and of documents."""
    encoder = OpenAILikeEmbedding(**SERVER, model_name="default")
    texts = ["The lighthouse of Port Vennel", "The ferry"]
    return {
        "query": encoder.get_query_embedding(texts[0]),
        "documents": encoder.get_text_embedding_batch(texts),
    }


tell(chat, stream_chat, asynchronous, complete, tools, structured, errors, embeddings)
