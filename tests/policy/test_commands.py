"""Matching a command rule: by meaning, in three answers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.commands import Fit, Places, covers, judge, matches, may_match
from agent.policy.model import CommandMatch
from agent.policy.operands import normalise_operand, operand_fit
from agent.policy.request import UNKNOWN, SimpleCommand
from agent.policy.shorthand import ShorthandError, parse_shorthand

HOME = "/home/session"
PLACES = Places(HOME, ("/vol/parhelia/workspaces",))
SYSTEM = CommandMatch(("rm",), options=("recursive",), operands=("/", "/*", "/etc/**"))


def command(*argv: str, cwd: str | None = "/work", globs: tuple[int, ...] = ()) -> SimpleCommand:
    return SimpleCommand(argv[0].rpartition("/")[2], argv, cwd, globs=globs)


@pytest.mark.parametrize(
    ("argv", "fit"),
    [
        (("rm", "-r", "/"), Fit.YES),
        (("rm", "-fR", "/etc/x"), Fit.YES),
        (("rm", "/etc", "--recursive"), Fit.YES),
        (("rm", "--r", "/etc"), Fit.YES),
        (("rm", "--re", "--", "/etc"), Fit.YES),
        (("rm", "-r", "../etc"), Fit.YES),
        (("rm", "-r", "/home"), Fit.YES),
        (("rm", "/etc"), Fit.NO),
        (("rm", "--", "-r", "/etc"), Fit.NO),
        (("rm", "-r", "/home/session/x"), Fit.NO),
        (("rm", "-r", "build"), Fit.NO),
        (("rm", "-r"), Fit.NO),
        (("rmdir", "-r", "/etc"), Fit.NO),
        (("rm", "-r", UNKNOWN), Fit.MAYBE),
        (("rm", "-r", f"{UNKNOWN}/x"), Fit.MAYBE),
        (("rm", "-r", f"/tmp/{UNKNOWN}"), Fit.MAYBE),
        (("rm", UNKNOWN, "/"), Fit.MAYBE),
        (("rm", f"-{UNKNOWN}", "/"), Fit.MAYBE),
        (("rm", f"x{UNKNOWN}", "/"), Fit.NO),
        (("rm", "-r", UNKNOWN, "/"), Fit.YES),
    ],
)
def test_options_and_operands_in_every_order_and_spelling(argv: tuple[str, ...], fit: Fit) -> None:
    asked = command(*argv)
    assert judge(SYSTEM, asked, PLACES) is fit
    assert (matches(SYSTEM, asked, PLACES), may_match(SYSTEM, asked, PLACES)) == (
        fit is Fit.YES,
        fit is Fit.MAYBE,
    )


def test_a_relative_operand_in_an_unknown_directory_may_be_anything() -> None:
    assert judge(SYSTEM, command("rm", "-r", "x", cwd=None), PLACES) is Fit.MAYBE


@pytest.mark.parametrize(
    ("pattern", "word", "meets"),
    [
        ("/etc/**", "/e*", True),
        ("/etc/**", "/*/passwd", True),
        ("/etc/**", "/[a-f]tc", True),
        ("/etc/**", "/?tc", True),
        ("/etc/**", "/usr/*", False),
        ("/*", "/**/x", True),
        ("/etc/**", "/tmp/**/x", False),
        ("**/.git/**", "/a/b/.g*", True),
        ("**/.git/**", "/a/b/.gi", False),
        ("*.pem", "key.*", True),
        ("~/.ssh/**", "/home/session/.ssh/id", True),
        ("if=/dev/zero", "if=/dev/z*", True),
    ],
)
def test_a_word_still_to_be_expanded_meets_what_its_expansions_meet(pattern: str, word: str, meets: bool) -> None:
    fit = operand_fit(pattern, word, cwd="/work", home=HOME, glob=True, recursive=False)
    assert fit is (Fit.YES if meets else Fit.NO)


@pytest.mark.parametrize(
    ("path", "cwd", "normalised"),
    [
        ("/a//b/./c/../d/", "/", "/a/b/d"),
        ("../../../x", "/a", "/x"),
        ("x", "/a/b", "/a/b/x"),
        ("~", "/a", HOME),
        ("/proc/self/root/etc", "/", "/etc"),
        ("/proc/1/task/2/root/../etc", "/", "/proc/1/task/2/etc"),
        ("/proc/self/root/proc/9/root", "/", "/"),
        ("/proc/self/cwd/x", "/a", "/a/x"),
        ("x", None, UNKNOWN),
        (f"/a/{UNKNOWN}/b", "/", UNKNOWN),
    ],
)
def test_an_operand_has_one_spelling(path: str, cwd: str | None, normalised: str) -> None:
    assert normalise_operand(path, cwd, HOME) == normalised


@pytest.mark.parametrize(
    ("name", "program", "fits"),
    [
        ("mkfs", "mkfs", True),
        ("mkfs", "mkfs.ext4", True),
        ("mkfs", "mke2fs", True),
        ("mkfs", "mkfifo", False),
        ("python", "python3.12", True),
        ("python", "pythonista", False),
        ("mk*", "mkswap", True),
        ("rm", "rmdir", False),
        ("awk", "gawk", True),
    ],
)
def test_a_program_is_matched_with_its_variants(name: str, program: str, fits: bool) -> None:
    assert matches(CommandMatch((name,)), command(program), PLACES) is fits


@pytest.mark.parametrize(
    ("argv", "fits"),
    [
        (("git", "push", "--force"), True),
        (("git", "push", "-f", "origin"), True),
        (("git", "-C", "/x", "push", "--forc"), True),
        (("git", "-c", "a=b", "--git-dir", "/x", "push", "-uf"), True),
        (("git", "push", "--force-with-lease"), False),
        (("git", "pull", "--force"), False),
        (("git", "commit", "-m", "push"), False),
    ],
)
def test_a_subcommand_is_found_behind_global_options(argv: tuple[str, ...], fits: bool) -> None:
    assert matches(parse_shorthand("git push --force"), command(*argv), PLACES) is fits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mkfs", CommandMatch(("mkfs",))),
        ("dd if=/dev/zero", CommandMatch(("dd",), operands=("if=/dev/zero",))),
        ("rm -rf /", CommandMatch(("rm",), options=("recursive", "force"), operands=("/",))),
        ("git push --force", CommandMatch(("git",), subcommand=("push",), options=("force",))),
        ("kubectl delete ns", CommandMatch(("kubectl",), subcommand=("delete", "ns"))),
        ("find -delete", CommandMatch(("find",), options=("delete",))),
    ],
)
def test_a_shorthand_says_program_subcommand_options_and_operand(text: str, expected: CommandMatch) -> None:
    assert parse_shorthand(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "-rf", "/bin/rm x", "A=1 rm", "rm 'x'", "rm | x", "rm $x", "rm /a /b"])
def test_a_shorthand_that_is_not_one_is_refused_with_the_fix(text: str) -> None:
    with pytest.raises(ShorthandError) as caught:
        parse_shorthand(text)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("argv", "globs", "covered"),
    [
        (("rm", "-r", "/opt/scratch"), (), True),
        (("rm", "-r", "/opt/scratch/a", "/opt/scratch/b"), (), True),
        (("rm", "-r", "/opt/scratch/*"), (2,), True),
        (("rm", "-r", "/opt/scratch", "/etc"), (), False),
        (("rm", "-r", "/opt/scratch/../../etc"), (), False),
        (("rm", "-r", f"/opt/scratch/{UNKNOWN}"), (), False),
        (("rm", "-r", "/opt/*"), (2,), False),
        (("rm", "-r", "/opt/scratch/**/x"), (2,), False),
        (("rm", "-r"), (), False),
        (("dd", "/opt/scratch"), (), False),
    ],
)
def test_an_exception_covers_only_commands_all_of_whose_operands_it_names(
    argv: tuple[str, ...], globs: tuple[int, ...], covered: bool
) -> None:
    excepted = CommandMatch(("rm",), operands=("/opt/scratch/**",))
    assert covers(excepted, command(*argv, globs=globs), PLACES) is covered


_PARTS = st.lists(st.sampled_from(["a", "b", "/", "*", "?", "**", "[ab]"]), max_size=7).map("".join)


@given(_PARTS, st.lists(st.sampled_from(["a", "b", "/"]), max_size=6).map("".join))
def test_a_plain_word_that_fits_still_fits_when_taken_for_a_glob(pattern: str, word: str) -> None:
    plain = operand_fit(f"/x{pattern}", f"/x{word}", cwd="/", home=HOME, glob=False, recursive=False)
    as_glob = operand_fit(f"/x{pattern}", f"/x{word}", cwd="/", home=HOME, glob=True, recursive=False)
    assert plain is as_glob


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_operand_and_pattern_are_answered(pattern: str, word: str) -> None:
    for glob in (False, True):
        assert operand_fit(pattern, word, cwd="/", home=HOME, glob=glob, recursive=True) in Fit


@given(st.text(min_size=1, max_size=80))
def test_a_normalised_operand_is_absolute_and_has_no_way_up(word: str) -> None:
    path = normalise_operand(word, "/a", HOME)
    assert path == UNKNOWN or (path.startswith("/") and not re.search(r"//|/\.\.?(?:/|$)", path))
