"""Request paths: one reading or none."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.url_paths import UrlPathError, below, segments


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("/", ("",)),
        ("/a", ("a",)),
        ("/a/", ("a", "")),
        ("/a/b.c", ("a", "b.c")),
        ("/a%20b", ("a b",)),
        ("/%61dmin", ("admin",)),
        ("/caf%C3%A9", ("café",)),
        ("/café", ("café",)),
        ("/100%25", ("100%",)),
        ("/100%25-off", ("100%-off",)),
        ("/two%2520words", ("two%20words",)),
        ("/a...b/..c", ("a...b", "..c")),
        ("/%3Fx", ("?x",)),
    ],
)
def test_a_plain_path_is_decoded_once(raw: str, expected: tuple[str, ...]) -> None:
    assert segments(raw) == expected


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "does not start"),
        ("x", "does not start"),
        ("*", "does not start"),
        ("http://x/", "does not start"),
        ("/pub/../admin", "'..'"),
        ("/pub/..", "'..'"),
        ("/pub/./x", "'..'"),
        ("/pub/%2e%2e/admin", "'..'"),
        ("/pub/.%2E/admin", "'..'"),
        ("/pub//admin", "'//'"),
        ("//pub", "'//'"),
        ("/pub%2fadmin", "encoded '/'"),
        ("/pub%2F..%2Fadmin", "encoded '/'"),
        ("/pub\\admin", "backslash"),
        ("/pub%5cadmin", "backslash"),
        ("/pub;x=1/admin", "';'"),
        ("/pub/..;/admin", "';'"),
        ("/pub%3bx", "';'"),
        ("/%252e%252e/admin", "twice"),
        ("/a%252fb", "twice"),
        ("/a%2500", "twice"),
        ("/%2561dmin", "twice"),
        ("/ADMI%254e", "twice"),
        ("/v%2531", "twice"),
        ("/a%255fb%257Ec%252dd", "twice"),
        ("/a%00", "control"),
        ("/a%0d%0aX: y", "control"),
        ("/a\nb", "control"),
        ("/a%", "incomplete"),
        ("/a%4", "incomplete"),
        ("/a%zz", "incomplete"),
        ("/%c0%ae%c0%ae/x", "UTF-8"),
        ("/%ff", "UTF-8"),
        ("/\udc80", "UTF-8"),
        ("/a?b", "query"),
        ("/a#b", "query"),
    ],
)
def test_a_path_with_two_readings_is_refused(raw: str, reason: str) -> None:
    with pytest.raises(UrlPathError, match=reason.replace("(", r"\(").replace(".", r"\.")):
        segments(raw)


def test_a_trailing_slash_names_the_same_place() -> None:
    assert below(segments("/simple/")) == below(segments("/simple")) == ("simple",)
    assert below(segments("/")) == ()


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(raw: str) -> None:
    try:
        parts = segments(raw)
    except UrlPathError:
        return
    assert "" not in parts[:-1]
    assert not {".", ".."} & set(parts)


@given(st.lists(st.text("ab .-_~é!", min_size=1).filter(lambda part: part not in (".", "..")), min_size=1, max_size=4))
def test_what_is_encoded_comes_back(parts: list[str]) -> None:
    assert segments("/" + "/".join(quote(part) for part in parts)) == tuple(parts)
