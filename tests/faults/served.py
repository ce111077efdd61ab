"""`tillmap review` in the middle of decisions, and `dvc repro` itself."""

import json
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from parts import OUT, Part, remove
from project import DVC, copy_project
from runs import LOOK, Run, python

DECISIONS = 300


class Review(Part):
    """The page's server, with a client that decides as fast as it can. What it was told is saved must be in the log."""

    def __init__(self, world, arm):
        words = ["review", "--no-browser", "--arm", arm, "--decisions", f"{OUT}/log.jsonl"]
        super().__init__(world, "review", python("-m", "tillmap", *words), [f"{OUT}/log.jsonl"])
        self.told = set()  # the numbers of the decisions that were said to be saved

    def ready(self):
        pass

    def fresh(self):
        self.world.forget()
        remove(self.outs[0])
        self.told.clear()

    def start(self, **how):
        run = super().start(**how)
        threading.Thread(target=self._decide, args=(run,), daemon=True).start()
        return run

    def prints(self):
        """The decisions, without their times."""
        return [(line["labels"], [row["id"] for row in line["rows"]]) for line in self._lines()]

    def check_broken(self, _):
        saved = {line["number"] for line in self._lines()}
        assert self.told <= saved, f"lost the decisions {sorted(self.told - saved)}"

    def stopped_plainly(self, run, number):
        return run.status in (0, 128 + number) and ("decisions in" in run.output or "stopped by" in run.output)

    def _lines(self):
        whole = self.outs[0].read_bytes().split(b"\n")[:-1] if self.outs[0].exists() else []
        return [json.loads(line) for line in whole]

    def _decide(self, run):
        """Decide until `DECISIONS` are in the log, then stop the server; or until it no longer answers."""
        try:
            while "Every decision is saved" not in run.output:
                if run.child.poll() is not None:
                    return
                time.sleep(LOOK)
            address = next(line for line in run.output.splitlines() if line.startswith("http"))
            items = _ask(f"{address}start")["progress"]["items"]
            for number in range(len(self._lines()), DECISIONS):
                saved = _ask(f"{address}decide", {"place": number % items, "labels": None, "twins": False})["saved"]
                self.told.add(saved["number"])
            run.send(signal.SIGINT)
        except urllib.error.HTTPError as error:  # what the page would show
            run.hear(error.read())
            run.send(signal.SIGINT)
        except (OSError, ValueError, HTTPException):
            return  # it was killed


def _ask(address, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(address, data, timeout=30) as response:
        return json.loads(response.read())


class Repro(Part):
    """`dvc repro` of the first stages, in a project of its own: what DVC itself writes is broken, too.

    Kills hit DVC and its stage together, since a stage may outlive a killed DVC.
    """

    group = True

    def __init__(self, world):
        outs = ["data/demo", "data/raw", "data/split", "models/seen.json"]
        super().__init__(world, "dvc repro", [*DVC, "repro", "stratify"], outs)
        self.folder = Path(world.place) / "repro"
        self.outs = [self.folder / out for out in outs]
        if not self.folder.exists():
            self.folder.mkdir()
            copy_project(self.folder)
            shutil.copy2(world.project.folder / "params.yaml", self.folder)
            for words in (("init", "--quiet"), ("add", "-A"), ("commit", "--quiet", "-m", "start")):
                self._run("git", "-c", "user.name=test", "-c", "user.email=test@example.com", *words)
        self.repaired = 0

    def ready(self):
        pass

    def fresh(self):
        super().fresh()
        for out in self.outs:
            remove(out)
        for name in ("dvc.lock", ".dvc/cache", ".dvc/tmp"):
            remove(self.folder / name)

    def check_broken(self, _):
        """DVC moves files between its cache and the project, so half of a folder may be there. `dvc repro` sees it."""

    def check_whole(self):
        missing = [line for line in self._run(*DVC, "status").splitlines() if "not in cache" in line]
        assert not missing, missing

    def repair(self):
        """What a user does if DVC fails after a kill. Whether `tillmap doctor` found something."""
        found = self._run(*python("-m", "tillmap", "doctor", "--fix"), ok=None)
        repaired = "run cache" in found
        self.repaired += repaired
        return repaired

    def _run(self, *command, ok=0):
        run = Run(command, self.folder, self.world.env)
        run.wait()
        assert ok is None or run.status == ok, run.output
        return run.output
