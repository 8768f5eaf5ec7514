"""The layout of the house, kept by checks: what every committed file may hold, and where its tests lie."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import require

CHECKOUT = Path(__file__).parents[1]
LONGEST_FILE = 400
LONGEST_FUNCTION = 50  # the aim is 40
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")

# Where a developer's machine shows through: the checkout, a private interpreter, private wheels and indexes.
MACHINE = re.compile(r"/work/(main|shared)\b|/root/\.(pyenv|cargo)|/opt/(wheels|pypi)|/etc/xdg/pip")
# Hosts that packages are fetched from. The default policy names one (and its rules and tests with it), and bundles name
# those that a tool uses where it is not configured; nothing else may depend on a particular registry.
REGISTRY = re.compile(
    r"files\.pythonhosted\.org|registry\.npmjs\.org|registry-1\.docker\.io|deb\.debian\.org|static\.crates\.io"
    r"|proxy\.golang\.org|rubygems\.org"
)
# Tests of a place rather than of a module.
NOT_MIRRORED = ("container", "escape", "fuzz", "runtimes", "test_docs.py", "test_house.py")


def committed() -> list[Path]:
    """The files of the checkout as git knows them (new ones included, ignored ones not), relative to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    require(listed.returncode == 0, "not a git checkout")
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    return sorted(path for path in paths if (CHECKOUT / path).is_file())


def modules() -> list[Path]:
    return [path for path in committed() if path.parts[0] == "agent" and path.suffix == ".py"]


def programs() -> list[Path]:
    """The agent's, the tests' and the benchmarks'."""
    return [path for path in committed() if path.suffix == ".py"]


def lines_with(pattern: re.Pattern[str], paths: list[Path]) -> Iterator[str]:
    for path in paths:
        try:
            text = (CHECKOUT / path).read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if pattern.search(line):
                yield f"{path}:{number}: {line.strip()}"


def test_no_file_names_a_path_of_one_machine() -> None:
    assert list(lines_with(MACHINE, [path for path in committed() if path != Path("tests/test_house.py")])) == []


def test_no_file_holds_two_sides_of_a_merge() -> None:
    assert list(lines_with(re.compile(r"^(<{7}|>{7}) "), committed())) == []


def test_no_file_outside_the_policies_names_a_package_registry() -> None:
    exempt = {Path("tests/test_house.py")}
    paths = [path for path in committed() if path.parts[0] != "policies" and path not in exempt]
    assert list(lines_with(REGISTRY, paths)) == []


def test_files_are_short() -> None:
    lengths = {str(path): len((CHECKOUT / path).read_text().splitlines()) for path in programs()}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_functions_are_short() -> None:
    long: dict[str, int] = {}
    for path in programs():
        for node in ast.walk(ast.parse((CHECKOUT / path).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long[f"{path}:{node.lineno} {node.name}"] = length
    assert long == {}


def test_every_module_opens_with_what_it_is() -> None:
    texts = {path: (CHECKOUT / path).read_text() for path in modules()}
    assert [path for path, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


def test_a_file_of_the_command_line_is_one_verb() -> None:
    from agent.cli.main import VERBS

    assert sorted(VERBS.values()) == sorted(f"agent.cli.{verb.replace('-', '_')}" for verb in VERBS)
    assert [verb for verb, module in VERBS.items() if find_spec(module) is None] == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_address(name: str) -> None:
    text = (CHECKOUT / name).read_text()
    entries = [
        entry.split() for entry in text.replace("\\\n", " ").splitlines() if entry.strip(" #") and entry[0] != "#"
    ]
    assert entries
    assert [e[0] for e in entries if not re.fullmatch(r"[a-z0-9._-]+==[^\s=]+", e[0])] == []
    unhashed = [e[0] for e in entries if not e[1:] or not all(h.startswith("--hash=sha256:") for h in e[1:])]
    assert unhashed == []
    assert re.findall(r"https?:|file:/|index-url|find-links", text) == []


@pytest.mark.parametrize(("name", "table"), [("requirements.lock", "project"), ("requirements-dev.lock", "dev")])
def test_a_lock_holds_what_pyproject_asks_for(name: str, table: str) -> None:
    pyproject = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    asked = pyproject["project"]["dependencies"] if table == "project" else pyproject["dependency-groups"]["dev"]
    wanted = {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for line in asked}
    assert wanted - pinned(name).keys() == set()


def test_the_locks_agree_with_one_another() -> None:
    runtime = pinned("requirements.lock")
    for other in (pinned("requirements-dev.lock"), pinned("requirements-build.lock")):
        assert {
            package: version for package, version in other.items() if runtime.get(package, version) != version
        } == {}


def pinned(name: str) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9._-]+)==(\S+)", (CHECKOUT / name).read_text(), re.MULTILINE)
    return dict(found)


def test_tests_lie_where_their_module_lies() -> None:
    astray = []
    for path in committed():
        if path.parts[0] != "tests" or not path.name.startswith("test_") or path.suffix != ".py":
            continue
        where = path.parent.parts[1:]
        if path.parts[1] in NOT_MIRRORED:
            continue
        tested = path.stem.removeprefix("test_")
        names = {module.stem for module in modules() if module.parent == Path("agent", *where)}
        # test_load.py is of load.py; test_load_positions.py is a second file about load.py
        if not any(tested == name or tested.startswith(f"{name}_") for name in names):
            astray.append(str(path))
    assert astray == []


def test_the_python_of_the_checkout_is_the_python_of_the_image() -> None:
    version = (CHECKOUT / ".python-version").read_text().strip()
    bases = re.findall(r"^FROM (\S+)", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)
    assert bases
    assert set(bases) == {f"python:{version}-slim-trixie"}


def test_the_wheel_holds_every_module_and_every_policy(tmp_path: Path) -> None:
    require(find_spec("setuptools"), "setuptools is not installed (make setup installs it)")
    tree = tmp_path / "tree"
    for path in committed():
        if path.parts[0] in ("agent", "policies", "pyproject.toml", "README.md"):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes((CHECKOUT / path).read_bytes())
    (tree / "agent/embedded").symlink_to("../policies")
    argv = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
    ]
    subprocess.run([sys.executable, *argv, str(tree)], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    policies = [
        path.relative_to("policies") for path in committed() if path.parts[0] == "policies" and path.suffix == ".yaml"
    ]
    assert policies
    sources = {str(path) for path in committed() if path.parts[0] == "agent" and path.suffix in (".py", ".c", ".h")}
    assert held == sources | {f"agent/embedded/{path}" for path in policies}
