"""The schema of params.yaml, the profiles that change it, and the paths of the project's files."""
