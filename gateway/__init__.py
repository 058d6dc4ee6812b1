"""Answers chat requests of any OpenAI client from the documents in the index."""
