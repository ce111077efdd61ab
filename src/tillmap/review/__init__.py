"""The page on which a person accepts or corrects answers: its rows, its log of decisions, its search, its server."""
