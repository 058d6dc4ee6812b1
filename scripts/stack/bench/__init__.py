"""What the gateway adds: a benchmark of ratios within one run. See `scripts/bench --help`.

The server that is measured has a core to itself; the stand-in for vLLM, Milvus and the load are on
the other one.
"""
