"""Makes a Milvus collection equal to a set of documents, and exits."""
