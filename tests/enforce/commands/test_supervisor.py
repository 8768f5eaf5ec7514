"""The exec ring against real programs, under the session's real filter."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from agent.enforce.commands.supervisor import ExecSupervisor
from agent.gate import Gate
from agent.linux import process
from agent.linux.syscalls import syscall
from agent.policy.decision import Severity
from agent.policy.model import CommandMatch, CommandRule, CommandSection, Layer, Policy, Where
from agent.record.event import EventType, Result
from agent.session.filter import FilterOptions
from tests.conftest import require
from tests.enforce.commands.filtered import GID, UID, Filtered, Finished
from tests.enforce.ring import Recorded, build_request, require_ring

TODAY = date(2026, 11, 22)


def policy() -> Policy:
    def rule(ident: str, *programs: str, operands: tuple[str, ...] = ()) -> CommandRule:
        return CommandRule(
            id=ident,
            match=CommandMatch(program=programs, operands=operands),
            where=Where("test.yaml", 1, 1),
            severity=Severity.CRITICAL,
            reason="deletes\x1b[2J the system",
            instead="delete inside the workspace",
        )

    rules = (rule("delete-system", "rm", operands=("/", "/etc/**")), rule("no-mkfs", "mkfs", "mkfs.ext4"))
    return Policy(layers=(Layer(source="test", commands=CommandSection(deny=rules)),), digest="d" * 64)


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    require_ring()


@pytest.fixture
def workspace() -> Iterator[Path]:
    """A directory that the session's user reaches; every run of pytest closes its own to others."""
    directory = Path(tempfile.mkdtemp(prefix="parhelia-exec-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@dataclass
class Supervised:
    recorded: Recorded
    run: Callable[..., Finished]
    directory: Path

    def text(self, text: str) -> Finished:
        """Run `text` through a pipe, where nobody reads it beforehand: every exec in it comes to the ring by itself."""
        self.directory.chmod(0o755)
        (self.directory / "text").write_text(text)
        return self.run("/bin/bash", "-c", "cat text | bash", cwd=self.directory)


@pytest.fixture
def supervised(workspace: Path) -> Iterator[Supervised]:
    """Runs an argv as the session, supervised by a real gate with `policy()`."""
    recorded = Recorded()
    open_sessions: list[Filtered] = []
    supervisors: list[ExecSupervisor] = []

    def run(*argv: str, cwd: Path = Path("/"), before_exec: Callable[[], None] | None = None) -> Finished:
        session = Filtered(list(argv), cwd=cwd, before_exec=before_exec)
        open_sessions.append(session)
        supervisor = supervise(session, recorded)
        supervisors.append(supervisor)
        session.go()
        return session.finish()

    os.chown(workspace, UID, GID)
    yield Supervised(recorded, run, workspace)
    for supervisor in supervisors:
        supervisor.stop()
    for session in open_sessions:
        session.close()


def supervise(session: Filtered, recorded: Recorded, **options: object) -> ExecSupervisor:
    in_force = policy()
    gate = options.pop("gate", None) or Gate(lambda: in_force, recorded, "session:test")
    supervisor = ExecSupervisor(
        session.listener,
        gate,  # type: ignore[arg-type]
        build_request,
        session_uid=UID,
        session_gid=GID,
        actor="session:test",
        post=recorded.post,
        in_force=options.pop("in_force", lambda: in_force),  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )
    supervisor.start()
    return supervisor


def compiled(directory: Path, name: str, source: str, *flags: str) -> Path:
    require(shutil.which("gcc"), "gcc")
    program = directory / name
    subprocess.run(
        ["gcc", "-O1", "-x", "c", "-", "-o", program, "-lpthread", *flags], input=source.encode(), check=True
    )
    return program


def script(directory: Path, name: str, text: str, mode: int = 0o755) -> Path:
    path = directory / name
    path.write_text(text)
    path.chmod(mode)
    return path


def test_an_ordinary_command_runs_and_leaves_no_record(supervised: Supervised) -> None:
    finished = supervised.run("/bin/sh", "-c", "/bin/echo hello; /usr/bin/env true && echo fine")
    assert finished == Finished(0, "hello\nfine\n", "")
    assert supervised.recorded.events == []


def test_a_refused_command_ends_with_126_says_why_once_and_is_recorded_once(supervised: Supervised) -> None:
    finished = supervised.text("rm -rf /; echo $?")
    assert finished.out == "126\n"
    ours = [line for line in finished.err.splitlines() if line.startswith("parhelia:")]
    assert ours == ["parhelia: denied by delete-system: deletes\\x1b[2J the system. delete inside the workspace"]
    (event,) = supervised.recorded.events
    assert (event.type, event.result) == (EventType.BASH_DANGEROUS, Result.DENIED)
    assert event.resource == "rm -rf /"
    assert event.details["mechanism"] == "exec"
    assert event.details["uid"] == UID
    assert event.details["argv"] == ["rm", "-rf", "/"]


def test_asking_again_by_the_same_path_is_recorded_again(supervised: Supervised) -> None:
    supervised.text("/bin/rm -rf /; /bin/rm -rf /")
    assert supervised.recorded.rules() == ["delete-system", "delete-system"]


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("a link of another name", "ln -s /bin/rm harmless; ./harmless -rf /etc/x"),
        ("a relative path", "cd /usr; ./bin/rm -rf /"),
        ("a path with dots", "/usr/bin/../../bin/rm -rf /"),
        ("a lying argv[0]", "exec -a harmless /bin/rm -rf /"),
        ("an interpreter line", "printf '#!/bin/rm -rf\\n' > s; chmod +x s; ./s /etc/x"),
        (
            "an interpreter of an interpreter",
            "printf '#!/bin/rm\\n' > a; printf '#!./a\\n' > b; chmod +x a b; ./b /etc/x",
        ),
        ("the open file of a descriptor", "exec 9</bin/rm; /proc/self/fd/9 -rf /"),
        ("the same through /dev/fd", "exec 9</bin/rm; /dev/fd/9 -rf /"),
        ("through the root link of proc", "/proc/self/root/bin/rm -rf /"),
        ("a name that decides the meaning", "ln -s /bin/echo mkfs.ext4; ./mkfs.ext4 /dev/null"),
    ],
)
def test_a_refused_program_stays_refused_behind(supervised: Supervised, what: str, command: str) -> None:
    finished = supervised.text(command)
    assert finished.status == 126, finished
    assert set(supervised.recorded.rules()) <= {"delete-system", "no-mkfs"}
    assert supervised.recorded.events


EXECVEAT = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char *kill_all[] = {"rm", "-rf", "/", 0}, *say[] = {"echo", "ran", 0}, *env[] = {0};
    int directory = open("/usr/bin", O_PATH), file = open("/usr/bin/rm", O_PATH);
    syscall(SYS_execveat, directory, "rm", kill_all, env, 0);
    printf("relative %d\\n", errno);
    syscall(SYS_execveat, file, "", kill_all, env, 0x1000);
    printf("descriptor %d\\n", errno);
    syscall(SYS_execveat, file, "", kill_all, env, 0);
    printf("no flag %d\\n", errno);
    syscall(SYS_execveat, 77, "rm", kill_all, env, 0);
    printf("closed %d\\n", errno);
    syscall(SYS_execve, "/no/such", say, env);
    printf("missing %d\\n", errno);
    syscall(SYS_execve, "/usr/bin", say, env);
    printf("directory %d\\n", errno);
    fflush(stdout);
    syscall(SYS_execveat, open("/usr/bin/echo", O_PATH), "", say, env, 0x1000);
    return 1;
}
"""


def test_execveat_is_decided_by_its_descriptor_and_errors_are_the_kernels(
    supervised: Supervised, workspace: Path
) -> None:
    finished = supervised.run(str(compiled(workspace, "execveat", EXECVEAT)))
    assert finished.out.splitlines() == [
        f"relative {errno.EACCES}",
        f"descriptor {errno.EACCES}",
        f"no flag {errno.ENOENT}",
        f"closed {errno.EBADF}",
        f"missing {errno.ENOENT}",
        f"directory {errno.EACCES}",
        "ran",
    ]
    assert supervised.recorded.rules() == ["delete-system", "delete-system"]


def test_scripts_of_all_shapes_run(supervised: Supervised, workspace: Path) -> None:
    shapes = {
        "plain": "#!/bin/sh\necho $0 $1\n",
        "blank": "#!  /bin/sh  -e  \necho $0 $1\n",
        "env": "#!/usr/bin/env sh\necho $0 $1\n",
        "nested": "#!./plain\n",
    }
    for name, text in shapes.items():
        script(workspace, name, text)
    finished = supervised.run("/bin/sh", "-c", "for i in plain blank env nested; do ./$i word; done", cwd=workspace)
    assert finished.out == "./plain word\n./blank word\n./env word\n./plain ./nested\n"
    assert (finished.status, supervised.recorded.events) == (0, [])


def test_memory_that_cannot_be_read_is_denied_and_recorded(supervised: Supervised) -> None:
    finished = supervised.run("/bin/true", before_exec=lambda: process.set_dumpable(False))
    assert finished.status == 126
    assert supervised.recorded.rules() == ["exec-unreadable"]


WILD = """
#include <stdio.h>
#include <errno.h>
#include <string.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/mman.h>
#include <unistd.h>
static void try(const char *what, const void *path, const void *argv) {
    errno = 0;
    syscall(SYS_execve, path, argv, 0);
    printf("%s %d\\n", what, errno);
}
int main(void) {
    char *none[] = {0}, *wild[] = {(char *)8, 0}, *kernel[] = {(char *)0xffffffff81000000, 0};
    try("path", (void *)16, none);
    try("no argv", "/bin/true", 0);
    try("empty argv", "/bin/true", none);
    try("wild argument", "/bin/true", wild);
    try("kernel argument", "/bin/true", kernel);
    try("wild argv", "/bin/true", (void *)0x7ffffffff000);
    size_t n = 1 << 20;
    char **many = malloc((n + 1) * sizeof *many);
    for (size_t i = 0; i < n; i++) many[i] = "a";
    many[n] = 0;
    try("too many", "/bin/true", many);
    char *big = malloc(1 << 18);
    memset(big, 'a', (1 << 18) - 1);
    big[(1 << 18) - 1] = 0;
    char *one[] = {"true", big, 0};
    try("too long", "/bin/true", one);
    return 0;
}
"""


def test_arguments_that_cannot_be_read_whole_are_denied(supervised: Supervised, workspace: Path) -> None:
    finished = supervised.run(str(compiled(workspace, "wild", WILD)))
    lines = finished.out.splitlines()
    assert [line.rpartition(" ")[0] for line in lines] == [
        "path", "no argv", "empty argv", "wild argument", "kernel argument", "wild argv", "too many", "too long"
    ]  # fmt: skip
    assert {line.rpartition(" ")[2] for line in lines} == {str(errno.EACCES)}
    assert supervised.recorded.rules() == ["exec-unreadable"] * 8


def test_a_supervisor_without_cap_sys_ptrace_reads_by_the_sessions_user(workspace: Path) -> None:
    """As root in Docker: the capability is dropped in a child that supervises."""
    text = script(workspace, "text", "/bin/echo seen; $(id -u | sed s/.*/rm/) -rf /")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _drop_ptrace()
            recorded, session = Recorded(), Filtered(["/bin/sh", str(text)])
            supervisor = supervise(session, recorded)
            session.go()
            finished = session.finish()
            supervisor.stop()
            right = finished.out == "seen\n" and finished.status == 126 and recorded.rules() == ["delete-system"]
            told = "parhelia: denied by delete-system" in finished.err
            status = 0 if right and told else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _drop_ptrace() -> None:
    import struct

    kept = sum(
        1 << n for n in process.capabilities() if n not in (process.Capability.SYS_PTRACE, process.Capability.SYS_ADMIN)
    )
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("=Ii", process.CAPABILITY_VERSION_3, 0)
    syscall("capset", header, struct.pack("=6I", low, low, 0, high, high, 0))
    assert process.Capability.SYS_PTRACE not in process.capabilities()


@pytest.mark.parametrize(("mode", "written"), [(os.O_WRONLY | os.O_APPEND, True), (os.O_RDONLY, False)])
def test_the_line_goes_only_to_what_the_task_holds_open_for_writing(workspace: Path, mode: int, written: bool) -> None:
    target = script(workspace, "target", "", 0o666)

    def redirect() -> None:
        os.dup2(os.open(target, mode), 2)

    session = Filtered(["/bin/rm", "-rf", "/"], before_exec=redirect)
    supervisor = supervise(session, Recorded())
    session.go()
    session.finish()
    supervisor.stop()
    session.close()
    assert ("denied by delete-system" in target.read_text()) is written


def test_latencies_are_reported_for_every_exec() -> None:
    seconds: list[float] = []
    session = Filtered(["/bin/sh", "-c", "/bin/true; /bin/true"], options=FilterOptions(True, False, False))
    supervisor = supervise(session, Recorded(), observe=seconds.append)
    session.go()
    session.finish()
    supervisor.stop()
    session.close()
    assert len(seconds) >= 3
    assert all(value > 0 for value in seconds)
