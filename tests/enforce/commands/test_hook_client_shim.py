"""The native client under a shell's name: it asks before `-c`, and is the real shell otherwise."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.enforce.commands.hook_server import HookServer
from agent.policy.request import CommandRequest
from tests.conftest import require
from tests.enforce.commands.hook_clients import native_client
from tests.enforce.commands.test_hook_server import TODAY, RecordingGate, serve

WORDS = "parhelia: denied by recursive-delete-system: "


class Shim:
    """A directory with the shells that ask, and the socket that they ask."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.gate = RecordingGate()
        for name in ("sh", "bash", "dash"):
            shutil.copy(native_client(), place / name)

    def __call__(self, name: str, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        argv = [str(self.place / name), *words]
        more = {"cwd": self.place, **more}
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **more)

    @property
    def asked(self) -> list[str]:
        return [request.text for request in self.gate.asked if isinstance(request, CommandRequest)]


@pytest.fixture
def dead(tmp_path: Path) -> Shim:
    require(os.access("/bin/bash", os.X_OK) and os.access("/bin/dash", os.X_OK), "bash and dash are Debian's")
    return Shim(tmp_path)


@pytest.fixture
def shim(dead: Shim) -> Iterator[Shim]:
    path = str(dead.place / "hook.sock")
    server = HookServer(path, dead.gate, home="/home/session", supervised=True, today=lambda: TODAY)
    for _ in serve(server):
        yield dead


@pytest.mark.parametrize(
    "words",
    [
        ("-c",),
        ("-ec",),
        ("-lc",),
        ("-xec",),
        ("-e", "-u", "-c"),
        ("+e", "-c"),
        ("-o", "errexit", "-c"),
        ("-eo", "errexit", "-c"),
        ("-euco", "errexit"),
    ],
)
@pytest.mark.parametrize("name", ["sh", "bash", "dash"])
def test_a_text_is_asked_before_it_runs(shim: Shim, name: str, words: tuple[str, ...]) -> None:
    done = shim(name, *words, "rm -rf / --no-such-option")
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr.startswith(WORDS)
    assert len(done.stderr.splitlines()) == 1
    assert len(shim.asked) == 1


@pytest.mark.parametrize("words", [("--norc", "-c"), ("--rcfile", "/x", "-c"), ("-O", "extglob", "-c"), ("--", "-c")])
def test_the_long_options_of_bash_are_passed_by(shim: Shim, words: tuple[str, ...]) -> None:
    done = shim("bash", *words, "rm -rf / --no-such-option")
    if words[0] == "--":  # a script of that name
        assert (done.returncode, shim.asked) == (127, [])
    else:
        assert (done.returncode, done.stderr.startswith(WORDS)) == (126, True)


def test_a_redirection_of_a_builtin_is_seen(shim: Shim) -> None:
    done = shim("bash", "-c", "echo '* * * * * root x' > /etc/cron.d/y")
    assert (done.returncode, "parhelia: denied by " in done.stderr) == (126, True)


def test_the_directory_of_the_call_is_asked_with_it(shim: Shim) -> None:
    done = shim("sh", "-c", "rm -rf usr", cwd="/")
    assert (done.returncode, done.stderr.startswith(WORDS)) == (126, True)
    assert shim("sh", "-c", "rm -rf usr").returncode == 0


def test_what_is_allowed_is_the_real_shell_with_the_same_words_environment_and_status(shim: Shim) -> None:
    script = 'echo "$0|$1|$2|$X"; readlink /proc/$$/exe; exit 7'
    done = shim("bash", "-c", script, "name", "a b", "", env={"X": "y", "PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.splitlines() == ["name|a b||y", os.path.realpath("/bin/bash")]
    (request,) = shim.gate.asked
    assert request.origin.mechanism == "shim"


@pytest.mark.parametrize("name", ["sh", "bash", "dash"])
def test_a_script_file_and_standard_input_are_the_real_shells(shim: Shim, name: str) -> None:
    (shim.place / "script").write_text('echo "$0 $1"; exit 3\n')
    done = shim(name, str(shim.place / "script"), "-c")
    assert (done.returncode, done.stdout) == (3, f"{shim.place}/script -c\n")
    done = shim(name, "-s", "x", input="echo $1; exit 4\n")
    assert (done.returncode, done.stdout, shim.asked) == (4, "x\n", [])


def test_without_the_agent_no_text_runs(dead: Shim) -> None:
    done = dead("sh", "-c", f"touch {dead.place}/ran")
    assert (done.returncode, "denied by agent-fault" in done.stderr) == (126, True)
    assert not (dead.place / "ran").exists()


def test_a_gate_that_raises_lets_nothing_run(shim: Shim) -> None:
    shim.gate.broken = True
    assert shim("bash", "-c", f"touch {shim.place}/ran").returncode == 126
    assert not (shim.place / "ran").exists()


def test_the_name_of_its_file_says_what_it_is_and_not_its_first_word(shim: Shim) -> None:
    done = subprocess.run(
        ["claude-code", "-c", "rm -rf / --no-such-option"],
        executable=shim.place / "bash",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 126


def test_the_shell_has_the_signals_that_its_starter_gave_it(shim: Shim) -> None:
    def ignoring() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    lines = {}
    for program in (str(shim.place / "bash"), "/bin/bash"):
        argv = [program, "-c", "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status"]
        done = subprocess.run(argv, capture_output=True, timeout=60, check=True, preexec_fn=ignoring)
        lines[program] = done.stdout
    assert len(set(lines.values())) == 1


def test_as_many_words_as_a_program_can_have_are_asked_about(shim: Shim) -> None:
    many = ["x" * 100_000] * 18
    done = shim("bash", "-c", "echo $#", "name", *many, env={})
    assert (done.returncode, done.stdout) == (0, "18\n"), done.stderr
    assert shim("bash", "-c", "rm -rf /", "name", *many, env={}).returncode == 126
