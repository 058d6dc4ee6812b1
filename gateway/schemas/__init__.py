"""What the API's document says: shapes of requests and answers, and a description of each route.

They describe. What the gateway reads of a request is checked where it is read, and everything
else goes to vLLM as it came.
"""
