"""The parameters of params.yaml, profiles that override them, and where files are."""
