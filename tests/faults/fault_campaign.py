"""The fault campaign: breaks every stage and every command that writes, and looks at what is left.

    make faults FAULTS="--kills 200 --seed 7 --parts 'predict@*' review --faults kill terminate"
    python tests/faults/fault_campaign.py --help

It makes a small project of its own, on a disk in memory where that is allowed (as root), and runs it. Each part of it
is then run alone and broken many times. After a fault an output is as it was, or not there, and never in between; no
process is left; and what is said is no traceback. Then the part is run to its end: it must leave the same bytes as an
unbroken run, and no other file, in the project, in the resume state, in the home and among the temporary files.

Every fault has a random seed of its own, made of `--seed`, the part, the kind and a number, so each can be repeated.
"""

import argparse
import fnmatch
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
import clocks
import disks
import kills
import memory
from parts import World, commands_of, stages_of
from runs import shimmed
from served import Repro, Review
from warm import Server

from small_project import small_project, small_project_again

# As the tests have it: the same bytes whatever the machine is doing, and no network.
AS_TESTS = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DVC_NO_ANALYTICS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONFAULTHANDLER": "1",  # says where a run hangs
}
KINDS = {
    "kill": kills.kill,
    "terminate": kills.terminate,
    "interrupt": kills.interrupt,
    "full disk": disks.full,
    "slow disk": disks.slow,
    "memory": memory.scarce,
    "clock": clocks.jump,
}
OF_DVC = {"kill", "full disk"}  # what DVC, which is not ours, is put through
NOT_BROKEN = {"slow disk", "clock"}  # the run ends well in spite of these
IN_A_ROW = 4  # faults before a part is run to its end, and then begins anew
FEED_ROWS = 400
# The provider knows the right answers, so the cascade gains and asks it.
WITH_CASCADE = {"run": {"cascade": True}, "cascade": {"llm": "openai", "held_out_rows": 60}}
WITHOUT_MODELS = WITH_CASCADE | {"run": {"cascade": True, "rag": False, "llama": False}}


class Whole(NamedTuple):
    """What an unbroken run of a part takes and leaves."""

    prints: object
    files: set
    seconds: float
    work: float  # seconds of a processor, without those that Python needs to end
    operations: int  # changes to the tree of files
    size: int  # bytes of the outputs
    largest: int


class Fault(NamedTuple):
    part: object
    kind: str
    number: int


def whole_of(part):
    """Run a part without a fault: with a server twice, so that it has imported all."""
    with tempfile.NamedTemporaryFile() as noted, tempfile.NamedTemporaryFile() as counted:
        if part.server:
            _run_whole(part, note=noted.name)
            part.server.load(noted.name)
        run = _run_whole(part, faults={"FAULT_COUNT": counted.name}, note=noted.name)
        operations = Path(counted.name).stat().st_size
        work = json.loads(Path(noted.name).read_text())["work"] if part.server else run.work
    sizes = [file.stat().st_size for file in part.all_files()]
    return Whole(part.prints(), part.world.files(), run.seconds, work, operations, sum(sizes), max(sizes))


def _run_whole(part, **how):
    part.fresh()
    run = part.start(**how)
    assert run.wait() and run.status == 0, f"fails without a fault:\n{run.output}"
    part.check_whole()
    return run


def recover(part):
    """Run a broken part to its end, as its user would."""
    part.ready()
    run = part.start()
    assert run.wait(), "the run afterwards does not end"
    if run.status and part.repair():
        run = part.start()
        run.wait()
    assert run.status == 0, f"the run afterwards failed:\n{run.output}"


def compare(part, whole):
    """Compare what a part has left with what an unbroken run leaves."""
    assert part.prints() == whole.prints, "other bytes than an unbroken run"
    part.check_whole()
    strays = sorted(part.world.files() - whole.files)
    assert not strays, f"stray files: {strays[:10]}"


class Campaign:
    """Breaks parts, and keeps the tally."""

    def __init__(self, seed, say=print):
        self.seed, self.say = seed, say
        self.tally = defaultdict(Counter)  # by (part, kind): outcomes
        self.wrong = []

    def run(self, faults):
        """Break parts in this order: the faults of a part are together."""
        began, done = time.monotonic(), 0
        for part, grouped in groupby(faults, lambda fault: fault.part):
            own = list(grouped)
            whole = self._try(part, "no fault", partial(whole_of, part))
            broken = [fault for fault in own if fault.kind not in NOT_BROKEN]
            groups = [broken[at : at + IN_A_ROW] for at in range(0, len(broken), IN_A_ROW)]
            for group in groups + [[fault] for fault in own if fault.kind in NOT_BROKEN]:
                done += len(group)
                if whole is not None:
                    self._break(part, group, whole)
                    left = (time.monotonic() - began) / done * (len(faults) - done) / 60
                    self.say(f"[{done}/{len(faults)}, {left:.0f} min left]")

    def _break(self, part, group, whole):
        """Put a part through some faults in a row, then run it to its end."""
        part.fresh()
        for fault in group:
            rng = random.Random(f"{self.seed} {part.name} {fault.kind} {fault.number}")
            part.ready()
            outcome = self._try(part, f"{fault.kind} {fault.number}", partial(KINDS[fault.kind], part, whole, rng))
            self.tally[part.name, fault.kind][(outcome or "wrong").partition(" in ")[0]] += 1
            self.say(f"{part.name}: {fault.kind} {fault.number}: {outcome or 'WRONG'}")
            if outcome == "ended before":  # the next one would find nothing left to do
                self._try(part, f"{fault.kind} {fault.number}", partial(compare, part, whole))
                part.fresh()
        after = "after " + ", ".join(f"{fault.kind} {fault.number}" for fault in group)
        if group[0].kind not in NOT_BROKEN:
            self._try(part, after, partial(recover, part))
        self._try(part, after, partial(compare, part, whole))

    def _try(self, part, when, work):
        """What a piece of work gives; None if it shows something wrong, which is kept."""
        try:
            return work()
        except AssertionError as error:
            self.wrong.append((part.name, when, str(error)))
            self.say(f"WRONG {part.name}, {when}, seed {self.seed}: {str(error)[-3000:]}")
            return None

    def table(self):
        """A line for each part: of each kind, how many faults took effect of how many tried."""
        kinds = [kind for kind in KINDS if any(kind == each for _, each in self.tally)]
        parts = dict.fromkeys(name for name, _ in self.tally)
        width = max(map(len, parts), default=4)
        yield "  ".join([" " * width, *(f"{kind:>11}" for kind in kinds)])
        for name in [*parts, "all"]:
            cells = []
            for kind in kinds:
                counts = sum((self.tally[part, kind] for part in parts if name in (part, "all")), Counter())
                missed = sum(counts[each] for each in counts if each.startswith(("ended", "enough", "wrong")))
                cells.append(f"{counts.total() - missed:>4} of {counts.total():>3}" if counts else " " * 11)
            yield "  ".join([f"{name:{width}}", *cells])
        outcomes = sum(self.tally.values(), Counter())
        yield ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        yield f"{len(self.wrong)} wrong; seed {self.seed}"


def plan(parts, kinds, total_kills, others):
    """All faults: the kills spread evenly over the parts, and so many of every other kind for each part."""
    faults = []
    for place, part in enumerate(parts):
        for kind in kinds:
            if part.name == "dvc repro" and kind not in OF_DVC:
                continue
            share = total_kills // len(parts) + (place < total_kills % len(parts))
            faults += [Fault(part, kind, number) for number in range(share if kind == "kill" else others)]
    return faults


def all_parts(world, models):
    arms = {"linear": "jsonl", "nearest": "parquet", "rerank": "csv"} | (
        {"rag": "jsonl", "llama": "jsonl", "openai": "jsonl"} if models else {"openai": "jsonl"}
    )
    return [*stages_of(world), *commands_of(world, arms, FEED_ROWS), Review(world, next(iter(arms))), Repro(world)]


def give_servers(parts):
    """Let parts be forked: all by one server, but for what imports Unsloth, which changes other libraries."""
    servers = {}
    for part in parts:
        key = part.name == "train_llama"
        if key not in servers:
            servers[key] = Server(part.world.env | shimmed() | {"TMPDIR": tempfile.gettempdir()})
        part.server = servers[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="`kill -9` in all, spread over the parts [200]")
    parser.add_argument("--others", type=int, default=1, help="faults of each other kind for each part [1]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="*", default=["*"], help="names, or patterns such as 'predict@*' [all]")
    parser.add_argument("--faults", nargs="*", choices=list(KINDS), default=list(KINDS), help="kinds of faults [all]")
    parser.add_argument("--no-models", action="store_true", help="without language models: much faster")
    parser.add_argument("--cold", action="store_true", help="each run imports all by itself: much slower")
    parser.add_argument("--place", type=Path, help="make the project in this folder, or use the one that is there")
    chosen = parser.parse_args()
    os.environ |= AS_TESTS
    with ExitStack() as stack:
        if chosen.place:
            place = chosen.place.absolute()
            place.mkdir(parents=True, exist_ok=True)
            own_disk = disks.is_in_memory(place)
        else:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tillmap-faults-")))
            own_disk = stack.enter_context(disks.disk_in_memory(place))
        if (place / "project/dvc.lock").exists():
            project = stack.enter_context(small_project_again(place))
        else:
            print("making the project", flush=True)
            tiny = place / "tiny"
            subprocess.run(
                [sys.executable, Path(__file__).parents[1] / "tiny.py", tiny], check=True, capture_output=True
            )
            changes = WITHOUT_MODELS if chosen.no_models else WITH_CASCADE
            project = stack.enter_context(small_project(place, tiny, changes))
        world = World(project, place, project.provider, own_disk)
        parts = [
            part
            for part in all_parts(world, not chosen.no_models)
            if any(fnmatch.fnmatch(part.name, pattern) for pattern in chosen.parts)
        ]
        if not chosen.cold:
            give_servers(parts)
        campaign = Campaign(chosen.seed, lambda line: print(line, flush=True))
        try:
            campaign.run(plan(parts, chosen.faults, chosen.kills, chosen.others))
        finally:
            print(*campaign.table(), sep="\n", flush=True)
    sys.exit(bool(campaign.wrong))


if __name__ == "__main__":
    main()
