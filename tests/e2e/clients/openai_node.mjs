// What openai-node gets from the gateway at BASE_URL; told as steps.py tells it.

import OpenAI, { APIError, toFile } from "openai";

const STORE = process.env.KNOWLEDGE_BASE;
const QUESTION = "How high is the lighthouse of Port Vennel?";
const MESSAGES = [{ role: "user", content: QUESTION }];
const ASKED = { model: "default", messages: MESSAGES, temperature: 0 };
// A model of this size cites nothing by itself.
const CITES = { structured_outputs: { regex: "It is 43 metres high \\[1\\]\\." } };
const SEARCH = { type: "file_search", vector_store_ids: [STORE], max_num_results: 1 };
const RESPONSE = { model: "default", input: QUESTION, tools: [SEARCH], ...CITES };
const SCHEMA = {
  type: "object",
  properties: { metres: { type: "integer", enum: [43, 44] } },
  required: ["metres"],
  additionalProperties: false,
};

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "unused", maxRetries: 0 });

async function refused(call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const { status, code, param, type } = error;
    return { class: error.constructor.name, status, code, param, type, id: error.requestID };
  }
  return null;
}

async function collected(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const steps = {
  async chat() {
    const completion = await client.chat.completions.create({ ...ASKED, ...CITES });
    return { message: completion.choices[0].message, request_id: completion._request_id };
  },

  async chat_stream() {
    const options = { stream: true, stream_options: { include_usage: true } };
    const stream = await client.chat.completions.create({ ...ASKED, ...CITES, ...options });
    const chunks = await collected(stream);
    return {
      deltas: chunks.filter((each) => each.choices.length).map((each) => each.choices[0].delta),
      usage: chunks.filter((each) => each.usage).map((each) => each.usage.total_tokens),
    };
  },

  async chat_stream_helper() {
    const stream = client.chat.completions.stream({ ...ASKED, ...CITES });
    let text = "";
    stream.on("content", (delta) => (text += delta));
    const completion = await stream.finalChatCompletion();
    return { text, message: completion.choices[0].message };
  },

  async chat_parsed() {
    const json_schema = { name: "height", schema: SCHEMA, strict: true };
    const response_format = { type: "json_schema", json_schema };
    const asked = { ...ASKED, response_format, max_tokens: 30 };
    const completion = await client.chat.completions.create(asked);
    return JSON.parse(completion.choices[0].message.content).metres;
  },

  async chat_raw() {
    const headers = { "x-request-id": "from-the-client" };
    const { data, response } = await client.chat.completions
      .create({ ...ASKED, max_tokens: 4 }, { headers })
      .withResponse();
    return {
      "x-request-id": response.headers.get("x-request-id"),
      "server-timing": response.headers.get("server-timing"),
      role: data.choices[0].message.role,
    };
  },

  async tools() {
    const asked = {
      ...ASKED,
      tools: [{ type: "function", function: { name: "measured", strict: true, parameters: SCHEMA } }],
      tool_choice: { type: "function", function: { name: "measured" } },
      max_tokens: 80,
    };
    const plain = await client.chat.completions.create(asked);
    const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
    return [plain, streamed]
      .map((completion) => completion.choices[0].message.tool_calls[0].function)
      .map((called) => [called.name, called.arguments]);
  },

  async models() {
    const listed = await collected(client.models.list());
    return {
      listed: listed.map((model) => model.id),
      retrieved: (await client.models.retrieve(listed[0].id)).id,
    };
  },

  async errors() {
    const messages = [{ role: "user", content: "word ".repeat(6000) }];
    const create = (changes) => refused(() => client.chat.completions.create({ ...ASKED, ...changes }));
    return {
      model: await create({ model: "gpt-none" }),
      messages: await create({ messages: [] }),
      retrieval: await create({ retrieval: { top: 3 } }),
      length: await create({ messages }),
      stream: await create({ model: "gpt-none", stream: true }),
      store: await refused(() => client.vectorStores.search("vs_none", { query: "x" })),
      path: await refused(() => client.moderations.create({ input: "x" })),
    };
  },

  async completions() {
    const asked = { model: "default", prompt: "The lighthouse", max_tokens: 4, temperature: 0 };
    const streamed = await collected(await client.completions.create({ ...asked, stream: true }));
    return {
      text: (await client.completions.create(asked)).choices[0].text,
      streamed: streamed.map((chunk) => chunk.choices[0]?.text ?? "").join(""),
    };
  },

  async embeddings() {
    const input = ["The lighthouse of Port Vennel", "The ferry"];
    const packed = await client.embeddings.create({ model: "default", input });
    const plain = await client.embeddings.create({ model: "default", input, encoding_format: "float" });
    return {
      packed: packed.data.map((each) => each.embedding),
      plain: plain.data.map((each) => each.embedding),
      indices: plain.data.map((each) => each.index),
      usage: plain.usage.total_tokens,
    };
  },

  async responses() {
    const include = ["file_search_call.results"];
    const response = await client.responses.create({ ...RESPONSE, include });
    return { output: response.output, text: response.output_text };
  },

  async responses_stream() {
    const stream = client.responses.stream(RESPONSE);
    const events = await collected(stream);
    const response = await stream.finalResponse();
    return {
      kinds: events.map((event) => event.type),
      numbers: events.map((event) => event.sequence_number),
      output: response.output,
      text: response.output_text,
    };
  },

  async vector_stores() {
    const asked = { query: QUESTION, max_num_results: 1 };
    return {
      listed: (await collected(client.vectorStores.list())).map((store) => store.id),
      retrieved: await client.vectorStores.retrieve(STORE),
      found: await collected(client.vectorStores.search(STORE, asked)),
    };
  },

  async files() {
    const text = "# The bakery\n\nThe bakery of Port Vennel opens at 05:40.\n";
    const file = await toFile(Buffer.from(text), "bakery.md");
    const uploaded = await client.files.create({ file, purpose: "assistants" });
    const store = await client.vectorStores.create({ name: "Uploads of openai-node" });
    const polling = { pollIntervalMs: 100 };
    const held = await client.vectorStores.files.createAndPoll(
      store.id,
      { file_id: uploaded.id, attributes: { kind: "shop" } },
      polling,
    );
    const mill = await toFile(Buffer.from("The mill opens at 04:20."), "mill.txt");
    const batch = await client.vectorStores.fileBatches.uploadAndPoll(
      store.id,
      { files: [mill], fileIds: [] },
      polling,
    );
    const found = await collected(
      client.vectorStores.search(store.id, {
        query: "When does the bakery open?",
        filters: { type: "eq", key: "kind", value: "shop" },
      }),
    );
    const content = await (await client.files.content(uploaded.id)).text();
    const told = { uploaded, content, held, batch, found };
    told.store = await client.vectorStores.retrieve(store.id);
    told.members = (await collected(client.vectorStores.files.list(store.id, { limit: 1 }))).length;
    told.deleted = [
      (await client.files.delete(uploaded.id)).deleted,
      (await client.vectorStores.delete(store.id)).deleted,
    ];
    told.gone = await refused(() => client.vectorStores.retrieve(store.id));
    return told;
  },
};

const told = {};
for (const [name, step] of Object.entries(steps)) {
  try {
    told[name] = { value: await step() };
  } catch (error) {
    told[name] = { failed: error.stack ?? String(error) };
  }
}
console.log(JSON.stringify(told));
