"""Nearest training rows of a description: by meaning (dense), by spelling (lexical), or both fused (hybrid)."""

RETRIEVERS = ("lexical", "dense", "hybrid")
