"""Tuning of a language model on this machine: LoRA with Unsloth and TRL."""
