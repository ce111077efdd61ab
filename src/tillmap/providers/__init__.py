"""Paid providers, OpenAI and those like it: files, tuning jobs, batches, servers, and what they cost."""
