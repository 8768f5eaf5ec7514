"""Rules found by command: none that could fit it is left out, and their order is the policy's."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.policy.command_index import CommandIndex
from agent.policy.commands import Fit, Places, judge
from agent.policy.model import CommandMatch, CommandRule, Where
from agent.policy.request import SimpleCommand

PLACES = Places("/home/s", ("/work",))


def _some(*texts: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(texts), max_size=2, unique=True).map(tuple)


MATCH = st.builds(
    CommandMatch,
    program=_some("rm", "sh", "<shell>", "py*"),
    operands=_some("/etc/**", "a"),
    words=_some("a", "<secret>"),
    redirects=_some("> /etc/**", "< a"),
    environment=_some("LD_PRELOAD", "X=1"),
    piped_from=_some("curl"),
    code_from=_some("curl"),
)
COMMAND = st.builds(
    lambda program, words, **given: SimpleCommand(program, (program, *words), "/work", **given),
    st.sampled_from(["rm", "sh", "python3", "ls", ""]),
    st.lists(st.sampled_from(["a", "/etc/x"]), max_size=2),
    redirects=_some("> /etc/x", "< a").map(lambda found: tuple((text[0], text[2:]) for text in found)),
    assignments=_some("LD_PRELOAD", "X").map(lambda names: tuple((name, "1") for name in names)),
    piped_from=_some("curl"),
    code_from=_some("curl"),
)


@given(matches=st.lists(MATCH, max_size=5), commands=st.lists(COMMAND, min_size=1, max_size=4))
@settings(max_examples=500, deadline=None)
def test_what_could_fit_is_found(matches: list[CommandMatch], commands: list[SimpleCommand]) -> None:
    rules = [CommandRule(f"rule-{at}", match, Where("f", 1, 1)) for at, match in enumerate(matches)]
    index = CommandIndex(rules)
    for command in commands * 2:  # the second time from what is remembered
        fitting = [rule for rule in rules if judge(rule.match, command, PLACES) is not Fit.NO]
        found = index.about(command)
        assert [rule for rule in found if judge(rule.match, command, PLACES) is not Fit.NO] == fitting
        assert list(found) == [rule for rule in rules if rule in found]


def test_a_bare_command_is_not_asked_about_what_it_has_not() -> None:
    rules = [
        CommandRule("wide", CommandMatch(words=("<secret>",)), Where("f", 1, 1)),
        CommandRule("redirected", CommandMatch(redirects=("> /etc/**",)), Where("f", 2, 1)),
    ]
    index = CommandIndex(rules)
    assert [rule.id for rule in index.about(SimpleCommand("ls", ("ls",)))] == ["wide"]
    written = SimpleCommand("ls", ("ls",), redirects=((">", "/etc/x"),))
    assert [rule.id for rule in index.about(written)] == ["wide", "redirected"]
