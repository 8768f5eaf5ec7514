"""Bodies of scripts and the variables of the environment, read at the exec, under the session's real filter."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.enforce.commands import scripts
from agent.enforce.commands.programs import Programs
from agent.policy.model import Policy, Unverifiable
from tests.conftest import require
from tests.enforce.commands import test_supervisor as ring
from tests.enforce.commands.test_supervisor import Supervised, script

supervised = ring.supervised
workspace = ring.workspace
_needs_root = ring._needs_root

DELETES = "/bin/echo began\nrm -rf /etc/x\n"


@pytest.mark.parametrize(
    ("what", "name", "text", "command"),
    [
        ("a shell's script", "s", DELETES, "sh s"),
        ("bash with options and arguments", "s", DELETES, "bash -e -o pipefail ./s one two"),
        ("an interpreter line", "s", "#!/bin/sh\n" + DELETES, "./s"),
        ("an interpreter line through env", "s", "#!/usr/bin/env -S bash -e\n" + DELETES, "./s"),
        ("no interpreter line", "s", DELETES, "./s"),
        ("an interpreter that is a script", "s", "#!/bin/sh\n" + DELETES, "printf '#!./s\\n' > t; chmod +x t; ./t"),
        ("standard input", "s", DELETES, "sh < s"),
        ("standard input by its name", "s", DELETES, "bash /dev/stdin < s"),
        ("a descriptor", "s", DELETES, "bash /dev/fd/9 9< s"),
        ("a descriptor that is executed", "s", "#!/bin/sh\n" + DELETES, "exec 9< s; /proc/self/fd/9"),
        ("an argument", "s", 'rm -rf "$2"\n', "sh s one /etc/x"),
        ("code that starts a program", "s.py", "import os\nos.system('rm -rf /etc/x')\n", "/usr/bin/python3 s.py"),
        ("code that deletes by itself", "s.py", "import shutil\nshutil.rmtree('/etc/x')\n", "/usr/bin/python3 -u s.py"),
        ("code on standard input", "s.py", "import os\nos.system('rm -rf /etc/x')\n", "/usr/bin/python3 - < s.py"),
        ("perl", "s.pl", "unlink 1; system('rm -rf /etc/x');\n", "perl -w s.pl"),
        ("awk", "s.awk", 'BEGIN { system("rm -rf /etc/x") }\n', "awk -f s.awk"),
        ("a directory of python", "__main__.py", "import os\nos.system('rm -rf /etc/x')\n", "/usr/bin/python3 ."),
        ("a copy of the shell", "s", DELETES, "cp /bin/dash x; ./x s"),
        ("the loader", "s", DELETES, "/lib64/ld-linux-x86-64.so.2 /bin/sh s"),
    ],
)
def test_a_script_that_holds_a_refused_command_does_not_begin(
    supervised: Supervised, workspace: Path, what: str, name: str, text: str, command: str
) -> None:
    path = script(workspace, name, text)
    finished = supervised.text(command)
    assert (finished.status, finished.out) == (126, ""), finished
    assert supervised.recorded.rules() == ["delete-system"]
    details = supervised.recorded.events[0].details
    assert details["script"] == os.path.realpath(path)
    assert "parhelia: denied by delete-system" in finished.err


def test_a_script_whose_name_is_no_text_is_read_too(supervised: Supervised, workspace: Path) -> None:
    script(workspace, "s", DELETES)
    finished = supervised.text("cp s $'\\xff'; sh $'\\xff'")
    assert (finished.status, finished.out) == (126, ""), finished
    assert supervised.recorded.rules() == ["delete-system"]


UNKNOWN_PARTS = """
for f in "$@"; do rm -rf "$f"; done
eval "$SOMETHING"
$COMMAND -rf /
rm -rf "$PREFIX/lib"
cat /etc/hostname | sh -s >/dev/null 2>&1
if rm -rf ./build; then echo went; fi
"""


@pytest.mark.parametrize(
    ("what", "text", "command", "out"),
    [
        ("what is not known", UNKNOWN_PARTS, "sh s", "went\n"),
        ("data", "echo 'rm -rf /etc/x'\ncat <<E\nrm -rf /\nE\n# rm -rf /\n", "sh s", "rm -rf /etc/x\nrm -rf /\n"),
        ("documentation", "=pod\n\nsystem('rm -rf /etc/x');\n\n=cut\nprint 1;\n", "perl s", "1"),
        ("a script that is not there", "", "sh nowhere; echo $?", "2\n"),
        ("a script beside its text", "rm -rf /etc/x", "sh -c 'echo s' s", "s\n"),
        ("text that is no shell's", "((( rm -rf", "sh s; echo $?", "2\n"),
    ],
)
def test_a_script_runs_in_spite_of(
    supervised: Supervised, workspace: Path, what: str, text: str, command: str, out: str
) -> None:
    script(workspace, "s", text)
    finished = supervised.text(command)
    assert (finished.out, supervised.recorded.events) == (out, []), finished


def test_the_commands_of_a_script_that_only_show_at_exec_are_decided_there(
    supervised: Supervised, workspace: Path
) -> None:
    script(workspace, "s", '/bin/echo began\n"$(id -u | sed s/.*/rm/)" -rf /etc/x\n')
    finished = supervised.text("sh s")
    assert (finished.status, finished.out) == (126, "began\n")
    assert supervised.recorded.rules() == ["delete-system"]
    assert "script" not in supervised.recorded.events[0].details


def test_a_script_of_the_systems_own_is_not_read(supervised: Supervised, workspace: Path) -> None:
    """The machine's scripts are its operator's; what they execute is decided when they do."""
    own = Programs(ring.UID)
    for path in ("/usr/bin/ldd", "/bin/sh"):
        assert not own.changeable(os.stat(path))
    require(Path("/usr/bin/ldd").exists(), "a script of the system's")
    assert supervised.text("/usr/bin/ldd --version >/dev/null; echo $?").out == "0\n"


def test_a_script_too_large_to_read_runs_where_every_exec_is_decided(supervised: Supervised, workspace: Path) -> None:
    script(workspace, "s", DELETES + "#" * scripts.MAX_BODY)
    finished = supervised.text("sh s; echo $?")
    assert finished.out == "began\n126\n"
    assert supervised.recorded.rules() == ["delete-system"]


def test_a_script_is_read_anew_each_time(supervised: Supervised, workspace: Path) -> None:
    command = "echo 'echo  fine' > s; sh s; echo 'rm -rf /etc/x' > s; sh s; echo $?; echo 'echo  fine' > s; sh s"
    finished = supervised.text(command)
    assert finished.out == "fine\n126\nfine\n"
    assert supervised.recorded.rules() == ["delete-system"]


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("a file that bash reads first", "echo 'rm -rf /etc/x' > e; BASH_ENV=$PWD/e bash -c true"),
        ("the name of a file that bash expands", "BASH_ENV='$(rm -rf /etc/x)' bash -c true"),
        ("a function that replaces a command", "env 'BASH_FUNC_ls%%=() { rm -rf /etc/x; }' bash -c ls"),
        ("a prompt of a trace", "PS4='$(rm -rf /etc/x)' bash -xc true"),
        ("the pager of git", "GIT_PAGER='rm -rf /etc/x' git log"),
        ("the way of git to another host", "GIT_SSH_COMMAND='rm -rf /etc/x #' git fetch"),
        (
            "a setting of git",
            f"{'GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=alias.x'} GIT_CONFIG_VALUE_0='!rm -rf /etc/x' git x",
        ),
        ("the options of tar", "TAR_OPTIONS='--checkpoint-action=exec=rm\\ -rf\\ /etc/x' tar --help"),
        ("the input of less", "LESSOPEN='|rm -rf /etc/x %s' less s"),
        ("the options of perl", 'PERL5OPT=\'-Mstrict;system("rm","-rf","/etc/x")\' perl -e 1'),
        ("an exported variable", "export VISUAL='rm -rf /etc/x'; git commit"),
        ("the second of two", "env -i PATH=$PATH PAGER=cat python3 -c x; PAGER='rm -rf /etc/x' git log"),
    ],
)
def test_what_a_variable_makes_a_program_run_is_decided(supervised: Supervised, what: str, command: str) -> None:
    finished = supervised.text(command + "; echo status=$?")
    assert "status=126" in finished.out, finished
    assert supervised.recorded.rules() == ["delete-system"]


def test_variables_of_an_ordinary_session_change_nothing(supervised: Supervised) -> None:
    text = (
        "export PAGER=less EDITOR='vim -f' ENV=production LESS=-R GIT_PAGER=cat PYTHONPATH=/x PS1='\\u$ ' LUA_INIT=\n"
    )
    finished = supervised.text(text + "git --version | cut -c1-3; sh -c 'echo $ENV'; bash -c 'echo x'")
    assert (finished.out, supervised.recorded.events) == ("git\nproduction\nx\n", []), finished


def policy_with(unverifiable: Unverifiable) -> Policy:
    """The tests' policy, with another answer to what cannot be known."""
    (layer,) = BASE.layers
    assert layer.commands is not None
    section = replace(layer.commands, unverifiable=unverifiable)
    return Policy(layers=(replace(layer, commands=section),), digest="e" * 64)


BASE = ring.policy()


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("echo ran\n" + "#" * scripts.MAX_BODY, ["commands-unverifiable"]),
        ("true\n" * 5000 + "echo ran\n", ["commands-unverifiable"]),
        ('$UNKNOWN; eval "$UNKNOWN"; rm -rf "$UNKNOWN"; echo ran\n', []),
    ],
)
def test_where_the_unverifiable_is_denied_a_script_not_read_to_its_end_is_and_an_uncertain_one_is_not(
    supervised: Supervised, workspace: Path, text: str, rules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = policy_with(Unverifiable.DENY)
    monkeypatch.setattr(ring, "policy", lambda: strict)
    script(workspace, "s", text)
    finished = supervised.run("/bin/bash", "s", cwd=workspace)
    assert ("ran" in finished.out) is not bool(rules), finished
    assert supervised.recorded.rules() == rules


LEASE = """\
import fcntl, os, subprocess, sys
held = os.open("s", os.O_RDWR)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print(subprocess.run(["/bin/sh", "s"], timeout=20).returncode)
"""


@pytest.mark.parametrize(("unverifiable", "ran"), [(Unverifiable.SUPERVISE, True), (Unverifiable.DENY, False)])
def test_a_script_that_cannot_be_read_at_once_is_unverifiable(
    supervised: Supervised, workspace: Path, unverifiable: Unverifiable, ran: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its interpreter would wait for the lease's holder, which the supervisor does not."""
    policy = policy_with(unverifiable)
    monkeypatch.setattr(ring, "policy", lambda: policy)
    os.chown(script(workspace, "s", "echo ran\n"), ring.UID, ring.GID)
    script(workspace, "lease.py", "import signal\nsignal.signal(signal.SIGIO, lambda *_: os.close(held))\n" + LEASE)
    finished = supervised.run("/usr/bin/python3", "lease.py", cwd=workspace)
    assert ("ran" in finished.out) is ran, finished
    assert supervised.recorded.rules() == ([] if ran else ["commands-unverifiable"])
