"""Makes an index of each vector store of the library of uploads, and keeps it up to date."""
