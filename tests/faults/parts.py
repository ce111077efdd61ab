"""What the campaign breaks: each stage, and each command that writes. A part knows what a whole run of it leaves."""

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

from dvc.repo import Repo
from runs import Run, python

from openai_server import KEY

IGNORED = {".git", "cache", "__pycache__"}  # the second of .dvc and of the home: what may be deleted at any time
CACHE = "torchinductor_"  # begins the name of torch's cache among the temporary files
PROBE = re.compile(r"[a-z0-9_]{8}")  # Python's, which tries whether a folder for temporary files can be written
GROWING = "curves"  # the folder of files that grow while a stage runs
CHECKPOINT = re.compile(r"checkpoint-\d+")  # of a training: the last two are kept, whichever these are
OUT = "labelled"  # the folder of predictions and submissions


class World:
    """A project with its own home, temporary files and resume state, all in folders of `place`."""

    def __init__(self, project, place, provider=None, own_disk=False):
        """`own_disk`: whether `place` is a disk, which may be filled."""
        self.project, self.place, self.provider, self.own_disk = project, place, provider, own_disk
        self.state = Path(project.env["TILLMAP_STATE"])
        self.tmp, self.home = place / "tmp", place / "home"
        for folder in (self.state, self.tmp, self.home, project.folder / OUT):
            folder.mkdir(parents=True, exist_ok=True)
        own = {"TMPDIR": str(self.tmp), "HOME": str(self.home), "OPENAI_API_KEY": KEY, "TQDM_DISABLE": "1"}
        self.env = project.env | own

    def files(self):
        """Every file and folder, without caches and locks."""
        found = set()
        for top in (self.project.folder, self.state, self.tmp, self.home):
            for folder, folders, files in os.walk(top):
                folders[:] = [
                    name
                    for name in folders
                    if name not in IGNORED and not name.startswith(CACHE) and not Path(folder).match("*/.dvc/tmp")
                ]
                names = [*folders, *(name for name in files if not PROBE.fullmatch(name))]
                there = Path(folder).relative_to(top.parent)
                found |= {CHECKPOINT.sub("checkpoint-N", str(there / name)) for name in names}
        return found

    def forget(self):
        """Empty the resume state and the temporary files, and what the provider knows."""
        for folder in (self.state, self.tmp):
            empty(folder)
        if self.provider:
            self.provider.forget()


class Part:
    """A stage, which DVC runs after it has removed its outputs."""

    group = False  # whether a kill hits its children, too
    server = None  # forks its runs: see warm.py

    def __init__(self, world, name, command, outs):
        self.world, self.name, self.command = world, name, command
        self.folder = world.project.folder
        self.outs = [self.folder / out for out in outs]

    def start(self, **how):
        """Begin a run. The keywords are those of `Run`."""
        return Run(self.command, self.folder, self.world.env, **{"server": self.server} | how)

    def ready(self):
        """What happens before each run, after a broken one, too."""
        for out in self.outs:
            remove(out)

    def fresh(self):
        """As if it had never run."""
        self.world.forget()
        self.ready()

    def prints(self):
        """Each output's files and their hashes; None for one that is not there."""
        return {str(out.relative_to(self.folder)): print_of(out) for out in self.outs}

    def all_files(self):
        return [file for out in self.outs for file in files_of(out)]

    def check_broken(self, whole):
        """An output is the whole one or none. (The last of several may be missing: DVC runs the stage again.)"""
        half = [out for out, found in self.prints().items() if not _is_whole(found, whole[out])]
        assert not half, f"half of {', '.join(half)} is left"

    def check_whole(self):
        """What must be true after a run that ended well, besides the bytes."""
        billed = self.world.provider.billed if self.world.provider else Counter()
        paid = {question: count for question, count in billed.items() if count > 1}
        assert not paid, f"paid more than once: {paid}"

    def repair(self):
        """What a user does if the run after a broken one fails. Whether that may have helped."""
        return False

    def stopped_plainly(self, run, number):
        """Whether a run that was told to stop by that signal has ended as it should."""
        return run.status == 128 + number and "stopped by" in run.output


class Command(Part):
    """A command of `tillmap`, which finds its earlier output."""

    def __init__(self, world, name, words, out):
        super().__init__(world, name, python("-m", "tillmap", *words), [f"{OUT}/{out}"])

    def ready(self):
        pass

    def fresh(self):
        self.world.forget()
        for out in self.outs:
            remove(out)


def stages_of(world):
    """Every stage of the project, in DVC's order."""
    with Repo(str(world.project.folder)) as repo:
        for stage in repo.index.stages:
            outs = [out.def_path for out in stage.outs if out.use_cache]
            yield Part(world, stage.name, python(*stage.cmd.split()[1:]), outs)


def commands_of(world, arms, rows):
    """`tillmap predict` with each of these arms, and `tillmap submit`. `rows` is the number of rows to label."""
    feed = world.project.folder / OUT / "feed.jsonl"
    lines = (world.project.folder / "data/demo/test.features").read_text().splitlines()
    with feed.open("w") as file:
        for number in range(rows):
            file.write(json.dumps(json.loads(lines[number % len(lines)]) | {"indoml_id": f"row {number}"}) + "\n")
    for arm, suffix in arms.items():
        words = ["predict", f"{OUT}/feed.jsonl", "--arm", arm, "--out", f"{OUT}/{arm}.{suffix}"]
        yield Command(world, f"predict@{arm}", words, f"{arm}.{suffix}")
    arm = next(iter(arms))
    yield Command(world, "submit", ["submit", "--arm", arm, "--name", "x", "--out", f"{OUT}/x.zip"], "x.zip")


def _is_whole(found, whole):
    """Whether a print is none, or that of a whole output; or the beginning of one that grows."""
    return found in (None, whole) or all(
        Path(file).parent.name == GROWING and whole[file].startswith(text) for file, text in found.items()
    )


def files_of(out):
    return sorted(file for file in out.rglob("*") if file.is_file()) if out.is_dir() else [out] * out.exists()


def print_of(out):
    """The files of an output with their hashes; with the text of one that grows.

    Of what a run took, which differs from run to run, with the names of the values.
    """

    def print_one(file):
        if "usage" in (file.parent.name, file.stem):
            return sorted(json.loads(file.read_text()))
        if file.parent.name == GROWING:
            return file.read_text()
        return hashlib.sha256(file.read_bytes()).hexdigest()

    return {str(file): print_one(file) for file in files_of(out)} or None


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def empty(folder):
    for entry in folder.iterdir():
        remove(entry)
