"""The exec ring where there is no seccomp user notification: gVisor of 2022 and of 2024, and this kernel without it.

Each session makes all of a list of attempts, because a session in gVisor takes seconds to start.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.escape.containers import Gvisor
from tests.escape.runtime import Case, Host, Outcome, Runtime, policy
from tests.escape.test_exec_identity import counted
from tests.runtimes.engine import Engine
from tests.runtimes.gvisor import GVisor, made_for


@pytest.fixture
def gvisor_2024_sessions(tmp_path: Path, upstream_certificate: Path, docker: Engine, gvisor_directory: Path) -> Gvisor:
    runsc = GVisor(made_for(docker, "trixie"), gvisor_directory / "rootfs", gvisor_directory)
    return Gvisor(tmp_path, upstream_certificate, runsc)


TRACED = [
    pytest.param("host_without_notify", marks=pytest.mark.root, id="host"),
    pytest.param("gvisor_sessions", marks=[pytest.mark.root, pytest.mark.docker, pytest.mark.gvisor], id="gvisor-2022"),
    pytest.param(
        "gvisor_2024_sessions", marks=[pytest.mark.root, pytest.mark.docker, pytest.mark.gvisor], id="gvisor-2024"
    ),
]


@pytest.fixture(params=TRACED)
def traced(request: pytest.FixtureRequest) -> Runtime:
    """Each runtime in turn."""
    found: Runtime = request.getfixturevalue(request.param)
    return found


def gateway(runtime: Runtime) -> dict[str, str]:
    """Where the numbers of a session are pushed to."""
    return {"PARHELIA_PUSHGATEWAY_URL": f"http://127.0.0.1:{runtime.upstream.ports['http']}"}


def until_pushed(runtime: Runtime) -> str:
    """In a container the gateway ends with the session, which therefore stays until the numbers are there."""
    return "" if isinstance(runtime, Host) else "; sleep 8"


def refused(outcome: Outcome) -> list[str]:
    """The rule of every refused command, in the order of their lines."""
    found = [event["details"] for event in outcome.of("bash.dangerous")]
    return [details["rule"] for details in found for _ in range(details.get("count", 1))]


UNKNOWN = "N=$(basename /x/rm); M=$(basename /x/mkfs.ext4); Z=/dev/$(basename /x/zero)\n"
"""Nobody can know from the text what these are."""
HIDDEN = [
    ("$N -rf /", 126, "recursive-delete-system"),
    ('"$(command -v $N)" -rf /', 126, "recursive-delete-system"),
    ("exec 9</bin/$N; /proc/self/fd/9 -rf /etc/x", 126, "recursive-delete-system"),
    ("ln -s /bin/$N harmless; ./harmless -rf /etc/x", 126, "recursive-delete-system"),
    ("cp /bin/echo $M; ./$M x", 126, "commands.deny[0]"),
    ("printf '#!/bin/'$N' -rf\\n' > s; chmod +x s; ./s /etc/x", 126, "recursive-delete-system"),
    ("(exec -a harmless /bin/$N -rf /)", 126, "recursive-delete-system"),
    ("find /etc -maxdepth 0 -exec $N -rf {} +", 126, "recursive-delete-system"),
    ("dd if=$Z of=/dev/null count=1", 126, "commands.deny[1]"),
    ("$(echo true)", 0, None),
    ("printf '#!/bin/sh\\necho $0 $1\\n' > t; chmod +x t; ./t word", 0, None),
    ("printf '#!./t\\n' > u; chmod +x u; ./u", 0, None),
    ("./t word | cat | tr a-z A-Z", 0, None),
    ("/no/such/program", 127, None),
]


def test_what_only_shows_at_exec_is_refused_and_recorded_and_all_else_runs(traced: Runtime) -> None:
    script = UNKNOWN + "".join(f"{text}; echo status=$?\n" for text, _, _ in HIDDEN)
    run = 'D=$(mktemp -d); cd "$D"; echo "$0" > script; "$(command -v bash)" ./script; echo end' + until_pushed(traced)
    outcome = traced.run(Case(("/bin/bash", "-c", run, script), policy(), env=gateway(traced)))
    lines = outcome.stdout.splitlines()
    assert [line for line in lines if line.startswith("status=")] == [f"status={code}" for _, code, _ in HIDDEN], (
        outcome.stdout + outcome.stderr
    )
    assert [line for line in lines if not line.startswith("status=")] == ["./t word", "./t ./u", "./T WORD", "end"]
    assert refused(outcome) == [rule for _, _, rule in HIDDEN if rule]
    assert {event["details"]["mechanism"] for event in outcome.of("bash.dangerous")} == {"exec"}
    assert outcome.stderr.count("parhelia: denied by ") == len(refused(outcome)) == counted(traced)
    assert outcome.status == 0
    assert outcome.verified == 0


ATTEMPTS = r"""
import base64, ctypes, errno, os, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
NAME = bytes((114, 109))
PATH = b"/bin/" + NAME
words = lambda *given: (ctypes.c_char_p * (len(given) + 1))(*given, None)
GONE = words(NAME, b"-rf", b"/")

def told(how, attempt):
    "What a child ended with that made the attempt."
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            status = ctypes.get_errno()
        except OSError as error:
            status = error.errno
        os._exit(status)
    print(how, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

def in_thread(attempt):
    def inside():
        attempt()
        os._exit(ctypes.get_errno())
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()

def spawn():
    os.posix_spawn(PATH, [NAME, b"-rf", b"/"], {})

def raw(number, *given):
    if libc.syscall(ctypes.c_long(number), *given) == -1:
        raise OSError(ctypes.get_errno(), "")

def vforked(flags):
    "A raw clone whose child returns here too: only without shared memory."
    pid = libc.syscall(ctypes.c_long(56), ctypes.c_long(flags), None, None, None, None)
    if pid == 0:
        libc.execve(PATH, GONE, None)
        os._exit(ctypes.get_errno())
    if pid == -1:
        raise OSError(ctypes.get_errno(), "")
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0x40000000)[1]))

def unseen():
    open("plain", "wb").write(base64.b64decode(sys.argv[1]))
    os.chmod("plain", 0o755)
    os.execv("./plain", ["plain"])

with open(PATH, "rb") as program:
    told("execve", lambda: libc.execve(PATH, GONE, None))
    told("execveat", lambda: raw(322, program.fileno(), b"", GONE, None, ctypes.c_long(0x1000)))
    told("thread", lambda: in_thread(lambda: libc.execve(PATH, GONE, None)))
    told("spawn", spawn)
    told("allowed thread", lambda: in_thread(lambda: libc.execv(b"/bin/true", words(b"true"))))
    told("clone", lambda: vforked(17))
    told("clone without a signal", lambda: vforked(0))
    told("without libc", unseen)
    told("untraced", lambda: vforked(0x800000 | 17))
    told("tracing", lambda: raw(101, 0))
    told("listening", lambda: raw(317, 1, 8, ctypes.create_string_buffer(16)))
print(len([os.waitpid(pid, 0) for pid in [os.fork() or os._exit(0) for _ in range(100)]]), flush=True)
storm = [os.posix_spawn("/bin/true", ["true"], {}) for _ in range(40)]
print({os.waitpid(pid, 0)[1] for pid in storm}, flush=True)
"""
ALLOWED = "allowed thread"
ASKED = ("execve", "execveat", "thread", "spawn", ALLOWED, "clone", "clone without a signal", "without libc")
PLAIN = r"""
.globl _start
_start: mov $59, %eax; lea path(%rip), %rdi; lea argv(%rip), %rsi; xor %edx, %edx; syscall
neg %eax; mov %eax, %edi; mov $60, %eax; syscall
path: .asciz "/bin/rm"
all: .asciz "-rf"
root: .asciz "/"
.balign 8
argv: .quad path, all, root, 0
"""


def assembled(directory: Path, source: str) -> str:
    """A program without libc, of some hundred bytes, in base64."""
    program = directory / "assembled"
    flags = ["-nostdlib", "-static", "-s", "-Wl,-N,--build-id=none", "-x", "assembler", "-", "-o", str(program)]
    subprocess.run(["gcc", *flags], input=source.encode(), check=True)
    return base64.b64encode(program.read_bytes()).decode()


def test_however_a_program_is_started_its_exec_is_decided(traced: Runtime, tmp_path: Path) -> None:
    run = 'cd "$(mktemp -d)"; printf %s "$0" > attempts.py; "$(command -v python3)" attempts.py "$1"'
    outcome = traced.run(Case(("/bin/bash", "-c", run, ATTEMPTS, assembled(tmp_path, PLAIN)), policy()))
    assert outcome.stdout.splitlines() == [
        *(f"{how} {0 if how == ALLOWED else 13}" for how in ASKED),
        *(f"{how} 1" for how in ("untraced", "tracing", "listening")),
        "100",
        "{0}",
    ], outcome.stderr
    rules = refused(outcome)
    assert rules == ["recursive-delete-system"] * (len(ASKED) - 1)


RACE = r"""
import ctypes, os, sys, threading
libc = ctypes.CDLL(None)
words = [b"harmless", b"ATTACKED"]
for turn in range(25):
    pid = os.fork()
    if pid == 0:
        word = ctypes.create_string_buffer(words[0], 9)
        name = ctypes.create_string_buffer(b"echo")
        argv = (ctypes.c_void_p * 3)(ctypes.addressof(name), ctypes.addressof(word), 0)
        go = threading.Event()
        def flip():
            go.set()
            while True:
                for one in words:
                    ctypes.memmove(word, one, 8)
        threading.Thread(target=flip, daemon=True).start()
        go.wait()
        libc.execv(b"/bin/echo", argv)
        os._exit(7)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_arguments_rewritten_after_the_check_never_run(traced: Runtime) -> None:
    run = 'cd "$(mktemp -d)"; printf %s "$0" > race.py; "$(command -v python3)" race.py' + until_pushed(traced)
    deny = "    - {id: no-attack, match: {program: echo, operands: [ATTACKED]}, severity: high, reason: attack,"
    deny += " instead: none, examples: {match: [echo ATTACKED], no_match: [echo harmless]}}\n"
    outcome = traced.run(Case(("/bin/bash", "-c", run, RACE), policy(commands=deny), env=gateway(traced)))
    ends = [int(line.split()[1]) for line in outcome.stdout.splitlines() if line.startswith("ended ")]
    assert len(ends) == 25, outcome.stdout + outcome.stderr
    assert "ATTACKED" not in outcome.stdout
    assert set(ends) <= {0, 7, -signal.SIGKILL}
    rules = refused(outcome)
    assert rules.count("exec-race") == ends.count(-signal.SIGKILL)
    assert rules.count("no-attack") == ends.count(7)
    assert counted(traced) == len(rules) > 0, "the attack was really tried, and counted"


def test_the_level_says_what_is_done_and_doctor_says_it_too(traced: Runtime) -> None:
    outcome = traced.run(Case(("/bin/true",), policy()))
    (created,) = outcome.of("session.create")
    assert created["details"]["levels"]["exec"] == "enforced"
    assert "exec is" not in outcome.stderr
    if traced.name == "gvisor":
        doctor = json.loads(traced.agent("doctor", "--json").stdout)
        assert doctor["mechanisms"]["tracing"] == "user"
        assert "ptrace" in doctor["points"]["exec"]["why"]


def test_signals_stops_and_statuses_are_the_sessions_own(traced: Runtime) -> None:
    script = """
        set -m
        sh -c 'kill -STOP $$; echo resumed' &
        n=0; until jobs -s | grep -q Stopped || [ $n -gt 300 ]; do n=$((n + 1)); sleep 0.1; done
        jobs -s | grep -c Stopped; kill -CONT %1; wait %1; echo $?
        trap 'echo caught' USR1; kill -USR1 $$
        sh -c 'kill -TERM $$'; echo $?
        sh -c 'exit 9'; echo $?
        exit 42
    """
    outcome = traced.run(Case(("/bin/bash", "-c", script), policy()))
    assert outcome.stdout.split() == ["1", "resumed", "0", "caught", "143", "9"], outcome.stderr
    assert outcome.status == 42
