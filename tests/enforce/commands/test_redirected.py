"""The files that a text opens by its redirections, as far as that is certain."""

from __future__ import annotations

from datetime import date

import pytest

from agent.enforce.commands.redirected import redirected
from agent.policy.request import Access, Origin
from agent.shell.requests import from_text

WRITE, READ = Access.WRITE, Access.READ


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("echo x > /etc/passwd", [(WRITE, "/etc/passwd")]),
        ("echo x >> here", [(WRITE, "/w/here")]),
        ("cd /etc && echo x 2>> passwd", [(WRITE, "/etc/passwd")]),
        ("cat <<EOF >| /etc/x\nhi\nEOF", [(WRITE, "/etc/x")]),
        ("{ a; } &> /etc/x", [(WRITE, "/etc/x")]),
        ("a >& /etc/x", [(WRITE, "/etc/x")]),
        ("cat 3<> /etc/x", [(WRITE, "/etc/x")]),
        ("cat < /root/x", [(READ, "/root/x")]),
        ("echo > $HOME/x", [(WRITE, "/home/s/x")]),
        ("sh -c 'echo > /etc/x'", [(WRITE, "/etc/x")]),
        ("env A=1 bash -c 'echo > ../x'", [(WRITE, "/w/../x")]),
        ("a 2>&1 >&- <&3", []),
        ("a 2> /dev/stderr > /dev/fd/3 < /proc/self/stat", []),
        ("exec 3<> /dev/tcp/192.0.2.1/80", []),
        ('echo > "$UNKNOWN"', []),
        ('cd "$UNKNOWN" && echo > x', []),
        ("echo > *.log", []),
        ("ssh host 'echo > /etc/x'", []),
        ("docker run image sh -c 'echo > /etc/x'", []),
        ("python3 -c \"open('/etc/x', 'w')\"", []),
        ("echo '> /etc/x'", []),
    ],
)
def test_what_a_text_opens(text: str, opened: list[tuple[Access, str]]) -> None:
    request = from_text(
        text, cwd="/w", home="/home/s", today=date(2026, 11, 22), origin=Origin("hook"), supervised=True
    )
    assert list(redirected(request)) == opened
