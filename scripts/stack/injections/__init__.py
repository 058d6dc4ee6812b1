"""How often documents that were made to lead a model astray succeed, and what they never can."""
