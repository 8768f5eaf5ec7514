"""The files that a text names as operands of readers and writers, as far as that is certain."""

from __future__ import annotations

from datetime import date

import pytest

from agent.enforce.commands.operated import operated
from agent.policy.request import Access, Origin
from agent.shell.requests import from_text

WRITE, READ = Access.WRITE, Access.READ


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("cat /etc/passwd", [(READ, "/etc/passwd")]),
        ("cat -n passwd hosts", [(READ, "/etc/passwd"), (READ, "/etc/hosts")]),
        ("head -n 5 /etc/passwd | tail -2", [(READ, "/etc/passwd")]),
        ("bash -c 'cat -- /etc/passwd'", [(READ, "/etc/passwd")]),
        ("echo x | tee -a /etc/profile new", [(WRITE, "/etc/profile"), (WRITE, "/etc/new")]),
        ("truncate -s 0 /etc/passwd", [(WRITE, "/etc/passwd")]),
        ("cp -a /etc/passwd /nowhere/x", [(WRITE, "/nowhere/x"), (READ, "/etc/passwd")]),
        ("cp hosts /usr", [(WRITE, "/usr/hosts"), (READ, "/etc/hosts")]),
        ("mv -f hosts passwd /usr", [(WRITE, "/usr/hosts"), (WRITE, "/usr/passwd")]),
        ("cat /etc/no-such-file /etc/passw*", []),
        ("cat /etc/no-such-file", []),
        ('cat "$UNKNOWN" /etc/passwd', [(READ, "/etc/passwd")]),
        ('cp "$UNKNOWN" /etc/passwd', []),
        ("cp -t /etc /etc/passwd", []),
        ("cp --parents /etc/passwd /usr", []),
        ("tail --follow=name /etc/passwd", []),
        ("cat /etc/passwd 2> /dev/null || true", []),
        ("cat /etc/passwd &>/dev/null && echo x", []),
        ("cat", []),
        ("cat -", []),
        ("echo /etc/passwd", []),
        ("sudo cat /etc/passwd", []),
        ("ssh host cat /etc/passwd", []),
        ("find /etc -exec cat {} +", []),
        ("xargs cat /etc/passwd", []),
        ("cat /proc/self/status /dev/stdin", []),
    ],
)
def test_what_a_text_names(text: str, files: list[tuple[Access, str]]) -> None:
    request = from_text(
        text, cwd="/etc", home="/home/s", today=date(2026, 11, 22), origin=Origin("hook"), supervised=True
    )
    assert list(operated(request)) == files
