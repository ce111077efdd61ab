"""The stages of the pipeline, one module each. dvc.yaml runs them as `python -m stages.NAME [ARM]`."""
