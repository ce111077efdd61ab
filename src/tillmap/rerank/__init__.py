"""Ranks the candidate paths of a line by everything at hand: scores, neighbours, spelling, counts and prices."""
