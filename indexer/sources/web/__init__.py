"""Reads web pages, politely and without being led to places that are not public."""
