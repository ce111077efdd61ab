"""Prints docs/licences.md: every package of the locks that is installed, with the licence that it states."""

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ("cpu.txt", "torch.txt", "share.txt")
PIN = re.compile(r"^([\w.-]+)==([\w.+]+)", re.MULTILINE)
STATED = re.compile(r"^License :: (?:OSI Approved :: )?(.+)$")
LONG = 60

HEAD = """# Licences of what tillmap uses

tillmap itself is under the Apache License 2.0. It ships none of the packages below; `make setup` installs them, each
with its own licence. `make licences` writes this page from what the installed packages state of themselves (it is no
legal advice, and says nothing of the models: Llama's own licence, for one, has terms on naming and use).

**What copyleft means for a user.** `unsloth` states Apache-2.0 and `unsloth_zoo`, which it imports, LGPL-3.0-or-
later; in both, single files say AGPL-3 in their heads (in 2026.10.9: 26 of unsloth's, its kernels for mixtures of
experts, and 111 of unsloth_zoo's). They are used as libraries, unchanged, and by `train_llama` alone. Running the
pipeline, in a company too, asks nothing of you; nor do the models, predictions and metrics that come out, for a
program's licence does not reach its output. It matters where the program is *handed on*: who distributes an image or
installer with `unsloth_zoo` in it passes on its licence and source and lets it be replaced; and who *changes* an AGPL
file and lets others use it over a network offers them the changed source. If that is not wanted, leave both out:
`run.llama: false`, or train elsewhere and pull the adapter, for answering with a tuned model needs neither package.

Of the others, `pygit2` (GPL-2 with a linking exception), `pycountry` (LGPL-2.1), `asyncssh` and `dulwich` (a choice
with GPL-2), and `certifi`, `hypothesis`, `orjson`, `pathspec`, `shtab` and `tqdm` (MPL-2.0) ask only that their
notices stay where they are handed on; Intel's OpenMP comes under a licence of Intel's that allows use and
redistribution unchanged. "Not stated" is what the metadata says; the licence is then in the package's own files.

"""


def licence(package):
    """The licence that a distribution states: its SPDX expression, its short text, or its classifiers."""
    metadata = package.metadata
    expression = metadata.get("License-Expression")
    if expression:
        return expression
    text = (metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) <= LONG and text.upper() != "UNKNOWN":
        return text
    named = [STATED.match(line) for line in metadata.get_all("Classifier", [])]
    return ", ".join(sorted(match[1] for match in named if match)) or (text.splitlines() or ["not stated"])[0][:LONG]


def pinned(lock):
    """The names and versions of a lock."""
    return dict(PIN.findall((ROOT / "requirements" / lock).read_text()))


def page():
    names = sorted({name for lock in LOCKS for name in pinned(lock)}, key=str.lower)
    lines = ["| package | licence |", "|---|---|"]
    for name in names:
        lines.append(f"| {name} | {licence(importlib.metadata.distribution(name)).replace('|', '/')} |")
    return HEAD + "\n".join(lines)


if __name__ == "__main__":
    print(page())
