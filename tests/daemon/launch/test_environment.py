"""The session's environment is what the rulings say, to the name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.daemon.base.places import Places
from agent.daemon.launch import environment
from agent.daemon.launch.environment import PROXY, TRUST, session_environment
from agent.policy.load import LayerSource, load_policy
from tests.daemon.base.test_spec import SPEC

PLACES = Places(
    public="/r/public", private="/r/private", tmpdir="/tmp/s", home="/home/session", ca_bundle="/r/public/ca",
    resolv_conf="/r/resolv", hosts="/r/hosts", hook_socket="/r/public/hook.sock",
)  # fmt: skip
CALLER = {"CI": "1", "TOKEN": "secret", "PATH": "/bin", "LD_PRELOAD": "x.so"}


def made(*texts: str, placeholders: dict[str, str] | None = None) -> dict[str, str]:
    layers = [LayerSource(f"l{n}", (("p.yaml", "version: 1\n" + text),)) for n, text in enumerate(texts)]
    spec = replace(SPEC, session_env={"PATH": "/bin", "LANG": "C"}, caller_env=CALLER)
    policy = load_policy(layers, {})
    bundle = "/run/parhelia/ca-bundle.pem"
    return session_environment(
        spec, policy, PLACES, workdir="/w", ca_bundle=bundle, port=3128, placeholders=placeholders or {}
    )


def test_only_what_is_kept_passed_or_set_is_there() -> None:
    env = made("session: {env: [CI]}\n")
    proxies = {name for word in PROXY for name in (word, word.lower())}
    assert set(env) == {"PATH", "LANG", "CI", "HOME", "TMPDIR", "PWD", "NO_PROXY", "no_proxy", *proxies, *TRUST}
    assert {env[name] for name in proxies} == {"http://127.0.0.1:3128"}
    assert {env[name] for name in TRUST} == {"/run/parhelia/ca-bundle.pem"}
    assert env["NO_PROXY"] == "localhost,127.0.0.1,::1"
    assert (env["HOME"], env["TMPDIR"], env["PWD"]) == ("/home/session", "/tmp/s", "/w")


@pytest.mark.parametrize(
    ("texts", "passed"),
    [
        ([""], set()),
        (["session: {env: [CI, TOKEN]}\n"], {"CI", "TOKEN"}),
        (["session: {env: [CI, TOKEN]}\n", "session: {env: [CI]}\n"], {"CI"}),
        (["session: {env: [CI]}\n", "session: {env: [CI, TOKEN]}\n"], {"CI"}),
        (["session: {env: [CI]}\n", ""], {"CI"}),
        (["", "session: {env: [TOKEN]}\n"], set()),
        (["session: {env: [NOT_SET]}\n"], set()),
    ],
)
def test_a_further_layer_passes_on_no_more_names(texts: list[str], passed: set[str]) -> None:
    assert set(made(*texts)) & {"CI", "TOKEN", "NOT_SET", "LD_PRELOAD"} == passed


@pytest.mark.parametrize(("shell", "given"), [("/usr/bin/bash", "bash"), ("/bin/zsh", None), ("", None)])
def test_the_images_shells_that_ask_come_first_where_they_can_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, given: str | None
) -> None:
    (tmp_path / "bash").touch()
    monkeypatch.setattr(environment, "SHIM", str(tmp_path))
    spec = replace(SPEC, session_env={"PATH": "/bin", "SHELL": shell})
    policy = load_policy([LayerSource("l", (("p.yaml", "version: 1"),))], {})

    def env(shells: bool) -> dict[str, str]:
        return session_environment(
            spec, policy, PLACES, workdir="/w", ca_bundle="/ca", port=1, placeholders={}, shells=shells
        )

    assert env(True)["PATH"] == f"{tmp_path}:/bin"
    assert env(True)["SHELL"] == (f"{tmp_path}/{given}" if given else shell)
    assert (env(False)["PATH"], env(False)["SHELL"]) == ("/bin", shell)


def test_a_placeholder_takes_the_place_of_what_would_be_passed_on_and_of_no_variable_of_the_agents_own() -> None:
    given = {"TOKEN": "parhelia-placeholder-x", "HOME": "parhelia-placeholder-y"}
    env = made("session: {env: [TOKEN]}\n", placeholders=given)
    assert (env["TOKEN"], env["HOME"]) == ("parhelia-placeholder-x", "/home/session")
