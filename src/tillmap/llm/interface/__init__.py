"""What an arm needs of a language model, wherever it runs: prompts, answer formats, and asking it row by row."""
