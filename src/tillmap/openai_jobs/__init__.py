"""Tuning and batches at OpenAI and providers like it: adopted where they exist, never paid for twice."""
