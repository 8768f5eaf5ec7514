"""Odd, hostile and random texts: the analysis answers each, and quoting changes no verdict."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shell.given import answer, request
from tests.shell.test_analyse import DELETE


@pytest.mark.parametrize("blank", ["\x0b", "\x0c", "\r", "\x85", "\xa0", "\u2003", "\u3000", "\u200b"])
def test_a_blank_that_bash_does_not_know_starts_no_comment(blank: str) -> None:
    assert answer(f"echo x{blank}#; rm -rf /") == ("deny", DELETE)
    assert answer(f"x{blank}#; rm -rf /")[0] != "allow"


def test_large_code_points_do_not_break_the_parser() -> None:
    """A segmentation fault in the grammar's scanner would end the agent (found by the property below)."""
    assert answer("\U000516a1{\U000c1d75\U0010f00e(*X\U00022a72\xe3")[0] == "unverifiable"
    assert answer("rm -rf /\U000c1d75 /")[0] == "deny"


def test_odd_characters_are_kept_in_words() -> None:
    (command,) = request("ls 'Z0Z' caf\xe9 a\xa0b \U0001f600").commands
    assert command.argv == ("ls", "Z0Z", "caf\xe9", "a\xa0b", "\U0001f600")


def test_a_command_line_longer_than_the_limit_is_unverifiable() -> None:
    assert answer("echo " + "a" * 300_000)[0] == "unverifiable"


@pytest.mark.parametrize(
    "text",
    [
        "a|" * 20_000,
        "$(" * 20_000,
        "((" * 20_000,
        "{a," * 20_000,
        "{" * 50_000,
        "`" * 20_001,
        "<<A " * 5_000,
        "sh -c " * 5_000 + "x",
        "sudo " * 20_000 + "x",
        ":(){ :|:& };:",
        "f() { f; f; f; }; f",
        "f() { g; g; }; g() { f; f; }; f",
        "x=a; " + "x=$x$x; " * 40 + "$x",
        "echo {a,b}" + "{a,b}" * 30,
        "for i in 1 2 3; do " * 40 + "x" + "; done" * 40,
        "python3 -c '" + "os.system(" * 10_000 + "'",
        "eval " * 5_000,
        "/*" * 30_000,
    ],
)
def test_hostile_sizes_come_to_an_end(text: str) -> None:
    assert answer(text)[0] in ("allow", "deny", "unverifiable")


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_is_answered(text: str) -> None:
    request(text)


_PARTS = r"""rm -rf / ; | && $( ) ` ' " \ { } ( <<E E $x x= if then fi for in do done case esac # <( > < & [[ ]] é *"""


_SHELLISH = st.tuples(
    st.lists(st.sampled_from([*_PARTS.split(), "\n", " ", "sh -c ", "\U000c1d75", "\x0c"]), max_size=25),
    st.sampled_from(["", " "]),
).map(lambda drawn: drawn[1].join(drawn[0]))


@given(_SHELLISH)
@settings(max_examples=400, deadline=None)
def test_any_heap_of_shell_syntax_is_answered(text: str) -> None:
    request(text)


def _spellings(word: str) -> list[str]:
    return [word, f"'{word}'", f'"{word}"', f"$'{word}'", f"{word[:1]}''{word[1:]}", f"'{word[:1]}'\"{word[1:]}\""]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_quoting_the_words_of_a_command_never_changes_the_verdict(data: st.DataObject) -> None:
    words = data.draw(
        st.sampled_from([("rm", "-rf", "/"), ("mkfs.ext4", "/dev/sda"), ("rm", "-rf", "build"), ("ls", "/")])
    )
    spelled = " ".join(data.draw(st.sampled_from(_spellings(word))) for word in words)
    assert answer(spelled) == answer(" ".join(words))


@pytest.mark.parametrize(("outer", "inner"), list(product(["sudo", "env", "nice", "exec", "command"], repeat=2)))
def test_wrappers_stack(outer: str, inner: str) -> None:
    asked = request(f"{outer} {inner} rm -rf /")
    assert [c.wrappers for c in asked.commands if c.program == "rm"] == [(outer, inner)]
