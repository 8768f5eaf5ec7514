"""What an exec really runs, under the session's real filter: copies, links, memory files, the loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.enforce.commands import test_supervisor as ring
from tests.enforce.commands.test_supervisor import Supervised, compiled

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
