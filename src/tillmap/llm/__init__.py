"""Language models: prompts, answer formats, constrained decoding, checkpoints and engines."""
