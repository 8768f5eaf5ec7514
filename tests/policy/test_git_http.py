"""Git over HTTPS by repository: which request is what, and what refuses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.decide import decide
from agent.policy.git_http import Right, read_git
from tests.policy.given import policy, url

HUB = "egress: {allow: [{id: hub, host: git.test, git: {fetch: ['example/*'], push: [example/project, 'own/**']}}]}"


@pytest.mark.parametrize(
    "asked",
    [
        "https://git.test/example/project.git/info/refs?service=git-upload-pack",
        "https://git.test/example/project/info/refs?service=git-upload-pack",
        "https://git.test/%65xample/other.git/info/refs?service=git-upload-pack",
        "POST https://git.test/example/other.git/git-upload-pack",
        "https://git.test/example/project.git/info/refs?service=git-receive-pack",
        "POST https://git.test/example/project/git-receive-pack",
        "POST https://git.test/own/a/b/c.git/git-receive-pack",
        "POST https://git.test/example/project.git/info/lfs/objects/batch",
        "POST https://git.test/example/project.git/info/lfs/locks/7/unlock",
        "GET https://git.test/example/project.git/info/lfs/locks",
    ],
)
def test_git_may_do_what_the_rule_names(asked: str) -> None:
    decision = decide(policy(HUB), url(asked))
    assert (str(decision.verdict), decision.rule) == ("allow", "hub")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("POST https://git.test/example/other.git/git-receive-pack", "git push of example/other on git.test:443"),
        ("https://git.test/example/other/info/refs?service=git-receive-pack", "git push of example/other on"),
        ("POST https://git.test/own/a.git/git-upload-pack", "git fetch of own/a on"),
        ("POST https://git.test/evil/project.git/git-upload-pack", "git fetch of evil/project on"),
        ("POST https://git.test/Example/project.git/git-upload-pack", "git fetch of Example/project on"),
        ("POST https://git.test/example/a/b.git/git-upload-pack", "git fetch of example/a/b on"),
        ("POST https://git.test/example/other.git/info/lfs/objects/batch", "git push of example/other on"),
        ("https://git.test/example/project.git/info/refs", "no request of git, on"),
        ("https://git.test/example/project.git/info/refs?service=git-upload-pack&x=1", "no request of git, on"),
        (
            "https://git.test/example/project/info/refs?service=git-upload-pack&service=git-receive-pack",
            "no request of git, on",
        ),
        ("https://git.test/example/project/info/refs?service=git-upload-pack;x", "no request of git, on"),
        ("https://git.test/example/project/info/refs?service=git-shell", "no request of git, on"),
        ("https://git.test/example/project.git/HEAD", "no request of git, on"),
        ("https://git.test/example/project.git/objects/info/packs", "no request of git, on"),
        ("https://git.test/example/project.git/objects/00/11", "no request of git, on"),
        ("GET https://git.test/example/project.git/git-upload-pack", "no request of git, on"),
        ("POST https://git.test/example/project.git/info/refs?service=git-upload-pack", "no request of git, on"),
        ("POST https://git.test/example/project.git/git-upload-pack/", "no request of git, on"),
        ("POST https://git.test/example/../evil/x.git/git-upload-pack", "no request of git, on"),
        ("POST https://git.test/example%2Fproject.git/git-upload-pack", "no request of git, on"),
        ("POST https://git.test/example/project.git.git/git-upload-pack", "no request of git, on"),
        ("POST https://git.test/example/.git/git-upload-pack", "no request of git, on"),
        ("POST https://git.test/git-upload-pack", "no request of git, on"),
        ("https://git.test/example/project", "no request of git, on"),
        ("POST https://git.test/example/project/settings", "no request of git, on"),
    ],
)
def test_everything_else_is_refused_with_the_repository_and_the_right(asked: str, said: str) -> None:
    decision = decide(policy(HUB), url(asked))
    assert (str(decision.verdict), decision.rule) == ("deny", "egress-default")
    assert said in decision.reason
    assert "git fetch of example/*" in decision.reason
    assert "git push to example/project own/**" in decision.reason


def test_a_rule_that_only_fetches_pushes_nothing() -> None:
    given = policy("egress: {allow: [{host: git.test, git: {fetch: '**'}}]}")
    assert decide(given, url("POST https://git.test/a/b/c.git/git-upload-pack")).permitted
    assert not decide(given, url("POST https://git.test/a/b/c.git/git-receive-pack")).permitted


NAME = st.text(st.sampled_from("abz019-_."), min_size=1, max_size=8).filter(
    lambda text: text not in (".", "..") and not text.endswith(".git")
)


@given(st.lists(NAME, min_size=1, max_size=4), st.sampled_from(["", ".git"]))
def test_a_repository_is_read_back_from_its_path(parts: list[str], suffix: str) -> None:
    path = "/" + "/".join(parts) + suffix
    found = read_git("POST", f"{path}/git-receive-pack", "")
    assert found is not None
    assert (found.right, found.repository) == (Right.PUSH, tuple(parts))


@given(st.sampled_from(["GET", "POST", "PUT", "get"]), st.text(max_size=40), st.text(max_size=30))
def test_nothing_but_a_request_of_git_comes_out_of_any_text(method: str, path: str, query: str) -> None:
    found = read_git(method, path, query)
    assert found is None or (found.repository and all(part not in ("", ".", "..") for part in found.repository))
