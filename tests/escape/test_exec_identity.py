"""Programs in disguise, scripts and variables: what an exec really runs is refused, recorded and counted.

Each attack is text that a shell of the session reads from a pipe, so that nobody has seen it before; the session's
processes are those of a real run. `/etc/parhelia-none` does not exist: nothing is lost where an attack gets through.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.escape.conftest import RUNTIMES
from tests.escape.runtime import Case, Host, Runtime, policy

VICTIM = "/etc/parhelia-none"
LOADER = "/lib64/ld-linux-x86-64.so.2"
MEMORY = f"""\
/usr/bin/env python3 - <<'E'
import os
fd = os.memfd_create("note", 0)
os.write(fd, open("/bin/rm", "rb").read())
try:
    os.execve(fd, ["note", "-rf", "{VICTIM}"], {{}})
except OSError as error:
    print("status=126" if error.errno == 13 else error)
E
"""
ATTACKS = {
    "a copy": (f"cp /bin/rm x; ./x -rf {VICTIM}", "/x"),
    "a copy with bytes appended": (f"cp /bin/rm p; echo more >> p; ./p -rf {VICTIM}", "/p"),
    "a renamed copy": (f"cp /bin/rm x; mv x tool; ./tool -rf {VICTIM}", "/tool"),
    "a symlink": (f"ln -s /bin/rm harmless; ./harmless -rf {VICTIM}", "/rm"),
    "a lying argv[0]": (f"(exec -a ls /bin/rm -rf {VICTIM})", "/rm"),
    "a deleted copy": (f"cp /bin/rm d; exec 9<d; /bin/rm d; /proc/self/fd/9 -rf {VICTIM}", "/d (deleted)"),
    "a file in memory": (MEMORY, "/memfd:note (deleted)"),
    "the loader": (f"{LOADER} /bin/rm -rf {VICTIM}", "/ld-linux"),
    "the loader and a copy": (f"cp /bin/rm c; cp {LOADER} l; ./l ./c -rf {VICTIM}", "/c"),
    "a script": (f"printf '#!/bin/sh\\necho began\\nrm -rf {VICTIM}\\n' > s; chmod +x s; ./s", "/dash"),
    "a script by its interpreter": (f"echo 'rm -rf {VICTIM}' > t; /bin/bash -e t", "/bash"),
    "a script without a first line": (f"echo 'rm -rf {VICTIM}' > u; chmod +x u; ./u", "/u"),
    "a script on standard input": (f"echo 'rm -rf {VICTIM}' > v; /bin/sh < v", "/dash"),
    "code in a file": (f"echo 'import shutil; shutil.rmtree(\"{VICTIM}\")' > w.py; python3 w.py", "/python3"),
    "a file that bash reads first": (f"echo 'rm -rf {VICTIM}' > e; BASH_ENV=$PWD/e /bin/bash -c true", "/bash"),
    "a function in the environment": (f"ls() {{ rm -rf {VICTIM}; }}; export -f ls; /bin/bash -c ls", "/bash"),
    "a function that env sets": (f"env 'BASH_FUNC_ls%%=() {{ rm -rf {VICTIM}; }}' /bin/bash -c ls", "/env"),
}
"""What is tried, and how the executable in the record ends or begins its name."""
HARMLESS = {
    "a copy of echo": ("cp /bin/echo x; ./x fine", "fine"),
    "a script": ("printf '#!/bin/sh\\necho \"$@\"\\n' > s; chmod +x s; ./s fine", "fine"),
    "data": ("echo 'rm -rf /' > t; cat t", "rm -rf /"),
    "a pager": ("PAGER=cat EDITOR=vi sh -c 'echo $PAGER'", "cat"),
}
RUNNER = """\
import json, subprocess, sys, tempfile, time
answers = {}
for name, text in json.loads(sys.argv[1]).items():
    place = tempfile.mkdtemp()
    done = subprocess.run(["/bin/bash"], input=text + "\\necho status=$?", cwd=place, text=True, capture_output=True)
    answers[name] = [done.stdout, done.stderr]
print(json.dumps(answers))
time.sleep(float(sys.argv[2]))
"""
"""Stays until the numbers are pushed: in a container the gateway ends with the session."""


@pytest.fixture(params=RUNTIMES)
def ringed(request: pytest.FixtureRequest) -> Runtime:
    """Each runtime, in turn."""
    found: Runtime = request.getfixturevalue(request.param)
    return found


def test_programs_in_disguise_scripts_and_variables_are_refused_recorded_and_counted(ringed: Runtime) -> None:
    texts = {name: text for name, (text, _) in ATTACKS.items()}
    texts |= {f"harmless: {name}": text for name, (text, _) in HARMLESS.items()}
    gateway = {"PARHELIA_PUSHGATEWAY_URL": f"http://127.0.0.1:{ringed.upstream.ports['http']}"}
    command = ("/usr/bin/env", "python3", "-c", RUNNER, json.dumps(texts), "0" if isinstance(ringed, Host) else "8")
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin"} if ringed.name != "host" else {"PATH": "/usr/bin:/bin"}
    outcome = ringed.run(Case(command, policy(), env=gateway | path))
    assert outcome.status == 0, outcome.stderr
    answers: dict[str, list[str]] = json.loads(outcome.stdout)
    for name in ATTACKS:
        said, told = answers[name]
        assert "status=126" in said, (name, said, told)
        assert "began" not in said
        assert "parhelia: denied by recursive-delete-system" in told or ringed.name == "gvisor"  # best effort
    for name, (_, expected) in HARMLESS.items():
        assert answers[f"harmless: {name}"][0] == f"{expected}\nstatus=0\n", (name, answers)
    events = [event["details"] for event in outcome.of("bash.dangerous")]
    shown = [(event["exe"], event["argv"], event.get("script")) for event in events]
    assert [event["rule"] for event in events] == ["recursive-delete-system"] * len(ATTACKS), shown
    seen = dict(zip(ATTACKS, events, strict=True))
    wrong = {name: seen[name]["exe"] for name, (_, exe) in ATTACKS.items() if exe not in seen[name]["exe"]}
    assert wrong == {}
    assert [name for name in ATTACKS if "script" in seen[name]] == [
        name for name in ATTACKS if name.startswith(("a script", "code", "a file that"))
    ]
    assert counted(ringed) == len(ATTACKS)
    assert outcome.verified == 0


def counted(runtime: Runtime) -> float:
    """The counter of refused commands in the session's last push."""
    pushed = Path(runtime.upstream.pushed).read_text()
    found = re.findall(r'^parhelia_security_denied_total\{event_type="bash\.dangerous"\} (\S+)$', pushed, re.M)
    assert len(found) == 1, pushed[-2000:]
    return float(found[0])
