"""Neighbours of a description among training rows: by meaning (dense), by spelling (lexical), filtered and fused."""

RETRIEVERS = ("lexical", "dense", "hybrid")
