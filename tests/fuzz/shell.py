"""The shell analysis against bash: what bash accepts is never a crash and never silently skipped.

Two ways of asking. Parsed: a marker is put anywhere into any text; where bash accepts the text, and refuses it with a
lone ``fi`` in the marker's place, the marker stands where a command stands, and the analysis must have found it there
or have called the text unverifiable. Run: a program written from a grammar is run by bash, and every marked command
that it really starts must have been foreseen, words and all, or the text called unverifiable.

``python -m tests.fuzz shell [SECONDS] [FIRST SEED]`` asks until the time is over and prints what it found.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from agent.policy.request import UNKNOWN, SimpleCommand
from agent.shell.analyse import Analysis, analyse_text
from tests.fuzz.shell_texts import MARK, Writer, marked, mutated

HOME = "/home/session"
_CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "commands.jsonl"
_TOOLS = "cat env sh bash nice timeout base64 rev tr find xargs tee"
_STUB = """#!/bin/sh
U=$(printf '\\037')
W=X
for a in "$@"; do W=$W$a$U; done
printf '%s\\036' "$W" >> "$MARKLOG"
"""


def available() -> bool:
    """Is there all that this needs?"""
    return all(shutil.which(tool, path="/usr/bin:/bin") for tool in _TOOLS.split())


def accepts(text: str) -> bool:
    """Does bash parse `text`? Nothing in it is run (bash(1), option -n)."""
    found = subprocess.run(
        ["/bin/bash", "--norc", "-n", "-c", text],
        env={"PATH": "", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    # bash 5.2 says what is wrong inside a substitution, and leaves with 0
    return found.returncode == 0 and not found.stderr


def analysis(text: str, cwd: str = "/work") -> Analysis:
    return analyse_text(text, cwd=cwd, home=HOME)


def skipped(text: str, at: int) -> bool:
    """Does bash take the marker at `at` for a command that the analysis neither found nor called unknown?"""
    found = analysis(text)
    if found.unverifiable is not None or any(command.program == MARK for command in found.commands):
        return False
    return accepts(text) and not accepts(text[:at] + "fi" + text[at + len(MARK) :])


def parsed(seed: int) -> str | None:
    """One question of the first way; the text where its answer is wrong."""
    chance = random.Random(seed)
    base = chance.choice(_seeds()) if chance.random() < 0.6 else Writer(seed).program().replace(MARK, "other")
    text, at = marked(mutated(base, seed), seed)
    if not text.isprintable() and "\0" in text:
        return None
    return text if skipped(text, at) else None


@cache
def _seeds() -> tuple[str, ...]:
    """Texts of others to begin with, where the shared corpus is there; they are parsed, never run."""
    rows = _CORPUS.read_text().splitlines() if _CORPUS.is_file() else []
    found = [str(json.loads(row)["command"]) for row in rows]
    return (*found, "if a; then b; else c; fi", "case $x in a|b) c;; esac", "cat <<E | a\n$(b)\nE\nc", "a <(b) >(c)")


class Place:
    """A directory with the marked command's stub and the few tools that a written program uses."""

    def __init__(self, directory: Path) -> None:
        self._tools, self._work, self._log = directory / "bin", directory / "work", directory / "log"
        self._tools.mkdir()
        (self._tools / MARK).write_text(_STUB)
        (self._tools / MARK).chmod(0o755)
        for tool in _TOOLS.split():
            (self._tools / tool).symlink_to(str(shutil.which(tool, path="/usr/bin:/bin")))

    def ran(self, text: str) -> list[tuple[str, ...]]:
        """The words of every marked command that bash starts."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        self._log.write_text("")
        held, given = os.pipe()  # everything that the text starts holds one end, so that the other says when it is over
        with os.fdopen(held, "rb") as over, os.fdopen(given, "wb") as end:
            subprocess.run(
                ["/bin/bash", "--norc", "-c", f"{text}\nwait"],
                env={"PATH": str(self._tools), "MARKLOG": str(self._log), "HOME": HOME, "LANG": "C.UTF-8"},
                cwd=self._work,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=60,
                check=False,
                pass_fds=(given,),
            )
            end.close()
            over.read()
        calls = self._log.read_text(errors="replace").split("\x1e")[:-1]
        return [tuple(call[1:].split("\x1f")[:-1]) for call in calls]

    def unforeseen(self, text: str) -> list[tuple[str, ...]]:
        """The marked commands that bash started and the analysis did not see coming."""
        found = analysis(text, str(self._work))
        if found.unverifiable is not None:
            return []
        commands = [command for command in found.commands if command.program == MARK]
        return [words for words in self.ran(text) if not any(describes(command, words) for command in commands)]


def describes(command: SimpleCommand, words: tuple[str, ...]) -> bool:
    """Are the words of `command`, unknown parts allowed for, these?"""
    spelled = [
        "(?:[^\x1f]*\x1f)*" if word == UNKNOWN else re.escape(word).replace(re.escape(UNKNOWN), ".*") + "\x1f"
        for word in command.argv[1:]
    ]
    return re.fullmatch("".join(spelled), "".join(f"{word}\x1f" for word in words), re.DOTALL) is not None


def main() -> None:
    """Ask until the time is over."""
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else time.time_ns() % 1_000_000_000
    asked = wrong = known = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        place = Place(Path(directory))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seed, asked = seed + 1, asked + 1
            text = parsed(seed)
            if text is not None:
                wrong += 1
                print(f"skipped, seed {seed}: {text!r}", flush=True)
            program = Writer(seed).program()
            known += analysis(program).unverifiable is None
            missed = place.unforeseen(program)
            if missed:
                wrong += 1
                print(f"unforeseen, seed {seed}: {missed} of {program!r}", flush=True)
    print(f"{asked} texts parsed, {asked} programs written ({known} of them understood whole), {wrong} wrong")
    sys.exit(1 if wrong else 0)
