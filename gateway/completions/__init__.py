"""OpenAI's completions: a prompt goes on, with context from the index where that is asked for."""
