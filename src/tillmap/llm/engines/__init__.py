"""Engines that run a language model on this machine."""
