"""A client of the local OpenAI in a process of its own, which a test may kill: `Clients().run("batch", ...)`.

One process imports everything and forks a child for each run, so that many runs start in no time.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from openai_server import KEY
from tillmap.core.completions import Question
from tillmap.core.errors import TillmapError
from tillmap.llm.interface.generation import Generation
from tillmap.providers.batches import Limits, answer_by_batch
from tillmap.providers.client import Service
from tillmap.providers.requests import ChatSettings
from tillmap.providers.tuning_jobs import Tuning, tune

RUN = "0123456789abcdef"
ASKING = ChatSettings("gpt-4o-mini-2024-07-18", Generation(16, 0.0, 0), stop=("|",))
TUNING = Tuning("gpt-4o-mini-2024-07-18", "tillmap", 3407, epochs=2)


def connect(base_url, **options):
    os.environ["OPENAI_API_KEY"] = KEY
    return Service(base_url, **{"poll_seconds": 0.005, "settle_seconds": 0.1, "timeout": 10.0} | options)


def questions(count):
    def chat(number):
        return [{"role": "system", "content": "Label."}, {"role": "user", "content": f"item {number} ->"}]

    return [Question("test", number, chat(number)) for number in range(count)]


def ask(service, count, folder, retries=2, asking=ASKING, **limits):
    chosen = Limits(**{"requests": 4} | limits)
    return answer_by_batch(
        questions(count), service, asking, limits=chosen, retries=retries, folder=Path(folder), run=RUN
    )


def write_examples(path, count=12):
    turns = [("system", "Your task"), ("user", "milk ->"), ("assistant", "dairy")]
    example = {"messages": [{"role": role, "content": content} for role, content in turns]}
    path.write_text((json.dumps(example) + "\n") * count)
    return path


class Clients:
    """Runs a client at a time; `pid` is that of the one at work."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = None
        assert self._process.stdout.readline() == "ready\n"

    def run(self, **work):
        """How the client ended: its result, or None where it was killed."""
        self._process.stdin.write(json.dumps(work) + "\n")
        self._process.stdin.flush()
        self.pid = int(self._process.stdout.readline())
        status = int(self._process.stdout.readline())
        assert status in (0, signal.SIGKILL), "the client failed; see its error output"
        return None if status else json.loads(Path(work["out"]).read_text())

    def kill(self):
        while self.pid is None:
            time.sleep(0.001)
        os.kill(self.pid, signal.SIGKILL)

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def work(kind, base_url, folder, out, count=0, **options):
    service = connect(base_url, **options)
    if kind == "batch":
        result = [answer.as_record() for answer in ask(service, count, folder)]
    else:
        result = tune(service, Path(folder).parent / "examples.jsonl", TUNING, Path(folder), RUN)
    Path(out).write_text(json.dumps(result))


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                work(**json.loads(line))
            except TillmapError as error:
                print(error, file=sys.stderr)
                os._exit(1)
            except BaseException:
                traceback.print_exc()
                os._exit(2)
            os._exit(0)
        print(child, flush=True)
        print(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)


if __name__ == "__main__":
    main()
