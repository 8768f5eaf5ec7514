"""The files that a text names as operands of readers and writers, as far as that is certain."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.commands.hook_protocols import AskText
from agent.enforce.commands.hook_requests import Requests
from agent.enforce.commands.operated import operated
from agent.policy.decide import decide
from agent.policy.request import UNKNOWN, Access, CommandRequest, Origin, PathRequest, SimpleCommand
from agent.shell.file_table import FORMS
from agent.shell.file_ways import WAYS
from agent.shell.requests import from_text
from tests.policy.corpus import every_pack, rows
from tests.policy.given import policy

WRITE, READ, REMOVE = Access.WRITE, Access.READ, Access.DELETE


def _request(text: str, cwd: str = "/etc", home: str = "/home/s") -> CommandRequest:
    return from_text(text, cwd=cwd, home=home, today=date(2026, 11, 22), origin=Origin("hook"), supervised=True)


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("cat /etc/passwd", [(READ, "/etc/passwd")]),
        ("cat -n passwd hosts", [(READ, "/etc/passwd"), (READ, "/etc/hosts")]),
        ("head -n 5 /etc/passwd | tail -2", [(READ, "/etc/passwd")]),
        ("bash -c 'cat -- /etc/passwd'", [(READ, "/etc/passwd")]),
        ("echo x | tee -a /etc/profile new", [(WRITE, "/etc/profile"), (WRITE, "/etc/new")]),
        ("echo x | tee ~/.bashrc", [(WRITE, "/home/s/.bashrc")]),
        ("truncate -s 0 /etc/passwd", [(WRITE, "/etc/passwd")]),
        ("cp -a /etc/passwd /nowhere/x", [(WRITE, "/nowhere/x"), (READ, "/etc/passwd")]),
        ("cp hosts /usr", [(WRITE, "/usr/hosts"), (READ, "/etc/hosts")]),
        ("cp -r . /usr", [(WRITE, "/usr"), (READ, "/etc/.")]),
        ("cp -T hosts /usr", [(WRITE, "/usr"), (READ, "/etc/hosts")]),
        ("cp -t /usr /etc/passwd", [(WRITE, "/usr/passwd"), (READ, "/etc/passwd")]),
        (
            "mv -f hosts passwd /usr",
            [(WRITE, "/usr/hosts"), (WRITE, "/usr/passwd"), (REMOVE, "/etc/hosts"), (REMOVE, "/etc/passwd")],
        ),
        ('cp "$UNKNOWN" /etc/passwd', [(WRITE, "/etc/passwd")]),
        ("cp *.conf /usr", [(WRITE, "/usr")]),
        ('cp "$UNKNOWN/hosts" /usr', [(WRITE, "/usr/hosts")]),
        ("rm -rf x *.log y", [(REMOVE, "/etc/x"), (REMOVE, "/etc/y")]),
        ("for file in a b; do rm $file; done", [(REMOVE, "/etc/a"), (REMOVE, "/etc/b")]),
        ("cd /usr && touch x", [(WRITE, "/usr/x")]),
        ("mkdir -p /etc new", [(WRITE, "/etc/new")]),
        ("touch -c /etc/passwd /etc/no-such-file", [(WRITE, "/etc/passwd")]),
        ("touch x 2> /dev/null || true", [(WRITE, "/etc/x")]),
        ("command rm x; exec rm y", [(REMOVE, "/etc/x"), (REMOVE, "/etc/y")]),
        ("cat /etc/no-such-file /etc/passw*", []),
        ("cat /etc/no-such-file/below /etc/passwd/below", []),
        ('cat "$UNKNOWN" /etc/passwd', [(READ, "/etc/passwd")]),
        ('cd "$UNKNOWN" && rm x', []),
        ('chmod "$UNKNOWN" x', []),
        ("cp --parents /etc/passwd /usr", []),
        ("tail --follow=name /etc/passwd", []),
        ("cat /etc/passwd 2> /dev/null || true", []),
        ("cat /etc/passwd &>/dev/null && echo x", []),
        ("cat", []),
        ("cat -", []),
        ("echo /etc/passwd", []),
        ("sudo cat /etc/passwd", []),
        ("ssh host rm /etc/passwd", []),
        ("find /etc -exec rm {} +", []),
        ("xargs cat /etc/passwd", []),
        ("cat /proc/self/status /dev/stdin", []),
        ("dd if=/dev/stdin of=/dev/fd/3", []),
    ],
)
def test_what_a_text_names(text: str, files: list[tuple[Access, str]]) -> None:
    assert [(access, path) for access, path, _ in operated(_request(text))] == files


@given(st.sampled_from(sorted({*FORMS, *WAYS})), st.lists(st.text(max_size=8), max_size=5))
def test_of_any_words_only_known_absolute_paths_come(program: str, words: list[str]) -> None:
    command = SimpleCommand(program, (program, *words), cwd="/etc")
    request = CommandRequest("x", (command,), date(2026, 11, 22), Origin("hook"), home="/home/s")
    for access, path, _ in operated(request):
        assert path.startswith("/")
        assert UNKNOWN not in path
        assert access in (READ, WRITE, REMOVE)


def test_only_what_concerns_a_name_itself_does_not_follow_its_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr")
    home = str(tmp_path)

    def asked(text: str) -> list[tuple[Access, str]]:
        requests = Requests(home, home, True, lambda: date(2026, 11, 22)).of(AskText(text, home), Origin("hook"))
        return [(each.access, each.path) for each in requests if isinstance(each, PathRequest)]

    link = str(tmp_path.resolve() / "link")
    assert asked("rm link; ln -sfn x link") == [(REMOVE, link), (WRITE, link)]
    assert asked("ln -sf x link; ln -sfT y link") == [(WRITE, "/usr/x"), (WRITE, link)]
    assert asked("touch link; touch -h link; chmod 700 link") == [(WRITE, "/usr"), (WRITE, link)]
    assert asked("rm link/../x link/ link/.") == [(REMOVE, "/x"), (REMOVE, link), (WRITE, "/usr")]


def test_a_repository_is_no_protected_place_but_its_hooks_are(tmp_path: Path) -> None:
    hooks = tmp_path / "app" / ".git" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "pre-commit").touch()
    given = policy(f"version: 1\npaths:\n  write: [{tmp_path}]\n  protect: [.git/hooks]\n")

    def permitted(text: str) -> bool:
        requests = Requests("/home/s", "/home/s", True, lambda: date(2026, 11, 22)).of(
            AskText(text, str(tmp_path)), Origin("hook")
        )
        verdicts = [decide(given, each).permitted for each in requests if isinstance(each, PathRequest)]
        return bool(verdicts) and all(verdicts)

    assert permitted("rm -rf app/.git")
    for text in ("rm -rf app/.git/hooks", "rm app/.git/hooks/pre-commit", "rmdir app/.git/hooks"):
        assert not permitted(text)


def test_whether_there_is_a_file_is_not_told_where_the_session_could_not_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hidden").mkdir(mode=0o700)
    (tmp_path / "hidden" / "file").touch()
    monkeypatch.setattr("agent.enforce.commands.operated._owner", lambda _home: None)
    for there in ("file", "absent"):
        path = str(tmp_path / "hidden" / there)
        for text, access in ((f"cat {path}", READ), (f"mkdir {path}", WRITE), (f"touch -c {path}", WRITE)):
            assert [(access, path, True)] == list(operated(_request(text)))


def test_in_directories_of_its_own_the_session_sees_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "own" / "there").mkdir()
    text = f"mkdir -p {tmp_path}/own/there; cat {tmp_path}/own/absent"
    assert list(operated(_request(text, home=str(tmp_path)))) == []


def test_of_commands_that_are_known_to_be_harmless_only_those_on_places_that_nothing_grants_are_refused(
    tmp_path: Path,
) -> None:
    packs = every_pack(tmp_path)
    requests = Requests("/home/s", "/tmp/session-1/tmp", True, lambda: date(2026, 11, 22))
    harmless = [row.command for row in rows() if row.expect == "allow"]
    asked = [requests.of(AskText(text, "/vol/parhelia/workspaces/p"), Origin("hook")) for text in harmless]
    paths = [each for made in asked for each in made if isinstance(each, PathRequest)]
    refused = {each.path for each in paths if not decide(packs, each).permitted}
    assert len(paths) > len(refused) > 0
    assert [path for path in refused if not path.startswith(("/var/tmp/", "/dest", "/some/"))] == []
