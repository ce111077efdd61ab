"""The stages of the pipeline, one thin module each: `python -m stages.NAME [ARM]`, as dvc.yaml runs them."""
