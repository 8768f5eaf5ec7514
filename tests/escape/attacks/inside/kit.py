"""What the attack programs share: they try one act after another and print one JSON line for each.

A program is one of this file's neighbours; it runs inside the session with the machine's own Python (3.11 or later),
and its only argument names the file that describes its surroundings (`stage.py`). An act is a function:

- it returns what it got: the attack succeeded;
- it raises OSError: it was refused by the kernel or the agent;
- it raises Resisted: nothing was refused, but nothing was gained either;
- it raises Absent: this kernel has not what the attack needs, so it shows nothing.

Each act runs in a process of its own with a time limit. `control`: an act that must succeed right before, in the same
process: the same thing where it is granted.
"""

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time

with open(sys.argv[1]) as _file:
    WORLD = json.load(_file)
with open(WORLD["ready"]) as _file:
    WORLD |= json.load(_file)
GRANTED, VICTIMS, SECRET = WORLD["granted"], WORLD["victims"], WORLD["secret"]
VICTIM = VICTIMS + "/open/file.txt"
LIBC = ctypes.CDLL(None, use_errno=True)
IN_GVISOR = WORLD["runtime"].startswith("gvisor")
ACTS = {}


class Resisted(Exception):
    """Nothing was gained."""


class Absent(Exception):
    """Not to be tried here."""


def attack(control=None, seconds=15.0):
    """Declare an act under its function's name."""

    def declare(act):
        ACTS[act.__name__] = (act, control, seconds)
        return act

    return declare


def call(number, *arguments):
    """syscall(2); raises OSError."""
    ctypes.set_errno(0)
    answer = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if answer == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def child():
    """A process of the session's own, which is killed with the act's process group."""
    number = os.fork()
    if not number:
        while True:
            time.sleep(60)
    return number


def there(act, *lacking):
    """A control for what not every kernel has: Absent where it fails with one of these errors."""

    def tried():
        try:
            return act()
        except OSError as error:
            if error.errno in lacking:
                raise Absent(f"this kernel answers {errno.errorcode[error.errno]}") from None
            raise

    return tried


def secret_in(text):
    """The evidence that a victim was read."""
    if SECRET not in (text if isinstance(text, str) else text.decode("utf-8", "replace")):
        raise Resisted(f"read {text[:60]!r}, which is not the secret")
    return "read the secret"


def read(path):
    """Read a victim by this name."""
    with open(path) as file:
        return secret_in(file.read())


def append(path):
    """Write to the file of this name."""
    with open(path, "a") as file:
        file.write("+")
    return f"wrote to {path}"


def create(path):
    """Make a new file; it is left for the test to find."""
    with open(path, "x") as file:
        file.write("made by the session\n")
    return f"made {path}"


def own(name, text="own\n"):
    """A file of the session's own in a granted directory."""
    path = f"{GRANTED}/{name}"
    with open(path, "w") as file:
        file.write(text)
    return path


def runs(*argv, **more):
    """Run a program; its output where it ended well. Raises OSError where it was refused, Resisted where it failed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **more)
    if done.returncode == 126:
        raise OSError(errno.EACCES, "status 126: " + done.stderr.strip()[:160])
    if done.returncode:
        raise Resisted(f"status {done.returncode}: {done.stderr.strip()[:160]}")
    return done.stdout.strip() or "ran"


def dangerous(mark):
    """What a rule refuses, told apart by its mark; there is no such directory."""
    return ["rm", "-rf", f"/etc/parhelia-{mark}"]


def report(act, control):
    """What came of one act, as the line that is printed."""
    if control is not None:
        try:
            control()
        except Absent as error:
            return {"outcome": "absent", "evidence": str(error)}
        except Exception as error:
            return {"outcome": "uncontrolled", "evidence": f"the control failed: {error!r}"}
    try:
        return {"outcome": "succeeded", "evidence": str(act())[:200]}
    except OSError as error:
        name = errno.errorcode.get(error.errno, type(error).__name__)
        return {"outcome": "failed", "errno": name, "evidence": str(error)[:200]}
    except Resisted as error:
        return {"outcome": "failed", "errno": "", "evidence": str(error)[:200]}
    except Absent as error:
        return {"outcome": "absent", "evidence": str(error)}
    except Exception as error:
        return {"outcome": "broken", "evidence": repr(error)[:200]}


def in_a_child(act, control, seconds):
    """Fork, act, and see how it ends; nothing of its process group is left."""
    near, far = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            os.setpgid(0, 0)
            os.close(near)
            os.write(far, json.dumps(report(act, control)).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(far)
    text = b""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and select.select([near], [], [], left)[0]:
        part = os.read(near, 65536)
        text += part
        if not part or part.endswith(b"\n"):  # not the end of the pipe: a grandchild may hold it
            break
    else:
        text = b'{"outcome": "hung", "evidence": "no answer within the limit"}'
    os.close(near)
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not text and os.WIFSIGNALED(status):
        return {"outcome": "killed", "errno": signal.Signals(os.WTERMSIG(status)).name, "evidence": "by a signal"}
    return json.loads(text or b'{"outcome": "broken", "evidence": "ended without a word"}')


def main():
    """Try what is asked for, in order."""
    for name, (act, control, seconds) in ACTS.items():
        if WORLD["only"] is not None and name not in WORLD["only"]:
            continue
        started = time.monotonic()
        if name in WORLD["absent"]:
            found = {"outcome": "absent", "evidence": WORLD["absent"][name]}
        else:
            found = in_a_child(act, control, seconds)
        print(json.dumps({"act": name, **found, "seconds": round(time.monotonic() - started, 2)}), flush=True)
