"""The small project that most tests of the pipeline share, and that the fault campaign breaks."""

from contextlib import contextmanager
from functools import lru_cache

import pandas as pd
from project import SMALL, Project, copy_project

from openai_server import KEY, LocalOpenAI
from tillmap.arms import schema
from tillmap.config.profiles import apply_profiles


@contextmanager
def small_project(place, tiny, changes=()):
    """A project in a new folder of `place` after its first `dvc repro`, committed. Its output is `project.first`.

    Every arm but the cascade is on. `rag` asks the tiny model through vLLM, and `llama` tunes it with Unsloth and asks
    it through transformers. `openai` tunes and asks a model of `project.provider`, a server on this machine that knows
    the right answers; its key is in the environment of `dvc repro` alone. `changes` are made to the params last.
    """
    folder = place / "project"
    folder.mkdir()
    copy_project(folder)
    project = Project(folder, place / "state")
    apply_profiles(["openai-tuned"], folder / "params.yaml", folder / "profiles", schema())
    with LocalOpenAI(lambda body: _right_answer(folder, body)) as project.provider:
        project.set_params(SMALL)
        project.set_params(
            {
                "rag": {"base": str(tiny)},
                "llama": {"base": str(tiny)},
                "provider": {"base_url": project.provider.base_url},
            }
        )
        project.set_params(dict(changes))
        project.git("init", "--quiet")
        project.commit("start")
        project.env["OPENAI_API_KEY"] = KEY
        project.first = project.dvc("repro")
        del project.env["OPENAI_API_KEY"]
        project.commit("first run")
        yield project


@contextmanager
def small_project_again(place):
    """The project that `small_project` has made in `place`, with another provider, which knows of nothing yet."""
    project = Project(place / "project", place / "state")
    with LocalOpenAI(lambda body: _right_answer(project.folder, body)) as project.provider:
        project.set_params({"provider": {"base_url": project.provider.base_url}})
        yield project


def _right_answer(folder, body):
    file = folder / "data/split/rows.parquet"
    description = body["messages"][-1]["content"].splitlines()[-1].split(" | ")[0]
    module, brand = _labels_in(file, file.stat().st_mtime_ns)[description]
    return f"{module} | {brand}"


@lru_cache(1)
def _labels_in(file, _):
    """By description, the module and the brand of its first row. `_` tells the versions of the file apart."""
    rows = pd.read_parquet(file, columns=["description", "module", "brand"]).drop_duplicates("description")
    return dict(zip(rows["description"], zip(rows["module"], rows["brand"], strict=True), strict=True))
