"""A linear model of label paths: features of an item, weights for every label, and decoding over known paths."""

BIAS = "(bias)"  # in explanations: what labels score whatever the line says
