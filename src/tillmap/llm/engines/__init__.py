"""The engines that run a language model on this machine."""
