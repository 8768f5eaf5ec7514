"""Runs commands in a session: each argument is one as JSON (`argv`, `env`); prints how each ended, as one JSON list."""

import json
import os
import subprocess
import sys
import tempfile

ended = []
for text in sys.argv[1:]:
    command = json.loads(text)
    place = tempfile.mkdtemp(dir="/tmp")
    argv = [word.replace("{new}", place) for word in command["argv"]]
    try:
        done = subprocess.run(
            argv, env=os.environ | command["env"], cwd=place, stdin=subprocess.DEVNULL, capture_output=True, timeout=45
        )
        status, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        status, out, err = 124, error.stdout or b"", error.stderr or b""
    except OSError as error:
        status, out, err = 126, b"", str(error).encode()
    ended.append({"status": status, "out": out.decode(errors="replace"), "err": err.decode(errors="replace")[-1500:]})
print(json.dumps(ended))
