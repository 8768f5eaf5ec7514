"""What an exec really runs, under the session's real filter: copies, links, memory files, the loader."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.gate import Gate
from agent.linux.syscalls import Arch, native
from agent.policy.decision import Decision
from agent.policy.request import CommandRequest
from tests.conftest import require
from tests.enforce.commands import test_supervisor as ring
from tests.enforce.commands.filtered import Filtered
from tests.enforce.commands.meanwhile import PIECES, Meanwhile
from tests.enforce.commands.test_supervisor import Supervised, compiled, supervise
from tests.enforce.ring import Recorded

supervised = ring.supervised
workspace = ring.workspace
_needs_root = ring._needs_root

LOADER = "/lib64/ld-linux-x86-64.so.2"


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("a copy", "cp /bin/rm x; ./x -rf /etc/x"),
        ("a copy of a copy under a third name", "cp /bin/rm x; exec -a y ./x -rf /etc/x"),
        ("a copy with bytes appended", "cp /bin/rm x; echo pad >> x; ./x -rf /etc/x"),
        ("a renamed copy", "cp /bin/rm x; mv x z; ./z -rf /etc/x"),
        ("a symlink to a copy", "cp /bin/rm x; ln -s x y; ./y -rf /etc/x"),
        ("a deleted copy", "cp /bin/rm x; exec 9<x; /bin/rm x; /proc/self/fd/9 -rf /etc/x"),
        ("a copy as an interpreter", "cp /bin/rm x; printf '#!./x -rf\\n' > s; chmod +x s; ./s /etc/x"),
        ("the loader", f"{LOADER} /bin/rm -rf /etc/x"),
        ("the loader with options", f"{LOADER} --library-path /lib /bin/rm -rf /etc/x"),
        ("the loader and a copy", f"cp /bin/rm x; {LOADER} ./x -rf /etc/x"),
        ("a copy of the loader and of the program", f"cp {LOADER} l; cp /bin/rm x; ./l ./x -rf /etc/x"),
        ("the loader of the loader", f"cp /bin/rm x; {LOADER} {LOADER} ./x -rf /etc/x"),
        ("the loader along its library path", f"cp /bin/rm x; {LOADER} --library-path $PWD x -rf /etc/x"),
        ("the loader as an interpreter", f"cp /bin/rm x; printf '#!{LOADER} ./x\\n' > s; chmod +x s; ./s -rf /etc/x"),
    ],
)
def test_a_refused_program_stays_refused_as(supervised: Supervised, what: str, command: str) -> None:
    finished = supervised.text(command)
    assert finished.status == 126, finished
    assert supervised.recorded.rules() == ["delete-system"]


MEMORY_FILE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    char *args[] = {"harmless", "-rf", "/etc/x", 0}, *env[] = {0};
    int from = open("/bin/rm", O_RDONLY), to = memfd_create("note", 0);
    struct stat status;
    fstat(from, &status);
    sendfile(to, from, 0, status.st_size);
    syscall(SYS_execveat, to, "", args, env, AT_EMPTY_PATH);
    printf("%d\\n", errno);
    fexecve(to, args, env);
    printf("%d\\n", errno);
    return 0;
}
"""


def test_a_program_in_memory_only_is_what_it_holds(supervised: Supervised, workspace: Path) -> None:
    finished = supervised.run(str(compiled(workspace, "memory", MEMORY_FILE)))
    assert finished.out.split() == ["13", "13"], finished
    assert supervised.recorded.rules() == ["delete-system", "delete-system"]
    exe = supervised.recorded.events[0].details["exe"]
    assert exe == "/memfd:note (deleted)"


def test_copies_of_harmless_programs_run(supervised: Supervised) -> None:
    finished = supervised.text(f"cp /bin/echo x; ./x one; ln x y; ./y two; {LOADER} ./x three; {LOADER} --version >v")
    assert (finished.out, supervised.recorded.events) == ("one\ntwo\nthree\n", []), finished


REWRITTEN = (
    f"""
#define _GNU_SOURCE
{PIECES}"""
    + """
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
static char *content, *place;
static struct stat status;
static void *rewrite(void *_) {
    wait_for_the_word();
    int to = open("x", O_RDWR | O_TRUNC);
    ftruncate(to, status.st_size);
    if (%d) {
        char *map = mmap(0, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
        memcpy(map, content, status.st_size);
        munmap(map, status.st_size);
    } else write(to, content, status.st_size);
    close(to);
    changed();
    return 0;
}
int main(int argc, char **argv) {
    pthread_t t;
    char *args[] = {"x", "-rf", "/etc/x", 0};
    int from = open("/bin/rm", O_RDONLY);
    fstat(from, &status);
    content = malloc(status.st_size);
    read(from, content, status.st_size);
    pthread_create(&t, 0, rewrite, 0);
    announce();
    execv("./x", args);
    return 3;
}
"""
)


class LetsItChange(Gate):
    """Has the file rewritten between check and exec."""

    def __init__(self, recorded: Recorded, meanwhile: Meanwhile) -> None:
        super().__init__(ring.policy, recorded, "session:test")
        self._meanwhile = meanwhile

    def check(self, request: CommandRequest, /) -> Decision:  # type: ignore[override]
        decision = super().check(request)
        self._meanwhile.happens()
        return decision


@pytest.mark.parametrize("mapped", [0, 1])
def test_a_file_rewritten_in_place_while_the_decision_is_made_is_killed_and_recorded(
    workspace: Path, mapped: int
) -> None:
    require(native() is Arch.X86_64, "arch_prctl, which only x86-64 has")
    os.chown(workspace, ring.UID, ring.GID)
    shutil.copy("/bin/true", workspace / "x")
    os.chown(workspace / "x", ring.UID, ring.GID)
    program, recorded, meanwhile = compiled(workspace, "rewrites", REWRITTEN % mapped), Recorded(), Meanwhile()
    session = Filtered([str(program)], cwd=workspace, before_exec=meanwhile.hand_over)
    supervisor = supervise(session, recorded, gate=LetsItChange(recorded, meanwhile))
    session.go()
    finished = session.finish()
    supervisor.stop()
    session.close()
    meanwhile.close()
    assert (finished.status, recorded.rules()) == (-9, ["exec-race"]), finished


def test_a_program_of_the_sessions_own_that_is_replaced_and_removed_meanwhile_runs(supervised: Supervised) -> None:
    """What changes a file's times without making it another program of the machine's is no race."""
    text = "for i in 1 2 3 4 5 6; do cp /bin/echo x; ./x $i & /bin/rm x; wait; done"
    finished = supervised.text(text)
    assert (finished.status, supervised.recorded.events) == (0, [])
