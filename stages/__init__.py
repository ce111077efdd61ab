"""The stages of the pipeline, one module each. dvc.yaml runs them as `python -m stages.NAME [ARM]`."""

import sys

from tillmap.core.ending import OF_A_STAGE, end_plainly

if sys.argv[0] == "-m":  # of a stage that is starting: before it imports what takes seconds
    words = sys.orig_argv[sys.orig_argv.index("-m") + 1 :]
    end_plainly("/".join(words).removeprefix("stages."), OF_A_STAGE)
