"""What the exec ring and the shells' shim see of the path rules is `permission.denied`, once; and what
the hook refuses of a text's files, the kernel refuses too."""

from __future__ import annotations

import json
import pwd
from datetime import date

import pytest

from agent.daemon.policies.store import read_policy
from agent.enforce.commands.hook_protocols import AskText
from agent.enforce.commands.hook_requests import Requests
from agent.policy.decide import decide
from agent.policy.request import Origin, PathRequest
from tests.escape.runtime import Case, Host, Runtime

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
                  tried("bash", "-c", "cp script /etc/parhelia-copy"), tried("bash", "-c", "cp script /tmp/copy"),
                  tried("/usr/bin/env", "{SEARCHED}", "ldconfig", "-V"), tried("/usr/bin/env", "{SEARCHED}", "true"),
                  tried("/usr/sbin/no-such-program"), tried("{TOOL}", "-p")]))
"""


def test_execs_of_what_is_not_granted_and_redirections_to_it_are_refused_and_recorded(runtime: Runtime) -> None:
    python = "/usr/bin/python3" if runtime.name == "host" else "python3"
    outcome = runtime.run(Case((python, "-I", "-c", SESSION), POLICY))
    assert outcome.status == 0, outcome.stderr
    direct, script, through, redirected, fine, copied, fine_too, *execs_too = json.loads(outcome.stdout)
    searched, found, absent, command = execs_too
    assert (direct, script, through, searched) == ("Permission denied", "Permission denied", 126, 126)
    assert (found, command) == (0, "Permission denied")
    assert absent in ("Permission denied", "No such file or directory")
    assert 0 not in (redirected, copied)
    assert (fine, fine_too) == (0, 0)
    denied = [
        (e["details"]["mechanism"], e["details"]["access"], e["resource"], e["details"]["rule"], e["result"])
        for e in outcome.of("permission.denied")
    ]
    execs = [("exec", "execute", TOOL, "paths-default", "denied")]
    made = [] if runtime.name == "host" else ["/etc/parhelia-shim", "/etc/parhelia-copy"]
    shim = [("shim", "write", path, "paths-default", "denied") for path in made]
    assert denied == [*execs * 3, *shim, *execs]
    assert [event["details"]["argv"] for event in outcome.of("bash.dangerous")] == [[TOOL, "-p"]]
    assert outcome.verified == 0


REFUSED = """\
echo x > /etc/parhelia-x
echo x >> /usr/parhelia-x
: 2> /var/lib/parhelia-x
cat < /usr/sbin/ldconfig
cat /usr/sbin/ldconfig
cat -n /usr/bin/env /usr/sbin/ldconfig
cd /usr/sbin && cat ldconfig
head -n 1 /usr/sbin/ldconfig
tail -1 /usr/sbin/ldconfig
od -c /usr/sbin/ldconfig
base64 -w 0 /usr/sbin/ldconfig
strings /usr/sbin/ldconfig
sha256sum /usr/sbin/ldconfig
wc -l /usr/sbin/ldconfig
xxd -l 4 /usr/sbin/ldconfig
tee /etc/parhelia-x < /dev/null
tee -a /etc/passwd < /dev/null
truncate -s 0 /etc/passwd
cp /etc/passwd /etc/parhelia-x
cp -a /etc/passwd /usr
cp /usr/sbin/ldconfig /tmp/held-against-the-kernel
cp -f /etc/passwd /etc/group
echo x > /tmp/held-source; mv -f /tmp/held-source /etc/parhelia-x
bash -c 'cat /usr/sbin/ldconfig'
env A=1 bash -c 'echo > /etc/parhelia-x'"""
PASSED = """\
cat /etc/passwd
head -c 3 /usr/bin/env | wc -c
cp /etc/passwd /tmp/held-copy && mv /tmp/held-copy ~/held-moved && cat ~/held-moved
cat /etc/passwd | tee /tmp/held-tee | tac | nl | tail -n 1
cat < /etc/passwd > /dev/null 2>> ~/held-error
truncate -s 0 /tmp/held-tee; cp /etc/passwd /tmp
cat /no-such-file 2> /dev/null || true
cat /usr/sbin/ldconfig 2> /dev/null || true
cat /dev/null /proc/self/status
cp -a /etc/hostname $TMPDIR"""
EACH = """
import json, subprocess, sys
def run(text):
    return subprocess.run(["/bin/bash", "-o", "pipefail", "-c", text], capture_output=True).returncode
print(json.dumps([run(text) for text in sys.argv[1:]]))
"""


@pytest.mark.root
def test_what_is_refused_of_the_files_that_a_text_names_the_kernel_refuses_too(host: Host) -> None:
    texts = [*REFUSED.splitlines(), *PASSED.splitlines()]
    outcome = host.run(Case(("/usr/bin/python3", "-c", EACH, *texts), POLICY))
    done = dict(zip(texts, json.loads(outcome.stdout), strict=True))
    policy, home = read_policy((host.policies,)), pwd.getpwnam("session").pw_dir
    requests = Requests(home, "/tmp", True, lambda: date(2026, 11, 22))

    def refused(text: str) -> bool:
        asked = requests.of(AskText(text, "/tmp"), Origin("hook"))
        return not all(decide(policy, request).permitted for request in asked if isinstance(request, PathRequest))

    assert [text for text in texts if refused(text)] == REFUSED.splitlines()
    assert [text for text, status in done.items() if status == 0] == PASSED.splitlines()
