"""From a question to the hits that the model is given, and how they were chosen."""
