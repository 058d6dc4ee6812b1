"""What a reader of a tutorial would write: FastAPI, the openai client, a model in the event loop.

It embeds the question, searches by meaning, puts the two best chunks before it, and hands on each
chunk of the stream as the SDK has parsed it. Nothing that the gateway promises is in it.
"""

import argparse
import sys
from collections.abc import AsyncIterator
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from pymilvus import MilvusClient
from sentence_transformers import SentenceTransformer


def create_app(upstream: str, milvus: str | None, collection: str, model: str) -> FastAPI:
    """The application; without `milvus` it only hands on."""
    app = FastAPI()
    client = AsyncOpenAI(base_url=upstream, api_key="none")
    encoder = SentenceTransformer(model, device="cpu") if milvus else None
    database = MilvusClient(milvus) if milvus else None

    def augmented(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if encoder is None or database is None:
            return messages
        question = messages[-1]["content"]
        vector = encoder.encode([question], normalize_embeddings=True, show_progress_bar=False)
        [hits] = database.search(
            collection,
            data=vector.tolist(),
            anns_field="dense",
            limit=2,
            output_fields=["text", "source"],
        )
        context = "\n\n".join(hit["entity"]["text"] for hit in reversed(hits))
        prompt = f"Answer from this context:\n{context}\n\nQuestion: {question}"
        return [*messages[:-1], {"role": "user", "content": prompt}]

    async def chunks(said: dict[str, Any]) -> AsyncIterator[str]:
        stream = await client.chat.completions.create(**said)
        async for chunk in stream:
            yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request) -> StreamingResponse | dict[str, Any]:
        said = await request.json()
        said["messages"] = augmented(said["messages"])
        if said.get("stream"):
            return StreamingResponse(chunks(said), media_type="text/event-stream")
        completion = await client.chat.completions.create(**said)
        answer: dict[str, Any] = completion.model_dump()
        return answer

    return app


def main() -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="stack.bench.baseline", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="base URL, /v1 included")
    parser.add_argument("--milvus", help="URI; without it nothing is searched")
    parser.add_argument("--collection", default="")
    parser.add_argument("--model", default="", help="folder of the embedding model")
    given = parser.parse_args()
    torch.set_num_threads(1)
    app = create_app(given.upstream, given.milvus, given.collection, given.model)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
