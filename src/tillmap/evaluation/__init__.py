"""How often the arms are right: metrics with intervals, comparisons, slices and charts."""
