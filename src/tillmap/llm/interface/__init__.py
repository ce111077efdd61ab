"""What an arm needs to ask a language model, wherever it runs: prompts, answer formats, and inference row by row."""
