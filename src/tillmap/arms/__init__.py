"""The ways to answer: each arm turns rows into label paths with scores."""
