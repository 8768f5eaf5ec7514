"""Acts against the exec ring, of `paths.py`: programs that no grant or rule allows; run by `kit.py`, see there."""

import ctypes
import mmap
import os
import shutil
import struct

from kit import GRANTED, LIBC, VICTIM, VICTIMS, attack, call, dangerous, own, runs, secret_in


@attack()
def shell_builtins():
    return secret_in(runs("/bin/bash", "-c", 'mapfile -t x < "$1"; echo "${x[0]}"; echo + >> "$1"', "bash", VICTIM))


@attack(control=lambda: runs("/bin/true"))
def ungranted_program():
    return runs(VICTIMS + "/open/program")


@attack(control=lambda: shutil.copy("/bin/echo", "/tmp/parhelia-attack-echo") and runs("/tmp/parhelia-attack-echo"))
def copied_program():
    path = f"{GRANTED}/harmless-name"
    shutil.copy(shutil.which("rm"), path)
    return runs(path, *dangerous("copied-program")[1:])


@attack()
def program_in_shared_memory():
    path = f"/dev/shm/parhelia-attack-{os.getpid()}"
    shutil.copy(shutil.which("rm"), path)
    try:
        return runs(path, *dangerous("program-in-shared-memory")[1:])
    finally:
        os.unlink(path)


@attack(control=lambda: in_memory("echo"))
def program_in_memory():
    return in_memory(*dangerous("program-in-memory"))


def in_memory(name, *arguments):
    held = os.memfd_create("note")
    with open(shutil.which(name), "rb") as program:
        os.write(held, program.read())
    return runs(f"/proc/self/fd/{held}", *arguments, pass_fds=(held,))


@attack(control=lambda: runs("/lib64/ld-linux-x86-64.so.2", "/bin/echo"))
def loader():
    return runs("/lib64/ld-linux-x86-64.so.2", shutil.which("rm"), *dangerous("loader")[1:])


@attack()
def loader_of_an_ungranted_program():
    return runs("/lib64/ld-linux-x86-64.so.2", VICTIMS + "/open/mapped")


@attack()
def preloaded_library():
    loading = {"LD_PRELOAD": own("library.so"), "LD_LIBRARY_PATH": GRANTED}
    return runs(*dangerous("preloaded-library"), env={"PATH": os.environ["PATH"], **loading})


@attack(control=lambda: runs("/bin/bash", "-c", "true"))
def file_that_bash_reads_first():
    first = own("first.sh", " ".join(dangerous("file-that-bash-reads-first")) + "\n")
    return runs("/bin/bash", "-c", "true", env={"PATH": os.environ["PATH"], "BASH_ENV": first})


@attack()
def forged_environment():
    forged = dict.fromkeys(("PARHELIA_IN_SESSION", "PARHELIA_DISABLE", "PARHELIA_SESSION_ID", "PARHELIA_RUN_DIR"), "1")
    return runs(*dangerous("forged-environment"), env=os.environ | forged | {"PARHELIA_POLICY_DIR": GRANTED})


@attack(control=lambda: runs("sh", "-c", "true"))
def shell_without_a_terminal():
    return runs("sh", "-c", " ".join(dangerous("shell-without-a-terminal")))


@attack()
def words_that_cannot_be_read():
    """execve with words in memory that only their own process can read (memfd_secret(2)); where there is none, with an
    argv that nobody can."""
    rm = shutil.which("rm").encode()
    words = [word.encode() + b"\0" for word in dangerous("secret-memory")]
    try:
        held = call(447, 0)
    except OSError:
        page = mmap.mmap(-1, 8192)
        place = ctypes.addressof(ctypes.c_char.from_buffer(page))
        LIBC.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(4096), 0)
        call(59, rm, place, 0)
        return
    os.ftruncate(held, 4096)
    page = mmap.mmap(held, 4096)
    page.write(b"".join(words))
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    starts = [place + len(b"".join(words[:number])) for number in range(len(words))]
    call(59, rm, (ctypes.c_void_p * (len(starts) + 1))(*starts, None), 0)


@attack()
def own_filter():
    """A filter of the session's own, which the supervisor's may not be overruled by."""
    LIBC.prctl(38, 1, 0, 0, 0)
    program = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # return ALLOW
    place = ctypes.create_string_buffer(program)
    call(317, 1, 0, struct.pack("=HxxxxxxQ", 1, ctypes.addressof(place)))
    return runs(*dangerous("own-filter"))
