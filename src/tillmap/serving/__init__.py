"""Labelling new rows with a trained arm, and writing them down."""
