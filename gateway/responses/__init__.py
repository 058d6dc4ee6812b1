"""OpenAI's Responses API: requests that are read, answers that are written.

vLLM has this API itself, so it gets the requests, and instructions, function tools, formats and
earlier responses stay its own. The gateway runs the `file_search` tool before vLLM is asked. So a
search that fails makes the whole call fail, by its HTTP status, streamed or not: there is no
response yet that a failed `file_search_call` could stand in, and every SDK raises for a status.
"""
