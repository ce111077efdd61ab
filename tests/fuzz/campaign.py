"""Damages files of every kind and reads them: no traceback, no hang, no more than 1 GiB, no code that runs.

`make fuzz` runs 1,000 damaged files of each kind. Each kind has a process of its own.
A failure prints its seed and saves the file in tests/fuzz/corpus, if it is small; the everyday tests read those again.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from unittest.mock import patch

import psutil

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1]), str(HERE.parents[1] / "src")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from kind import Kind, refused  # noqa: E402
from kinds import KINDS  # noqa: E402
from mutate import damaged  # noqa: E402

from tillmap.core.errors import TillmapError  # noqa: E402

# Of processor time. `make fuzz` allows 10; the tests more, so that none fails because a machine is slow.
MAX_SECONDS = int(os.environ.get("FUZZ_MAX_SECONDS", "60"))
MAX_BYTES = 2**30
MAX_SAVED = 4096  # bytes of a file in the corpus
_MAX_WAIT = 300  # seconds between two looks at a process that does not answer
_IDLE = 0.5  # seconds of processor time in that; one that takes less waits for something, however busy the machine is
_MAX_NATIVE = 300  # seconds of processor time for an answer: a hang in native code does not notice the alarm
CORPUS = HERE / "corpus"
_NEVER = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
)


class HangError(BaseException):
    """A read took too long. No library catches it."""


class CodeError(BaseException):
    """Something ran, or was written outside the folder."""


@dataclass
class Result:
    """What became of the damaged files of a kind."""

    kind: str
    mutants: int = 0
    refused: int = 0
    slowest: float = 0.0
    peak_mib: int = 0
    failures: dict[str, list[int]] = field(default_factory=dict)  # by where and what: the numbers of the files
    details: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        found = sum(map(len, self.failures.values()))
        return (
            f"{self.kind:16} {self.mutants:6} files  {self.refused:6} refused  {found:4} failures of "
            f"{len(self.failures):2} kinds  slowest {self.slowest:5.2f} s  memory {self.peak_mib:4} MiB"
        )


def mutant(kind: Kind, name: str, files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """The place and the content of one damaged file. The same seed and number always give the same."""
    rng = random.Random(f"{seed}/{name}/{number}")
    place = rng.choice(sorted(files))
    content = files[place]
    structure = kind.structure_of(place)
    if kind.pack is None:
        return place, damaged(content, structure, rng)
    if rng.random() < 0.5:
        return place, kind.pack(damaged(content, structure, rng))
    return place, damaged(kind.pack(content), "bytes", rng)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Raise HangError after MAX_SECONDS of processor time, and CodeError for what no reader does."""

    def late(*_: object) -> None:
        raise HangError(f"more than {MAX_SECONDS} seconds")

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    _Hook.folder = folder
    try:
        yield
    finally:
        _Hook.folder = None
        signal.setitimer(signal.ITIMER_PROF, 0)


def _by_numba() -> bool:
    """Whether numba is reading the machine code that it has compiled, from its own cache."""
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "numba.core.caching":
        frame = frame.f_back
    return frame is not None


class _Hook:
    folder: Path | None = None
    added = False

    @classmethod
    def __call__(cls, event: str, arguments: tuple[object, ...]) -> None:
        if cls.folder is None:
            return
        if event in _NEVER and not _by_numba():
            raise CodeError(f"{event} {arguments!r:.200}")
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            named = cls.folder if isinstance(arguments[0], int) else Path(os.fsdecode(arguments[0]))
            place = Path(os.path.normpath(Path.cwd() / named))
            allowed = (cls.folder, Path(tempfile.gettempdir()), Path("/dev"), Path("/proc/self/fd"))
            if not any(place.is_relative_to(there) for there in allowed):
                raise CodeError(f"{place} is opened for writing")


def read_one(kind: Kind, folder: Path, place: str, content: bytes) -> str | None:
    """Read a damaged file in a folder that is otherwise sound. Returns what went wrong, with the traceback."""
    file = folder / place
    sound = file.read_bytes() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    refused.clear()
    try:
        with watched(folder):
            kind.run()
    except TillmapError:
        return ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tillmap/" in frame.filename]
        where = f"{Path(own[-1].filename).name}:{own[-1].name}" if own else "?"
        said = str(error).splitlines()[0][:100] if str(error) else ""
        return f"{where}: {type(error).__name__}\n{said}\n{''.join(traceback.format_exception(error)[-12:])}"
    finally:
        if sound is not None:
            file.write_bytes(sound)
    return "" if refused else None


def prepare(kind: Kind, folder: Path) -> dict[str, bytes]:
    """Put the kind's sound files into a project, which is the working folder from then on, and read them once."""
    os.chdir(folder)
    os.environ["TILLMAP_STATE"] = str(folder / "state")
    files = dict(kind.files())
    for place, content in files.items():
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_bytes(kind.pack(content) if kind.pack else content)
    with watched(folder):
        pass
    refused.clear()
    kind.run()
    if refused:  # else the campaign would measure that what is refused anyway is refused
        raise ValueError(f"a sound file is refused: {refused[0]}") from refused[0]
    return files


def _work(name: str, project: Path, cases: "Cases", begin: int, pipe: Connection) -> None:
    import logging
    import warnings

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.addaudithook(_Hook())
    kind = KINDS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as there:
        folder = Path(there) / "project"
        shutil.copytree(project, folder)
        files = prepare(kind, folder)
        base = _memory_kib("VmRSS")
        limit_memory()
        for number, (place, content) in enumerate(cases(kind, files)):
            if number < begin:
                continue
            pipe.send((number, None, 0.0, 0))  # begun, so that a crash has a number
            began = time.process_time()
            found = read_one(kind, folder, place, content)
            spent = time.process_time() - began
            if found:
                found += f"\n({place}, {len(content)} bytes)"
                save(name, place, content, found)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
            pipe.send((number, found, spent, max(0, peak // 1024)))
    pipe.send(None)


Cases = Callable[[Kind, dict[str, bytes]], Iterable[tuple[str, bytes]]]  # places and contents of damaged files


def mutants(name: str, seed: int, count: int) -> Cases:
    """Freshly damaged files of a kind."""
    return partial(_mutants, name, seed, count)


def _mutants(name: str, seed: int, count: int, kind: Kind, files: dict[str, bytes]) -> Iterable[tuple[str, bytes]]:
    return (mutant(kind, name, files, seed, number) for number in range(count))


def corpus(name: str) -> Cases:
    """The files of a kind that once failed."""
    return partial(_corpus, sorted((CORPUS / name).glob("*")))


def _corpus(files: list[Path], *_: object) -> Iterable[tuple[str, bytes]]:
    return ((file.name.partition("@")[2].replace("__", "/"), file.read_bytes()) for file in files)


def limited(run: Callable[[], object]) -> tuple[str, float, int]:
    """Run something in a process of its own, with at most 1 GiB more memory than there is now.

    Returns the first line of its error ("" if there is none), the processor seconds and the MiB that it took.
    """
    ours, theirs = get_context("fork").Pipe()

    def work() -> None:
        limit_memory()
        base, began, said = _memory_kib("VmRSS"), time.process_time(), ""
        try:
            with watched(Path.cwd()):
                run()
        except TillmapError as error:
            said = str(error).splitlines()[0]
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
        theirs.send((said, time.process_time() - began, peak // 1024))

    child = get_context("fork").Process(target=work)
    child.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        child.join()
        raise AssertionError(f"native code: exit code {child.exitcode}") from None
    child.join()
    return result


def limit_memory() -> None:
    """Let this process have 1 GiB more than it has."""
    resource.setrlimit(resource.RLIMIT_AS, (_memory_kib("VmSize") * 1024 + MAX_BYTES,) * 2)


def save(name: str, place: str, content: bytes, found: str) -> None:
    """Keep a small file that failed, under a name that says where."""
    if len(content) <= MAX_SAVED and os.environ.get("FUZZ_SAVE"):
        where = "".join(letter if letter.isalnum() else "-" for letter in found.partition("\n")[0][:60])
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{where}@{place.replace('/', '__')}").write_bytes(content)


def _memory_kib(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what + ":")).split()[1])


def attack(name: str, project: Path, cases: Cases) -> Result:
    """Read some damaged files of a kind, in a process of its own.

    It is forked from a server that has imported all and computed nothing: OpenMP waits forever in a fork of a process
    that has used it.
    """
    result, number = Result(name), 0
    context = get_context("forkserver")
    context.set_forkserver_preload(["campaign"])
    # Python 3.11 does not tell the server where to import from.
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        ensure_running()
    while True:
        ours, theirs = context.Pipe()
        child = context.Process(target=_work, args=(name, project, cases, number, theirs))
        child.start()
        theirs.close()
        begun = -1
        while True:
            try:
                told = ours.recv() if _answers(ours, child.pid) else "hang"
            except EOFError:
                told = "crash"
            if told is None or isinstance(told, str):
                break
            number, found, spent, peak = told
            if begun != number:
                begun = number
                continue
            result.mutants += 1
            result.refused += found == ""
            result.slowest, result.peak_mib = max(result.slowest, spent), max(result.peak_mib, peak)
            if found:
                _note(result, number, found)
        if told is None:
            child.join()
            break
        child.kill()
        child.join()
        if begun < 0:
            raise SystemExit(f"{name}: the sound files are not read ({told}, exit code {child.exitcode})")
        _note(result, begun, f"native code: {told}, exit code {child.exitcode}\n")
        result.mutants += 1
        number = begun + 1
    return result


def _answers(pipe: Connection, process: int) -> bool:
    """Wait until a process says something; False if it hangs."""
    began = before = _processor_seconds(process)
    while not pipe.poll(_MAX_WAIT):
        now = _processor_seconds(process)
        if now - before < _IDLE or now - began > _MAX_NATIVE:
            return False
        before = now
    return True


def _processor_seconds(process: int) -> float:
    try:
        return sum(psutil.Process(process).cpu_times()[:2])
    except psutil.Error:  # it has ended
        return 0.0


def _note(result: Result, number: int, found: str) -> None:
    what = found.partition("\n")[0]
    result.failures.setdefault(what, []).append(number)
    result.details.setdefault(what, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; by default all")
    parser.add_argument("--mutants", type=int, default=1000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", type=Path, help="a trained project; by default one is made")
    parser.add_argument("--details", action="store_true", help="show a traceback of each kind of failure")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as there:
        project = chosen.project
        if project is None:
            from trained import make_trained

            project = Path(there) / "project"
            project.mkdir()
            make_trained(project)
        failed = False
        print(f"seed {chosen.seed}, {chosen.mutants} files of each kind", flush=True)
        for name in chosen.kinds or KINDS:
            result = attack(name, project.absolute(), mutants(name, chosen.seed, chosen.mutants))
            print(result.line(), flush=True)
            for what, numbers in result.failures.items():
                print(f"    {len(numbers)}x {what}  (numbers {', '.join(map(str, numbers[:4]))})")
                if chosen.details:
                    print(result.details[what])
            failed = failed or bool(result.failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
