"""One spelling per host, and what patterns match."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.policy.addresses import canonical_address
from agent.policy.hosts import HostError, match_host, normalise_host, parse_pattern

SAME = [
    ("API.GOOD.TEST", "api.good.test"),
    ("api.good.test.", "api.good.test"),
    ("_dmarc.good.test", "_dmarc.good.test"),
    ("r3---sn-x.video.test", "r3---sn-x.video.test"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("BÜCHER.example", "xn--bcher-kva.example"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    ("faß.de", "xn--fa-hia.de"),
    ("ex。com", "ex.com"),
    ("ｅｘ．ｃｏｍ", "ex.com"),
    ("аpple.com", "xn--pple-43d.com"),
    ("2130706433", "127.0.0.1"),
    ("0177.0.0.1", "127.0.0.1"),
    ("0x7f000001", "127.0.0.1"),
    ("0X7F.1", "127.0.0.1"),
    ("127.1", "127.0.0.1"),
    ("127.0.1.", "127.0.0.1"),
    ("１２７.1", "127.0.0.1"),
    ("0", "0.0.0.0"),
    ("0x", "0.0.0.0"),
    ("1.2.3.4.", "1.2.3.4"),
    ("[::1]", "::1"),
    ("::1", "::1"),
    ("[::]", "::"),
    ("[::ffff:127.0.0.1]", "127.0.0.1"),
    ("[0:0:0:0:0:ffff:7f00:1]", "127.0.0.1"),
    ("a" * 63 + ".test", "a" * 63 + ".test"),
    (".".join(["a" * 49] * 5) + ".", ".".join(["a" * 49] * 5)),
]

REFUSED = [
    ("", "empty"),
    (".", "empty label"),
    ("a..b", "empty label"),
    ("a.b..", "empty label"),
    (".a", "empty label"),
    ("[evil.test]", "brackets"),
    ("[[evil.test]]", "brackets"),
    ("[1.2.3.4]", "brackets"),
    ("[::1", "brackets"),
    ("evil.test\0.good.test", "control"),
    ("evil.test\r\n.good.test", "control"),
    ("evil test", "white-space"),
    ("evil\u00a0test", "white-space"),
    ("evil\u0085test", "control"),
    ("::ffff:1.2.3.4%x.good.test", "zone"),
    ("[::1%25eth0]", "zone"),
    ("%65vil.test", "percent"),
    ("evil.com:443.good.test", "':'"),
    ("good.test:443", "':'"),
    ("user@good.test", "user"),
    ("*.good.test", "wildcard"),
    ("a" * 64 + ".test", "63"),
    ("a." * 127 + "a", "253"),
    ("foo.0x4", "number"),
    ("1.2.3.4.5", "number"),
    ("09.1", "number"),
    ("1.2.3.256", "range"),
    ("256.1", "range"),
    ("4294967296", "range"),
    ("9" * 60, "number"),
    ("xn--zz", "punycode"),
    ("xn--a", "punycode"),
    ("-a.test", "label"),
    ("a-.test", "label"),
    ("a/b", "label"),
    ("a\\b", "label"),
    ("a?b", "label"),
    ("a#b", "label"),
    ("a℀b.com", "label"),
    ("\ud800.test", "international"),
]


@pytest.mark.parametrize(("text", "expected"), SAME)
def test_what_names_the_same_host_becomes_the_same_text(text: str, expected: str) -> None:
    assert normalise_host(text) == expected


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_is_not_certainly_one_host_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(HostError, match=reason):
        normalise_host(text)


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("good.test", "good.test", True),
        ("good.test", "api.good.test", False),
        ("good.test", "evilgood.test", False),
        ("*.good.test", "api.good.test", True),
        ("*.good.test", "a.b.good.test", True),
        ("*.good.test", "good.test", False),
        ("*.good.test", ".good.test", False),
        ("*.good.test", "evilgood.test", False),
        ("*.good.test", "good.test.evil.test", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("*.0.0.1", "127.0.0.1", True),  # such a pattern can't be parsed from a policy: see below
    ],
)
def test_a_pattern_matches_whole_labels(pattern: str, host: str, expected: bool) -> None:
    assert match_host(pattern, host) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good.TEST", "good.test"),
        ("good.test.", "good.test"),
        ("*.Good.test", "*.good.test"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("xn--pple-43d.com", "xn--pple-43d.com"),
        ("日本語テスト.jp", "xn--zckzah9945czlbtz6h.jp"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
    ],
)
def test_a_policy_entry_is_normalised_like_a_host(text: str, expected: str) -> None:
    assert parse_pattern(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("", "empty", ""),
        ("*", "every host", "name the hosts"),
        ("*.", "every host", "name the hosts"),
        ("*.*", "every host", "name the hosts"),
        ("[*]", "every host", "name the hosts"),
        ("**.[*]", "every host", "name the hosts"),
        ("ex*a.com", "wildcard", "exact hosts"),
        ("*x.a.com", "wildcard", "'*.a.com'"),
        ("a.*.b.com", "wildcard", "'*.b.com'"),
        ("*.*.com", "wildcard", "exact hosts"),
        ("*.0.0.1", "address", "0.0.0.1"),
        ("*.1", "address", "0.0.0.1"),
        ("a.test\n", "white space", "one host per entry"),
        ("a .test", "white space", "one host per entry"),
        ("a.test#x", "'#'", "one host per entry"),
        ("https://a.test/x", "URL", "the host alone"),
        ("a.test/x", "'/'", "paths:"),
        ("10.0.0.0/8", "'/'", "addresses:"),
        ("a.test:443", "port", "ports: [443]"),
        ("[::1]:443", "port", "ports: [443]"),
        (".a.test", "empty label", "'*.a.test'"),
        ("аpple.com", "CYRILLIC and LATIN", "xn--pple-43d"),
        ("0177.0.0.1", "another spelling", "127.0.0.1"),
        ("2130706433", "another spelling", "127.0.0.1"),
        ("[0::1]", "another spelling", "::1"),
        ("user@a.test", "user", ""),
    ],
)
@pytest.mark.row(8, 9)
def test_a_wrong_policy_entry_is_an_error_with_its_fix(text: str, message: str, fix: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_pattern(text)
    assert message in caught.value.message
    assert fix in caught.value.fix


HOSTLIKE = st.text(st.sampled_from("aAbxnß。．.-_0123456789x*:[]%@ \0\r\nаи１"), max_size=40)


@given(HOSTLIKE | st.text(max_size=300))
@example("xn--" + "a" * 60)
def test_a_normalised_host_is_plain_and_normalises_to_itself(text: str) -> None:
    try:
        host = normalise_host(text)
    except HostError:
        return
    assert normalise_host(host) == host
    assert host.isascii()
    assert host == host.lower()
    assert len(host) <= 253
    if canonical_address(host) is None:
        assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@given(HOSTLIKE)
def test_what_a_policy_takes_matches_nothing_outside_its_suffix(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except HostError:
        return
    assert not match_host(pattern, "evil.test")
    assert not match_host(pattern, "127.0.0.1") or pattern == "127.0.0.1"


@given(st.from_regex(r"[a-z]{1,10}(\.[a-z]{1,10}){0,3}", fullmatch=True), st.sampled_from(["", "."]))
def test_case_and_one_trailing_dot_never_change_the_host(name: str, dot: str) -> None:
    assert normalise_host(name.upper() + dot) == name
