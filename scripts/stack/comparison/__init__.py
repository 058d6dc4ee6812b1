"""Two indexers in the same situations: documents, stores, runs that are killed, and verdicts.

compare_langchain puts the parts together; langchain_side is the program on LangChain's side.
"""
