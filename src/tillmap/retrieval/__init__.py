"""Nearest training rows of a description: by meaning (dense), by spelling (lexical), or both fused (hybrid)."""

RETRIEVERS = ("lexical", "dense", "hybrid")
PATHS = "paths"  # not a retriever of rows: the paths that a free arm ranks first, see `paths.candidate_paths`
TRAINING_PATHS = "training_paths"  # the same of training rows, by models that were not trained on them
