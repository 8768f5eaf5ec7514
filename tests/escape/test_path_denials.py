"""What the exec ring and the shells' shim see of the path rules is `permission.denied`, once."""

from __future__ import annotations

import json

from tests.escape.runtime import Case, Runtime

POLICY = """\
version: 1
egress: {allow: []}
commands: {deny: ["ldconfig -p"]}
paths:
  write: [/tmp]
  read: [/usr/bin, /usr/lib, /usr/lib64, /usr/share, /usr/local, /bin, /lib, /lib64, /etc, /opt]
"""
TOOL = "/usr/sbin/ldconfig"
SEARCHED = "PATH=/usr/sbin:/sbin:/usr/bin"
SESSION = f"""
import json, os, subprocess
def tried(*argv):
    try:
        return subprocess.run(argv, capture_output=True).returncode
    except OSError as error:
        return error.strerror
os.chdir("/tmp")
with open("script", "w") as script:
    script.write("#!{TOOL} -V\\n")
os.chmod("script", 0o755)
print(json.dumps([tried("{TOOL}", "-V"), tried("./script"), tried("/usr/bin/env", "{TOOL}", "-V"),
                  tried("bash", "-c", "echo x > /etc/parhelia-shim"), tried("bash", "-c", "echo x > /tmp/fine"),
                  tried("/usr/bin/env", "{SEARCHED}", "ldconfig", "-V"), tried("/usr/bin/env", "{SEARCHED}", "true"),
                  tried("/usr/sbin/no-such-program"), tried("{TOOL}", "-p")]))
"""


def test_execs_of_what_is_not_granted_and_redirections_to_it_are_refused_and_recorded(runtime: Runtime) -> None:
    python = "/usr/bin/python3" if runtime.name == "host" else "python3"
    outcome = runtime.run(Case((python, "-I", "-c", SESSION), POLICY))
    assert outcome.status == 0, outcome.stderr
    direct, script, through, redirected, fine, searched, found, absent, command = json.loads(outcome.stdout)
    assert (direct, script, through, searched) == ("Permission denied", "Permission denied", 126, 126)
    assert (found, command) == (0, "Permission denied")
    assert absent in ("Permission denied", "No such file or directory")
    assert redirected != 0
    assert fine == 0
    denied = [
        (e["details"]["mechanism"], e["details"]["access"], e["resource"], e["details"]["rule"], e["result"])
        for e in outcome.of("permission.denied")
    ]
    execs = [("exec", "execute", TOOL, "paths-default", "denied")]
    shim = [] if runtime.name == "host" else [("shim", "write", "/etc/parhelia-shim", "paths-default", "denied")]
    assert denied == [*execs * 3, *shim, *execs]
    assert [event["details"]["argv"] for event in outcome.of("bash.dangerous")] == [[TOOL, "-p"]]
    assert outcome.verified == 0
