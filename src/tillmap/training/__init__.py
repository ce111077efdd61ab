"""Tunes a language model on an arm's own questions and answers: LoRA with Unsloth and TRL."""
