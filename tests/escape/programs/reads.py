"""Inside a session of test_read_audit.py: every way to read a file that the session may not read, then many opens.

Arguments: the files (JSON: name to path), how many opens by each of four threads. Prints one JSON object: what each
way ended with for each file (an errno's name, or what was read), what listing the directories ended with, what could be
seen of the files without opening them, and how many opens of the flood were refused.
"""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

files, many = json.loads(sys.argv[1]), int(sys.argv[2])
call = ctypes.CDLL(None, use_errno=True).syscall
TMPDIR = os.environ["TMPDIR"]


def mapped(path):
    with open(path, "rb") as file:
        return bytes(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


def by_place(path):
    place = os.open(path, os.O_PATH)
    return Path(f"/proc/self/fd/{place}").read_bytes()


def by_thread_directory(path):
    directory, _, name = path.rpartition("/")
    at = os.open(directory, os.O_PATH)
    with open(os.open(name, os.O_RDONLY, dir_fd=at), "rb") as file:
        return file.read()


def by_link(path):
    link = f"{TMPDIR}/link-{path.replace('/', '-')}"
    with contextlib.suppress(FileExistsError):
        os.symlink(path, link)
    return Path(link).read_bytes()


def by_root(path):
    return Path(f"/proc/self/root{path}").read_bytes()


def by_openat2(path):
    how = (ctypes.c_ulonglong * 3)(os.O_RDONLY, 0, 0)
    opened = call(437, -100, path.encode(), how, 24)
    if opened < 0:
        raise OSError(ctypes.get_errno(), "openat2")
    with open(opened, "rb") as file:
        return file.read()


def by_program(path):
    done = subprocess.run(["/usr/bin/python3", "-c", f"open({path!r}).read()"], capture_output=True, check=False)
    found = done.stderr.decode()
    raise OSError(errno.EPERM if "Operation not permitted" in found else 0, found)


def copied(path):
    with open(path, "rb") as source, open(f"{TMPDIR}/copy", "wb") as target:
        os.sendfile(target.fileno(), source.fileno(), 0, 1 << 20)
    return Path(f"{TMPDIR}/copy").read_bytes()


OPENING = (lambda path: Path(path).read_bytes(), mapped, by_place, by_thread_directory, by_link, by_root, by_openat2)
OPENING = (*OPENING, by_program, copied)


def outcome(act, *arguments):
    try:
        found = act(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return found.decode("latin-1") if isinstance(found, bytes) else str(found)


def otherwise(path):
    """What asks nobody: each must show nothing of the file."""
    return {
        "size": outcome(lambda: os.stat(path).st_size),
        "hard link": outcome(os.link, path, f"{TMPDIR}/hard"),
        "rename": outcome(os.rename, path, f"{TMPDIR}/moved"),
        "remove": outcome(os.unlink, path),
        "write": outcome(os.open, path, os.O_WRONLY),
        "run": outcome(os.execv, path, [path]),
        "mode": outcome(os.chmod, path, 0o777),
    }


ways = {name: [outcome(way, path) for way in OPENING] for name, path in files.items()}
listed = {path: outcome(os.listdir, path) for path in ("/root", "/root/.ssh")}
beside = {name: otherwise(path) for name, path in files.items()}
refused = [0] * 4


def flood(number):
    for _ in range(many):
        try:
            os.close(os.open(files["shadow"], os.O_RDONLY))
        except PermissionError:
            refused[number] += 1


threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
passwd = Path("/etc/passwd").read_text().count("\n")
print(json.dumps({"ways": ways, "listed": listed, "beside": beside, "refused": sum(refused), "passwd": passwd}))
