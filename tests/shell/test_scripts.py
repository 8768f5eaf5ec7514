"""Which files a command line runs as text, and what such a text can run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.shell.fold import Word
from agent.shell.scripts import MAX_STEPS, STDIN, Script, scripts, understand


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("sh s.sh", [("shell", "s.sh", ())]),
        ("/bin/bash -e -o pipefail -- s one two", [("shell", "s", ("one", "two"))]),
        ("bash -c true s", []),
        ("bash -e /dev/fd/9 one", [("shell", "/dev/fd/9", ("one",))]),
        ("python3 /proc/self/fd/3", [("python", "/proc/self/fd/3", ())]),
        ("bash -s s", [("shell", STDIN, ())]),
        ("dash", [("shell", STDIN, ())]),
        ("busybox sh s", [("shell", "s", ())]),
        ("busybox rm s", []),
        ("/lib64/ld-linux-x86-64.so.2 /bin/sh s", [("shell", "s", ())]),
        ("python3.12 -u -W error s.py a", [("python", "s.py", ("a",))]),
        ("python3 -c pass s.py", []),
        ("python3 -", [("python", STDIN, ())]),
        ("python3 -m a.b one", [("python", "a/b.py", ("one",)), ("python", "a/b/__main__.py", ("one",))]),
        ("python3 -um a", [("python", "a.py", ()), ("python", "a/__main__.py", ())]),
        ("perl -w s.pl", [("perl", "s.pl", ())]),
        ("ruby s.rb", [("ruby", "s.rb", ())]),
        ("node s.js", [("node", "s.js", ())]),
        ("php s.php", [("php", "s.php", ())]),
        ("lua -e x=1 s.lua", [("lua", "s.lua", ())]),
        ("awk -f p.awk data", [("awk", "p.awk", ())]),
        ("awk {print} data", []),
        ("cat s.sh", []),
        ("env sh s.sh", []),
        ("timeout 5 sh s.sh", []),
    ],
)
def test_a_command_line_names_its_scripts(command: str, named: list[tuple[str, str, tuple[str, ...]]]) -> None:
    argv = command.split()
    found = scripts(argv[0], argv)
    assert [(one.language, one.path.text, tuple(word.text for word in one.positional)) for one in found] == named


def bodies(language: str, text: str, **given: object) -> list[tuple[str, ...]]:
    body = understand(Script(language, Word("s")), text, home="/h", **given)  # type: ignore[arg-type]
    return [command.argv for command in body.commands]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("perl", "=pod\n\nsystem('rm -rf /');\n\n=cut\nprint 1;\n"),
        ("perl", "print 1;\n__END__\nsystem('rm -rf /');\n"),
        ("ruby", "=begin\nsystem('rm -rf /')\n=end\nputs 1\n"),
        ("ruby", "puts 1\n__END__\nsystem('rm -rf /')\n"),
        ("php", "<p>system('rm -rf /')</p>\n<?php echo 1; ?>\n"),
        ("python", '"""os.system("rm -rf /")"""\n# os.system("rm -rf /")\n'),
    ],
)
def test_what_is_no_code_is_not_taken_for_code(language: str, text: str) -> None:
    assert bodies(language, text) == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("perl", "=pod\n\nx\n\n=cut\nsystem('rm -rf /');\n"),
        ("ruby", "=begin\nx\n=end\nsystem('rm -rf /')\n"),
        ("php", "<p>x</p>\n<?php system('rm -rf /');\n"),
        ("php", "<?= system('rm -rf /') ?>\n"),
        ("shell", "f() {\n  rm -rf /\n}\n"),
        ("shell", "rm \\\n -rf \\\n /\n"),
        ("shell", "r\0m -rf /\n"),
    ],
)
def test_what_is_code_is(language: str, text: str) -> None:
    assert ("rm", "-rf", "/") in bodies(language, text)


def test_arguments_and_directory_count_only_where_they_are_given() -> None:
    text = 'rm -rf "$1" x'
    (known,) = understand(Script("shell", Word("s")), text, home="/h", cwd="/etc", arguments=("/usr",)).commands
    assert (known.argv, known.cwd) == (("rm", "-rf", "/usr", "x"), "/etc")
    (unknown,) = understand(Script("shell", Word("s")), text, home="/h").commands
    assert (unknown.argv[2], unknown.cwd) == ("\0", None)


def test_a_body_that_is_too_long_is_said_to_be_cut() -> None:
    text = "".join(f"true {number}\n" for number in range(MAX_STEPS + 10))
    assert not understand(Script("shell", Word("s")), text, home="/h").whole
    assert understand(Script("shell", Word("s")), "true\n" * 20, home="/h").whole


@given(st.sampled_from(["shell", "python", "perl", "ruby", "php", "node", "lua", "awk"]), st.text(max_size=200))
def test_no_text_is_too_strange(language: str, text: str) -> None:
    understand(Script(language, Word("s")), text, home="/h")
