"""OpenAI's vector stores and files. Knows the library and the index, not HTTP.

The gateway writes what clients upload and which files are in which store; the indexer makes an
index of that, and tells what became of each file. What it fills from sources of its own can be
read in the same shapes.
"""
