"""OpenAI's chat completions: requests that are read, answers that are written."""
