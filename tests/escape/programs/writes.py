"""Inside a session of test_path_audit.py: each writing call tried once on what is not granted, then a flood of opens.

Arguments: the numbers of the calls (JSON), how many opens of one path, how many of different paths. Prints, as JSON,
the errno of each call, and how many opens were refused.
"""

import ctypes
import errno
import json
import os
import struct
import sys

numbers, one, many = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
call = ctypes.CDLL(None, use_errno=True).syscall
HERE, TOOLS = -100, (b"env", b"ls", b"cat", b"id", b"wc", b"cp", b"mv", b"ln")
OWN = b"%b/own" % os.getcwd().encode()
times, attributes = struct.pack("=4Q", 1, 0, 2, 0), struct.pack("=QII", 0, 0, 0)
with open(OWN, "w"):
    pass
NEW = [b"/var/tmp/parhelia-audit-%d" % index for index in range(8)]
FILE = [b"/usr/bin/" + tool for tool in TOOLS]
arguments = {
    "open": (FILE[1], os.O_WRONLY, 0),
    "openat": (HERE, NEW[1], os.O_RDONLY | os.O_CREAT, 0o644),
    "creat": (NEW[2], 0o644),
    "truncate": (FILE[2], 0),
    "mkdir": (NEW[3], 0o755),
    "mkdirat": (HERE, NEW[4], 0o755),
    "mknod": (NEW[5], 0o010644, 0),
    "mknodat": (HERE, NEW[6], 0o010644, 0),
    "symlink": (b"x", NEW[7]),
    "symlinkat": (b"x", HERE, NEW[0]),
    "link": (OWN, NEW[1]),
    "linkat": (HERE, OWN, HERE, NEW[2], 0),
    "unlink": (FILE[3],),
    "unlinkat": (HERE, FILE[4], 0),
    "rmdir": (b"/etc",),
    "rename": (OWN, NEW[3]),
    "renameat": (HERE, FILE[5], HERE, OWN),
    "renameat2": (HERE, OWN, HERE, FILE[6], 2),
    "chmod": (FILE[7], 0o777),
    "fchmodat": (HERE, FILE[0], 0o777),
    "fchmodat2": (HERE, FILE[1], 0o777, 0),
    "chown": (FILE[2], -1, -1),
    "lchown": (FILE[3], -1, -1),
    "fchownat": (HERE, FILE[4], -1, -1, 0),
    "utime": (FILE[5], times),
    "utimes": (FILE[6], times),
    "futimesat": (HERE, FILE[7], times),
    "utimensat": (HERE, FILE[0], times, 0),
    "setxattr": (FILE[1], b"user.x", b"v", 1, 0),
    "lsetxattr": (FILE[2], b"user.x", b"v", 1, 0),
    "setxattrat": (HERE, FILE[3], 0, b"user.x", attributes, 16),
    "removexattr": (FILE[4], b"user.x"),
    "lremovexattr": (FILE[5], b"user.x"),
    "removexattrat": (HERE, FILE[6], 0, b"user.x"),
    "file_setattr": (HERE, FILE[7], bytes(24), 24, 0),
}
outcomes = {}
for name, number in numbers.items():
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments[name]]
    failed = call(ctypes.c_long(number), *words) == -1
    outcomes[name] = errno.errorcode[ctypes.get_errno()] if failed else None
refused = 0
for path in [b"/etc/passwd"] * one + [b"/etc/no-%d" % index for index in range(many)]:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    except PermissionError:
        refused += 1
print(json.dumps([outcomes, refused]))
