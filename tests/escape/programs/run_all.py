"""Runs commands in a session: each argument is one as JSON (`argv`, `env`); prints how each ended, as one JSON list."""

import json
import os
import subprocess
import sys
import tempfile
import time

ended = []
for text in sys.argv[1:]:
    command = json.loads(text)
    began = time.monotonic()
    place = tempfile.mkdtemp(dir="/tmp")
    argv = command["argv"]
    try:
        environment = os.environ | command["env"]
        done = subprocess.run(
            argv, env=environment, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, timeout=45, check=False
        )
        status, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        status, out, err = 124, error.stdout or b"", error.stderr or b""
    except OSError as error:
        status, out, err = 126, b"", str(error).encode()
    words = {"out": out.decode(errors="replace"), "err": err.decode(errors="replace")[-1500:]}
    ended.append({"status": status, **words, "seconds": round(time.monotonic() - began, 1)})
print(json.dumps(ended))
