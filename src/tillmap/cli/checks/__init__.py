"""The checks of `tillmap doctor`."""
