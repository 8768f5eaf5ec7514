"""What holds for every policy and every question: layers narrow, denies narrow, order does not matter."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.policy.decide import decide
from agent.policy.decision import Decision
from agent.policy.load import LayerSource, PolicyError, load_policy
from agent.policy.model import Policy
from agent.policy.request import Request, Stage
from tests.policy.given import command, connect, path, url

HOSTS = ["a.test", "b.test", "x.a.test", "'*.a.test'", "'*.test'"]
ALLOWS = st.sampled_from(
    [
        *HOSTS,
        "{host: a.test, ports: [443, 8443]}",
        "{host: a.test, protocol: http}",
        "{host: a.test, methods: [GET]}",
        "{host: a.test, paths: ['/p/**']}",
        "{host: b.test, addresses: [10.0.0.0/8]}",
    ]
)
DENIES = st.sampled_from(
    [*HOSTS, "{host: a.test, methods: [POST]}", "{host: a.test, paths: ['/p/x']}", "{host: b.test, protocol: http}"]
)
COMMANDS = st.sampled_from(
    [
        "mkfs",
        "dd if=/dev/zero",
        "{match: {program: rm, operands: [/etc/**]}, examples: {match: [rm /etc/x], no_match: [ls]}}",
        "git push",
    ]
)
TREES = st.sampled_from(["/w", "/w/a", "/usr", "/etc", "/"])
MODES = st.sampled_from(["", "mode: enforce, ", "mode: observe, "])


@st.composite
def files(draw: st.DrawFn) -> str:
    """One policy file, most of them valid."""
    parts = []
    if draw(st.booleans()):
        keys = [draw(MODES) + "deny: " + _flow(draw(st.lists(DENIES, max_size=2, unique=True)))]
        if draw(st.booleans()):
            keys.append("allow: " + _flow(draw(st.lists(ALLOWS, max_size=3, unique=True))))
        parts.append("egress: {" + ", ".join(keys) + "}")
    if draw(st.booleans()):
        unverifiable = draw(st.sampled_from(["", "unverifiable: deny, "]))
        parts.append(
            "commands: {" + draw(MODES) + unverifiable + "deny: " + _flow(draw(st.lists(COMMANDS, max_size=2))) + "}"
        )
    if draw(st.booleans()):
        keys = [draw(MODES) + "protect: " + draw(st.sampled_from(["[]", "[.env]"]))]
        for key in ("write", "read"):
            if draw(st.booleans()):
                keys.append(f"{key}: " + _flow(draw(st.lists(TREES, max_size=2, unique=True))))
        parts.append("paths: {" + ", ".join(keys) + "}")
    return "\n".join(["version: 1", *parts])


def _flow(entries: list[str]) -> str:
    return "[" + ", ".join(entries) + "]"


REQUESTS: list[Request] = [
    *(
        url(f"{method} {scheme}://{host}{port}{place}", *addresses, stage=stage)
        for host in ("a.test", "b.test", "x.a.test", "c.test", "10.1.1.1")
        for scheme, port in (("https", ""), ("https", ":8443"), ("http", ""))
        for method in ("GET", "POST")
        for place in ("/p/x", "/p/../x")
        for stage in (Stage.NAME, Stage.REQUEST)
        for addresses in ((), ("10.1.1.1",))
    ),
    *(connect(host, 443, address) for host in ("a.test", "b.test") for address in ("93.184.215.14", "10.1.1.1")),
    *(
        command(text, supervised=supervised)
        for text in (
            "mkfs /dev/x",
            "dd if=/dev/zero of=x",
            "rm /etc/x",
            'rm "$X"',
            "git push",
            'eval "$X"',
            "ls",
            "kill 1",
        )
        for supervised in (True, False)
    ),
    *(
        path(access, place)
        for access in ("read", "write", "execute", "delete")
        for place in ("/w", "/w/a/x", "/w/.env", "/usr/x", "/etc/parhelia/x", "/etc/x", "/dev/null", "/home/session/x")
    ),
]
ASKED = st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=30)


def load(*layers: list[str]) -> Policy | None:
    sources = [
        LayerSource(f"l{number}", tuple((f"{index}.yaml", text) for index, text in enumerate(texts)))
        for number, texts in enumerate(layers)
    ]
    try:
        return load_policy(sources)
    except PolicyError:
        return None


def openness(decision: Decision) -> tuple[bool, bool]:
    """How much is let through: at all, and without being looked into."""
    return decision.permitted, decision.permitted and not decision.inspect


LAYERS = st.lists(files(), min_size=1, max_size=2)


@settings(max_examples=300, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=2), LAYERS, ASKED)
def test_a_further_layer_never_turns_a_denial_into_an_allow(
    base: list[list[str]], further: list[str], asked: list[Request]
) -> None:
    narrow, wide = load(*base, further), load(*base)
    if narrow is None or wide is None:
        return
    for request in asked:
        assert openness(decide(narrow, request)) <= openness(decide(wide, request))


@settings(max_examples=300, deadline=None)
@given(LAYERS, st.lists(DENIES, min_size=1, max_size=2), st.lists(COMMANDS, max_size=2), ASKED)
def test_a_further_deny_never_allows_more(
    base: list[str], denies: list[str], commands: list[str], asked: list[Request]
) -> None:
    added = f"egress: {{deny: {_flow(denies)}}}\ncommands: {{deny: {_flow(commands)}}}\n"
    narrow, wide = load([*base, added]), load(base)
    if narrow is None or wide is None:
        return
    for request in asked:
        assert openness(decide(narrow, request)) <= openness(decide(wide, request))


@settings(max_examples=200, deadline=None)
@given(st.lists(files(), min_size=2, max_size=3), ASKED)
def test_the_order_and_split_of_files_do_not_matter(texts: list[str], asked: list[Request]) -> None:
    one, other = load(texts), load(list(reversed(texts)))
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    assert one.digest == other.digest
    for request in asked:
        mine, theirs = decide(one, request), decide(other, request)
        assert (mine.verdict, openness(mine)) == (theirs.verdict, openness(theirs))


@settings(max_examples=200, deadline=None)
@given(st.lists(LAYERS, max_size=3), ASKED)
def test_every_decision_names_its_rule_its_reason_and_its_policy(layers: list[list[str]], asked: list[Request]) -> None:
    loaded = load(*layers)
    if loaded is None:
        return
    for request in asked:
        decision = decide(loaded, request)
        assert decision.rule and decision.reason
        assert decision.policy_digest == loaded.digest
        assert decision == decide(loaded, request)


def test_the_questions_of_these_tests_are_decided_both_ways() -> None:
    loaded = load(["egress: {allow: [a.test, b.test]}\ncommands: {deny: [mkfs]}\npaths: {write: [/w], read: [/usr]}"])
    assert loaded is not None
    verdicts = {(type(request).__name__, str(decide(loaded, request).verdict)) for request in REQUESTS}
    assert len(verdicts) == 7
