"""Where the grammar reads a text otherwise than bash, it is given one that it reads alike."""

from __future__ import annotations

import pytest

from tests.shell.given import answer


@pytest.mark.parametrize(
    "text",
    [
        "ls x\n\\rm -rf /",
        "ls\n\n \t\\rm -rf /",
        "echo $(ls\n\\rm -rf /)",
        "{ ls\n\\rm -rf /\n}",
        "ls # x\n\\r\\m -rf /",
    ],
)
def test_a_backslash_at_the_start_of_a_line_hides_no_command(text: str) -> None:
    """The grammar takes the newline for a part of the word (found by the differential fuzz)."""
    assert answer(text)[0] == "deny"


@pytest.mark.parametrize("text", ["echo 'a\n\\n'", 'echo "a\n\\$x"', "cat <<E\n\\$x\n\\\\\nE", "cat <<'E'\n\\$x\nE"])
def test_a_backslash_at_the_start_of_a_quoted_line_stays(text: str) -> None:
    assert answer(text)[0] == "allow"
