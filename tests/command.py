"""Runs a `tillmap` command in this process."""

import sys

import pytest

from tillmap import cli


def run_command(monkeypatch, capture, *words):
    """The exit code, standard output and standard error of `tillmap WORDS`. `capture` is pytest's capsys or capfd."""
    monkeypatch.setattr(sys, "argv", ["tillmap", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    said = capture.readouterr()
    code, error = (1, ended.value.code) if isinstance(ended.value.code, str) else (ended.value.code, "")
    return code, said.out, said.err + error


def commands_in(folder, state, monkeypatch, capture):
    """A function that runs `tillmap WORDS` in `folder`: gives its exit code and all it said."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TILLMAP_STATE", str(state))

    def call(*words):
        code, out, error = run_command(monkeypatch, capture, *words)
        return code, out + error

    return call
