"""Anthropic's messages, with context from the index where that is asked for."""
