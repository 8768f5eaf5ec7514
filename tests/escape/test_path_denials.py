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
  protect: ["~/.held-protected"]
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
                  tried("bash", "-c", "rm -f /etc/hostname"), tried("bash", "-c", "mkdir -p /etc; rm /tmp/copy"),
                  tried("/usr/bin/env", "{SEARCHED}", "ldconfig", "-V"), tried("/usr/bin/env", "{SEARCHED}", "true"),
                  tried("/usr/sbin/no-such-program"), tried("{TOOL}", "-p")]))
"""


def test_execs_of_what_is_not_granted_and_redirections_to_it_are_refused_and_recorded(runtime: Runtime) -> None:
    python = "/usr/bin/python3" if runtime.name == "host" else "python3"
    outcome = runtime.run(Case((python, "-I", "-c", SESSION), POLICY))
    assert outcome.status == 0, outcome.stderr
    direct, script, through, redirected, fine, copied, fine_too, *more = json.loads(outcome.stdout)
    removed, fine_removed, *execs_too = more
    searched, found, absent, command = execs_too
    assert (direct, script, through, searched) == ("Permission denied", "Permission denied", 126, 126)
    assert (found, command) == (0, "Permission denied")
    assert absent in ("Permission denied", "No such file or directory")
    assert 0 not in (redirected, copied, removed)
    assert (fine, fine_too, fine_removed) == (0, 0, 0)
    denied = [
        (e["details"]["mechanism"], e["details"]["access"], e["resource"], e["details"]["rule"], e["result"])
        for e in outcome.of("permission.denied")
    ]
    execs = [("exec", "execute", TOOL, "paths-default", "denied")]
    changed = [("write", "/etc/parhelia-shim"), ("write", "/etc/parhelia-copy"), ("delete", "/etc/hostname")]
    by_shim = [] if runtime.name == "host" else changed
    shim = [("shim", access, path, "paths-default", "denied") for access, path in by_shim]
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
env A=1 bash -c 'echo > /etc/parhelia-x'
touch /etc/parhelia-x
touch -c /etc/hostname
mkdir /etc/parhelia-x
mkdir -p /etc/parhelia-x/below
rm -f /etc/hostname
rmdir /opt
unlink /etc/hostname
mv /etc/hostname ~/held-moved
ln -s x /etc/parhelia-x
ln -sf x /etc/hostname
link /etc/hostname /etc/parhelia-x
install -m 755 /etc/hostname /etc/parhelia-x
install -d /etc/parhelia-x
cp -t /etc /usr/bin/env
chmod +x /etc/hostname
chmod -R u+w /etc/apt
chown session /etc/hostname
mkfifo /etc/parhelia-x
sed -i s/a/b/ /etc/hostname
dd of=/etc/parhelia-x < /dev/null
dd if=/usr/sbin/ldconfig count=1
sort /etc/hostname -o /etc/parhelia-x
split -b 1 /etc/hostname /etc/parhelia-x
gzip /etc/hostname
gzip -c /usr/sbin/ldconfig
tar -cf /etc/parhelia-x.tar hostname
tar -cf ~/held.tar -C /usr/bin env && tar -xf ~/held.tar -C /etc
find /etc/hostname -delete
git config --file /etc/parhelia-x a.b c
git init -q /etc/parhelia-x
openssl rand -out /etc/parhelia-x 8
grep -c . /usr/sbin/ldconfig
grep -rc . /usr/sbin
cut -b 1 /usr/sbin/ldconfig
awk 1 /usr/sbin/ldconfig
echo x | tee ~/.held-protected
touch ~/.held-protected
rm ~/.held-protected
mv ~/.held-protected ~/held-moved
mv /tmp/held-source ~/.held-protected
ln -sf x ~/.held-protected
chmod 644 ~/.held-protected
sed -i s/a/b/ ~/.held-protected
dd of=$HOME/.held-protected < /dev/null"""
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
cp -a /etc/hostname $TMPDIR
mkdir -p /etc ~/held-d/a && touch ~/held-d/a/f && chmod -R go-w ~/held-d && rm -r ~/held-d
mkdir ~/held-l && ln -s /usr ~/held-l/x && ln -sfn /etc ~/held-l/x && rm -r ~/held-l/x ~/held-l
echo a > ~/held-s && sed -i s/a/b/ ~/held-s && perl -pi -e s/b/c/ ~/held-s && grep -q c ~/held-s && unlink ~/held-s
rm -f ~/held-none; touch -c /etc/parhelia-none; dd if=/etc/hostname of=/dev/null
tar -cf ~/held.tar -C /etc hostname && mkdir ~/held-t && tar -xf ~/held.tar -C ~/held-t && rm -r ~/held-t ~/held.tar
install -D -m 700 /etc/hostname ~/held-i/x && mv ~/held-i/x ~/held-i/y && gzip ~/held-i/y && rm -r ~/held-i
git config --file ~/held-g a.b c && git config --file ~/held-g a.b && sort ~/held-g -o ~/held-g && rm ~/held-g"""
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
    assert outcome.status == 0, outcome.stderr
    done = dict(zip(texts, json.loads(outcome.stdout), strict=True))
    policy, home = read_policy((host.policies,)), pwd.getpwnam("session").pw_dir
    requests = Requests(home, "/tmp", True, lambda: date(2026, 11, 22))

    def refused(text: str) -> bool:
        asked = requests.of(AskText(text, "/tmp"), Origin("hook"))
        return not all(decide(policy, request).permitted for request in asked if isinstance(request, PathRequest))

    assert [text for text in texts if refused(text)] == REFUSED.splitlines()
    assert [text for text, status in done.items() if status == 0] == PASSED.splitlines()
