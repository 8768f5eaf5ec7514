"""Where the grammar reads a text otherwise than bash, it is given one that it reads alike."""

from __future__ import annotations

import pytest

from tests.shell.given import answer, request


@pytest.mark.parametrize(
    "text",
    [
        "ls x\n\\rm -rf /",
        "ls\n\n \t\\rm -rf /",
        "echo $(ls\n\\rm -rf /)",
        "{ ls\n\\rm -rf /\n}",
        "ls # x\n\\r\\m -rf /",
        "'r'\\m -rf /",
        '"r"\\m -rf /',
        "r''\\m -r\"\"\\f /",
        "a | b | c\nrm -rf / 2>x",
        "a | b || c\n\nrm -rf / 2>x\n\nd",
        'cat <( a\n)\nb | c\nrm -rf "/"\n{ e\n} > g',
    ],
)
def test_no_line_is_taken_for_a_part_of_another(text: str) -> None:
    """Found by the differential fuzz: the grammar now and then goes on behind a newline, or ends a word early."""
    assert answer(text)[0] == "deny"


@pytest.mark.parametrize("text", ["echo 'a\n\\n'", 'echo "a\n\\$x"', "cat <<E\n\\$x\n\\\\\nE", "cat <<'E'\n\\$x\nE"])
def test_a_backslash_at_the_start_of_a_quoted_line_stays(text: str) -> None:
    assert answer(text)[0] == "allow"


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        (r"echo \ a", ("echo", " a")),
        (r"echo 'a'\ b c", ("echo", "a b", "c")),
        (r"echo $'a'\b", ("echo", "ab")),
        (r"echo a\'b", ("echo", "a'b")),
        (r'echo "a\"b"\c', ("echo", 'a"bc')),
        (r"echo 'a'\é", ("echo", "aé")),
        (r"echo x\$HOME", ("echo", "x$HOME")),
        (r"find . \( -name \*.py \)", ("find", ".", "(", "-name", "*.py", ")")),
    ],
)
def test_escapes_are_part_of_the_word_that_they_stand_in(text: str, argv: tuple[str, ...]) -> None:
    assert request(text).commands[0].argv == argv


def test_backslashes_inside_backquotes_are_those_of_the_text_within() -> None:
    assert answer('echo "`echo \\`rm -rf /\\``"')[0] == "deny"
    assert answer("echo `ls\n\\rm -rf /`")[0] == "deny"
