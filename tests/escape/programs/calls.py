"""Inside a session of test_calls.py: system calls by their numbers, each in a child of its own.

Argument: JSON, `calls` a list of (number, arguments). Prints, as JSON, for each its errno's name, null where it worked,
or minus the signal that killed it; the same for `int 0x80`, an x32 number, a filter of the session's own and Landlock.
"""

import ctypes
import errno
import functools
import json
import mmap
import os
import sys

call = ctypes.CDLL(None, use_errno=True).syscall
call.restype = ctypes.c_long


def raw(number, *words):
    return call(ctypes.c_long(number), *[ctypes.c_long(word) for word in words])


def outcome(piece):
    """As above, of `piece` in a child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        failed = piece() == -1
        os.write(writing, json.dumps(errno.errorcode.get(ctypes.get_errno()) if failed else None).encode())
        os._exit(0)
    os.close(writing)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = os.read(reading, 100)
    os.close(reading)
    return json.loads(said) if status == 0 else status


def i386():
    """getpid of i386, by machine code: mov eax, 20; int 0x80; ret."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()


def own_filter(number):
    """A filter of one instruction, which allows everything, without a listener."""
    allow = ctypes.create_string_buffer(b"\x06\x00\x00\x00\x00\x00\xff\x7f")
    program = ctypes.create_string_buffer(16)
    ctypes.c_ushort.from_buffer(program, 0).value = 1
    ctypes.c_void_p.from_buffer(program, 8).value = ctypes.addressof(allow)
    return raw(number, 1, 0, ctypes.addressof(program))


asked = json.loads(sys.argv[1])
found = [outcome(functools.partial(raw, number, *words)) for number, words in asked["calls"]]
intel = os.uname().machine == "x86_64"
print(
    json.dumps(
        {
            "calls": found,
            "i386": outcome(i386) if intel else None,
            "x32": outcome(lambda: raw(0x40000000 | 39)) if intel else None,
            "own filter": outcome(lambda: own_filter(asked["seccomp"])),
            "landlock": outcome(lambda: raw(asked["landlock"], 0, 0, 1)),
        }
    )
)
