"""Labelled rows whose label looks wrong."""
