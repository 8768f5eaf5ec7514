"""Attacks from inside a session on what is outside of it: the agent's processes and files, the machine's files and
sockets, and what an earlier session left for a later one.

Each test runs one session that tries many things and prints what came of each.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escape.conftest import RUNTIMES
from tests.escape.runtime import Case, Host, Outcome, Runtime, policy

TRY = r"""
import ctypes, json, os, resource, signal, socket, sys
found = {}
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, act):
    try:
        found[name] = f"succeeded: {act()!r}"
    except (OSError, ValueError) as error:
        found[name] = type(error).__name__
def call(number, *arguments):
    answer = libc.syscall(number, *arguments)
    if answer == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return answer
"""

ON_PROCESSES = (
    TRY
    + r"""
PRIVATE = "environ mem fd root cwd maps exe map_files io syscall auxv ns/net ns/mnt pagemap fdinfo stack".split()
def look(path):
    if os.path.basename(path) in ("root", "cwd", "exe", "net", "mnt"):
        return os.readlink(path)
    return os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
agents = []
for entry in os.listdir("/proc"):
    if entry.isdigit() and int(entry) != os.getpid():
        argv = open(f"/proc/{entry}/cmdline").read().split("\0")
        modules = "agent.daemon.keeper agent.daemon.guard agent.enforce.egress.main agent.session.launch".split()
        if any(word in argv for word in modules):
            agents.append(int(entry))
for pid in agents:
    for name in PRIVATE:
        attempt(f"{name} {pid}", lambda: look(f"/proc/{pid}/{name}"))
    for number in (0, signal.SIGSTOP, signal.SIGKILL, signal.SIGURG):
        attempt(f"kill {number} {pid}", lambda: os.kill(pid, number))
    attempt(f"prlimit {pid}", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)))
    attempt(f"scheduler {pid}", lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)))
    attempt(f"affinity {pid}", lambda: os.sched_setaffinity(pid, {0}))
    attempt(f"priority {pid}", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    attempt(f"ioprio {pid}", lambda: call(251, 1, pid, 3 << 13))
    attempt(f"getfd {pid}", lambda: call(438, os.pidfd_open(pid), 0, 0))
    attempt(f"pidfd signal {pid}", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL))
    attempt(f"ptrace {pid}", lambda: call(101, 16, pid, 0, 0))
    word = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(word), 8)
    attempt(f"read memory {pid}", lambda: call(310, pid, vector, 1, vector, 1, 0))
    attempt(f"write memory {pid}", lambda: call(311, pid, vector, 1, vector, 1, 0))
print(json.dumps([len(agents), found]))
"""
)


def session_user() -> pwd.struct_passwd:
    return pwd.getpwnam("session")


def succeeded(found: dict[str, str]) -> dict[str, str]:
    return {name: what for name, what in found.items() if what.startswith("succeeded")}


@pytest.mark.parametrize("runtime", RUNTIMES[:2], indirect=True)
def test_no_process_of_the_agent_can_be_read_signalled_starved_or_traced(runtime: Runtime) -> None:
    """With a process namespace the session sees only its init; without one (Docker) the other three as well."""
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", ON_PROCESSES), policy()))
    agents, found = json.loads(outcome.stdout)
    assert agents == 1 if runtime.name == "host" else agents >= 4  # and a fork of the guard's now and then
    assert len(found) == agents * 30, len(found)
    assert succeeded(found) == {}
    assert (outcome.status, outcome.verified) == (0, 0)


def test_the_agents_secrets_are_in_no_place_that_the_session_sees(runtime: Runtime) -> None:
    script = (
        "import os; print(sorted(os.listdir('/proc/self/fd'))); print(open('/proc/self/environ').read())\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    for name in ('cmdline', 'environ'):\n"
        "        try: text = open(f'/proc/{pid}/{name}').read()\n"
        "        except OSError: continue\n"
        "        if 'upstream.py' in text: break\n"  # a stand-in: older gVisor shows all environs
        "        print(text)\n"
    )
    env = {"SECRET_TOKEN": "s3cr3t-token", "PARHELIA_PUSHGATEWAY_URL": "http://u:s3cr3t-url@127.0.0.1:9/"}
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", script), policy(), env=env))
    assert outcome.stdout.startswith("['0', '1', '2', '3']\n"), outcome.stderr
    assert "s3cr3t" not in outcome.stdout


@pytest.fixture
def left_behind() -> Iterator[Path]:
    """A directory of root's with one in it that belongs to the session's account, as an earlier session leaves it."""
    directory = Path(f"/var/tmp/parhelia-attack-{os.getpid()}")
    directory.mkdir(mode=0o755)
    (directory / "work").mkdir()
    os.chown(directory / "work", session_user().pw_uid, session_user().pw_gid)
    yield directory
    shutil.rmtree(directory)


def plant(link: Path, target: Path) -> None:
    link.symlink_to(target)
    os.chown(link, session_user().pw_uid, session_user().pw_gid, follow_symlinks=False)


@pytest.mark.parametrize("grant", ["trap/inner/root", "trap", "trap/kept"])
def test_a_link_left_by_an_earlier_session_does_not_lead_a_grant_elsewhere(
    host: Host, left_behind: Path, grant: str
) -> None:
    victim = left_behind / "victim"
    (victim / "kept").mkdir(parents=True)
    plant(left_behind / "work" / "trap", victim)
    outcome = host.run(Case(("/bin/true",), policy(write=f"{left_behind}/work/{grant}")))
    assert outcome.status == 4
    assert f"{left_behind}/work/trap, a link that the session's user made" in outcome.stderr
    assert [path.name for path in victim.iterdir()] == ["kept"]
    assert (victim / "kept").stat().st_uid == 0
    assert outcome.of("session.create") == []


@pytest.mark.parametrize("place", ["audit", "policies"])
def test_a_log_or_policy_that_the_session_could_replace_is_refused(host: Host, left_behind: Path, place: str) -> None:
    parent = left_behind / "work" / "agents"
    parent.mkdir()
    setattr(host, place, parent / place)
    outcome = host.run(Case(("/bin/true",), policy(write=f"{left_behind}/work")))
    assert outcome.status == 4
    assert f"may rename or replace {parent}" in outcome.stderr
    assert outcome.events == ()


def test_sockets_of_the_machine_cannot_be_reached_wherever_they_lie(host: Host) -> None:
    paths = [f"{where}/parhelia-attack-{os.getpid()}.sock" for where in ("/tmp", "/var/tmp", "/dev/shm")]
    names = [*paths, f"\0parhelia-attack-{os.getpid()}"]
    servers = [socket.socket(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for _ in names]
    try:
        served = [*names, *(f"{name}.d" for name in names)]
        for server, name in zip(servers, served, strict=True):
            server.bind(name)
            if name[0] == "/":
                os.chmod(name, 0o666)
            if server.type == socket.SOCK_STREAM:
                server.listen(1)
        script = (
            TRY + "for name in json.loads(sys.argv[1]):\n"
            "    kind = socket.SOCK_DGRAM if name.endswith('.d') else socket.SOCK_STREAM\n"
            "    attempt(name, lambda: socket.socket(socket.AF_UNIX, kind).connect(name))\n"
            "print(json.dumps(found))\n"
        )
        outcome = host.run(Case(("/usr/bin/python3", "-c", script, json.dumps(served)), policy()))
        found = json.loads(outcome.stdout)
        assert len(found) == len(served)
        assert succeeded(found) == {}
    finally:
        for server in servers:
            server.close()
        for path in paths:
            for name in (path, f"{path}.d"):
                Path(name).unlink(missing_ok=True)


ON_PATHS = (
    TRY
    + r"""
open_file, theirs, own = sys.argv[1:4]
def reopened():
    held = os.open(open_file, os.O_PATH)
    return os.open(f"/proc/self/fd/{held}", os.O_RDWR)
def through_a_link():
    os.symlink(open_file, os.environ["TMPDIR"] + "/link")
    return open(os.environ["TMPDIR"] + "/link").read()
def below_directory(path):
    at = os.open(os.path.dirname(path), os.O_PATH)
    return os.open(os.path.basename(path), os.O_RDONLY, dir_fd=at)
attempt("read", lambda: open(open_file).read())
attempt("write", lambda: open(open_file, "w"))
attempt("truncate", lambda: os.truncate(open_file, 0))
attempt("reopen", reopened)
attempt("symlink", through_a_link)
attempt("openat", lambda: below_directory(open_file))
attempt("/proc/self/root", lambda: open("/proc/self/root" + open_file).read())
attempt("/proc/self/cwd", lambda: open("/proc/self/cwd/../" + open_file).read())
attempt("hard link out", lambda: os.link(open_file, os.environ["TMPDIR"] + "/hard"))
attempt("rename out", lambda: os.rename(theirs, os.environ["TMPDIR"] + "/moved"))
attempt("unlink", lambda: os.unlink(theirs))
attempt("mkdir", lambda: os.mkdir(own + "/new"))
attempt("list /", lambda: os.listdir("/"))
attempt("own memory", lambda: open("/proc/self/mem", "r+b"))
attempt("oom score", lambda: os.close(os.open("/proc/self/oom_score_adj", os.O_WRONLY)))
attempt("core pattern", lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
attempt("sysrq", lambda: os.open("/proc/sysrq-trigger", os.O_WRONLY))
for flags in (0x10000000, 0x20000, 0x40000000, 0x20000000):
    attempt(f"unshare {flags:x}", lambda: call(272, flags))
attempt("mount", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0))
attempt("open_tree", lambda: call(428, -100, b"/", 1))
attempt("open_by_handle_at", lambda: call(304, 0, 0, 0))
attempt("io_uring", lambda: call(425, 4, 0))
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("setuid", lambda: os.setuid(0))
attempt("kill all others", lambda: os.kill(int(sys.argv[4]), 0))
print(json.dumps(found))
"""
)


def test_no_path_leads_out_of_the_grants(host: Host, left_behind: Path) -> None:
    user = session_user()
    open_file, own = left_behind / "open", left_behind / "work"
    open_file.write_text("secret")
    open_file.chmod(0o666)
    (own / "file").write_text("theirs")
    os.chown(own / "file", user.pw_uid, user.pw_gid)
    argv = (str(open_file), str(own / "file"), str(own), str(os.getpid()))
    outcome = host.run(Case(("/usr/bin/python3", "-c", ON_PATHS, *argv), policy()))
    assert outcome.status == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert len(found) == 28
    assert succeeded(found) == {}
    assert open_file.read_text() == "secret"


def test_what_the_session_leaves_in_its_tmpdir_is_removed_however_deep(host: Host) -> None:
    script = (
        "import os; print(os.environ['TMPDIR']); os.chdir(os.environ['TMPDIR']); os.symlink('/etc', 'etc')\n"
        "for _ in range(1500): os.mkdir('d'); os.chdir('d')\n"
    )
    outcome = host.run(Case(("/usr/bin/python3", "-c", script), policy()))
    assert outcome.status == 0, outcome.stderr
    assert not Path(outcome.stdout.strip()).exists()
    assert Path("/etc/passwd").exists()


CALLS = {
    "surrogate": {"tool_name": "Bash", "tool_input": {"command": "rm -rf / \ud800"}},
    "escape": {"tool_name": "Bash", "tool_input": {"command": 'rm -rf / \x1b]0;x\x07\n{"seq": 1}\u202e'}},
    "identifier": {"tool_name": "Bash", "tool_input": {"command": "rm -rf /"}, "tool_use_id": "\x1b[2J\n\ud800"},
    "path": {"tool_name": "Write", "tool_input": {"file_path": "/etc/\ud800\x1b[2J"}},
    "url": {"tool_name": "WebFetch", "tool_input": {"url": "http://a\ud800.test/\x1b"}},
    "no command": {"tool_name": "Bash", "tool_input": {}},
    "no tool": {"tool_input": {}},
}
ASK = r"""
import json, socket, sys
for message in [*map(json.dumps, json.loads(sys.argv[1])), "[" * 100_000, "[]", "{", None]:
    with socket.socket(socket.AF_UNIX) as hook:
        hook.connect(sys.argv[2])
        hook.sendall(b"parhelia-hook 1 claude-code\n" + message.encode() if message else b'{"protocol": 1}')
        hook.shutdown(socket.SHUT_WR)
        print(hook.makefile("rb").read()[:4] == b"PH\1\0")
"""


def test_every_refused_call_of_the_hook_is_one_line_of_the_log_and_none_acts_on_a_terminal(host: Host) -> None:
    argv = ("/usr/bin/python3", "-c", ASK, json.dumps([*CALLS.values()]), "/run/parhelia/hook.sock")
    outcome = host.run(Case(argv, policy()))
    assert outcome.stdout.split() == ["False"] * (len(CALLS) + 4), outcome.stderr
    denied = [event for event in outcome.events if event["result"] == "denied"]
    assert sum(event["details"].get("count", 1) for event in denied) == len(CALLS) + 4
    assert {event["details"]["rule"] for event in denied} == {
        "recursive-delete-system",
        "agent-fault",
        "hook-malformed",
    }
    tail = host.agent("audit", "tail", str(host.audit)).stdout
    assert [line for line in tail.splitlines() if not line.isprintable()] == []
    assert outcome.verified == 0


def test_a_flood_of_refused_execs_is_recorded_whole_and_the_session_goes_on(host: Host) -> None:
    script = (
        "import os\n"
        "for n in range(300):\n"
        "    if not os.fork():\n"
        "        try: os.execv('/bin/r' 'm', ['r' 'm', '-r' 'f', f'/etc/{n}\\x1b[2J\\n'])\n"
        "        except PermissionError: os._exit(0)\n"
        "    os.wait()\n"
        "print('on')\n"
    )
    outcome: Outcome = host.run(Case(("/usr/bin/python3", "-c", script), policy()))
    assert (outcome.status, outcome.stdout) == (0, "on\n"), outcome.stderr[-500:]
    counted = [event["details"].get("count", 1) for event in outcome.of("bash.dangerous")]
    assert sum(counted) == 300
    assert outcome.verified == 0
