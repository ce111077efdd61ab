"""How right the arms are: metrics with intervals, comparisons, slices, pictures."""
