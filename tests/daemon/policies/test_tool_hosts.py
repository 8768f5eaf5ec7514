"""The tools' own configuration: read from where an image has it, and from nowhere a session could write."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from agent.daemon.policies.tool_hosts import ToolHosts
from agent.policy.bundles import BundleFault, ToolHost
from agent.policy.request import Protocol


class Image:
    """A made-up image: a root for configuration files and a directory of programs."""

    def __init__(self, place: Path) -> None:
        self.root = place / "root"
        self.programs = place / "usr" / "bin"
        self.root.mkdir()
        self.programs.mkdir(parents=True)

    def file(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def ask(self, tool: str, **environ: str) -> tuple[ToolHost, ...] | BundleFault:
        path = f"{self.programs}:/usr/bin:/bin" if any(self.programs.iterdir()) else str(self.programs)
        return ToolHosts(environ, root=self.root, path=path).bundle(tool)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def hosts(found: tuple[ToolHost, ...] | BundleFault) -> list[tuple[str, int, Protocol]]:
    assert isinstance(found, tuple), found
    return [(host.host, host.port, host.protocol) for host in found]


TLS, HTTP = Protocol.TLS, Protocol.HTTP


def test_pip_without_configuration_uses_its_documented_default(image: Image) -> None:
    assert hosts(image.ask("pip")) == [("pypi.org", 443, TLS)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[global]\nindex-url = https://i.test/simple\n", [("i.test", 443, TLS)]),
        ("[install]\nindex-url = http://i.test:8080/simple\n", [("i.test", 8080, HTTP)]),
        (
            "[global]\nindex-url = https://i.test/\nextra-index-url =\n  https://e.test/\n  https://f.test:8443/\n",
            [("i.test", 443, TLS), ("e.test", 443, TLS), ("f.test", 8443, TLS)],
        ),
        ("[global]\nextra-index-url = https://e.test/\n", [("pypi.org", 443, TLS), ("e.test", 443, TLS)]),
        ("[global]\nindex-url = https://u:p%40ss@i.test/\n", [("i.test", 443, TLS)]),
        (
            "[global]\nindex-url = https://i.test/\nfind-links = /some/where https://l.test/x\n",
            [("i.test", 443, TLS), ("l.test", 443, TLS)],
        ),
        ("[list]\nindex-url = https://no.test/\n", [("pypi.org", 443, TLS)]),
    ],
)
@pytest.mark.parametrize("place", ["etc/pip.conf", "etc/xdg/pip/pip.conf"])
def test_pip_is_read_from_the_systems_files(
    image: Image, place: str, text: str, expected: list[tuple[str, int, Protocol]]
) -> None:
    image.file(place, text)
    assert hosts(image.ask("pip")) == expected


def test_pip_is_read_from_the_environment_and_from_beside_its_interpreter(image: Image) -> None:
    image.program("pip3", "exit 1")
    (image.programs.parent / "pip.conf").write_text("[global]\nextra-index-url = https://site.test/\n")
    found = image.ask(
        "pip", PIP_INDEX_URL="https://env.test/simple", PIP_EXTRA_INDEX_URL="https://a.test https://b.test"
    )
    assert [host for host, _, _ in hosts(found)] == ["env.test", "a.test", "b.test", "site.test"]


def test_pip_is_read_from_a_named_file_and_not_at_all_where_that_is_the_null_device(image: Image) -> None:
    named = image.file("named.conf", "[global]\nindex-url = https://named.test/\n")
    image.file("etc/pip.conf", "[global]\nextra-index-url = https://e.test/\n")
    assert [h for h, _, _ in hosts(image.ask("pip", PIP_CONFIG_FILE=str(named)))] == ["e.test", "named.test"]
    assert [h for h, _, _ in hosts(image.ask("pip", PIP_CONFIG_FILE="/dev/null"))] == ["pypi.org"]


def test_no_users_configuration_is_read(image: Image) -> None:
    for name in (".config/pip/pip.conf", ".pip/pip.conf", ".npmrc"):
        image.file(name, "[global]\nindex-url = https://evil.test/\nregistry=https://evil.test/\n")
    assert hosts(image.ask("pip", HOME=str(image.root), XDG_CONFIG_HOME=f"{image.root}/.config")) == [
        ("pypi.org", 443, TLS)
    ]


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_may_write_is_refused(image: Image, mode: int) -> None:
    image.file("etc/pip.conf", "[global]\nindex-url = https://i.test/\n", mode)
    found = image.ask("pip")
    assert isinstance(found, BundleFault)
    assert "may be written by others" in found.message and "chmod go-w" in found.fix


@pytest.mark.parametrize("text", ["index-url = x", "[global\n", "[global]\nindex-url = https://[x/\n", "\udcff"])
def test_a_file_that_cannot_be_read_is_a_fault(image: Image, text: str) -> None:
    path = image.file("etc/pip.conf", "")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert isinstance(image.ask("pip"), BundleFault)


def test_npm_is_asked_itself_and_without_anybodys_settings(image: Image) -> None:
    image.program(
        "npm", f'echo "$@" > {image.root}/asked; echo "$HOME $SECRET" >> {image.root}/asked; cat {image.root}/said'
    )
    settings = {"registry": "https://r.test/", "@corp:registry": "http://c.test:4873/", "prefix": "https://no.test/"}
    image.file("said", json.dumps(settings))
    assert hosts(image.ask("npm", SECRET="s")) == [("r.test", 443, TLS), ("c.test", 4873, HTTP)]
    asked = (image.root / "asked").read_text()
    words, home = asked.splitlines()
    assert words == "config list --json --userconfig /dev/null"
    assert home.strip().startswith(tempfile.gettempdir())
    assert not Path(home.strip()).exists()


def test_npm_is_told_what_the_agents_environment_says(image: Image) -> None:
    image.program("npm", 'echo "{\\"registry\\": \\"$NPM_CONFIG_REGISTRY\\"}"')
    assert hosts(image.ask("npm", NPM_CONFIG_REGISTRY="https://env.test/")) == [("env.test", 443, TLS)]


def test_apt_is_asked_for_its_sites(image: Image) -> None:
    image.program(
        "apt-get", "echo http://d.test/debian/; echo http://d.test/debian/; echo https://s.test/; echo cdrom:x"
    )
    assert hosts(image.ask("apt")) == [("d.test", 80, HTTP), ("s.test", 443, TLS)]


@pytest.mark.parametrize(
    ("tool", "program", "script", "message"),
    [
        ("npm", None, "", "npm is not installed"),
        ("apt", None, "", "apt-get is not installed"),
        ("npm", "npm", "echo broken >&2; exit 3", "npm exited with 3: broken"),
        ("npm", "npm", "echo nonsense", "npm's configuration cannot be read"),
        ("npm", "npm", "echo '[]'", "npm is configured without any http or https source"),
        ("apt", "apt-get", "true", "apt is configured without any http or https source"),
    ],
)
def test_a_tool_that_cannot_answer_is_a_fault_and_never_an_empty_list(
    image: Image, tool: str, program: str | None, script: str, message: str
) -> None:
    if program is not None:
        image.program(program, script)
    found = image.ask(tool)
    assert isinstance(found, BundleFault)
    assert message in found.message
    assert found.fix


def test_an_unknown_tool_is_no_bundle(image: Image) -> None:
    with pytest.raises(KeyError):
        image.ask("cargo")
