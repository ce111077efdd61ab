"""Asking a language model only about the rows that a free arm is not sure of."""
