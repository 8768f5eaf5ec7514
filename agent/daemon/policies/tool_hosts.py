"""The egress hosts of pip, npm and apt, from the image's own configuration of these tools.

Rules kept here: only what the image says counts, never what a session could have written (no user configuration of
anybody, no project files; a file that others than its owner may write, or that belongs to neither root nor the agent's
user, is refused); a tool that is not configured is asked for its own default; where neither is to be had the bundle is
a fault with its reason, never an empty list. Credentials in index URLs are dropped unread.

Sources: pip's "Configuration" (file locations, environment variables), npm-config(1), apt-get(8) `indextargets`.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from agent.policy.bundles import BundleFault, ToolHost
from agent.policy.request import Protocol

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PIP_DEFAULT: Final = "https://pypi.org/simple"
"""What pip documents as the default of --index-url; the host is one of the default policy's."""

TIMEOUT_S: Final = 20
MAX_OUTPUT: Final = 1 << 20
_PROTOCOLS: Final = {"https": (Protocol.TLS, 443), "http": (Protocol.HTTP, 80)}

type ToolBundle = tuple[ToolHost, ...] | BundleFault


class Unavailable(Exception):
    """The tool's configuration cannot be had or not be trusted; text and fix."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class ToolHosts:
    """Reads tool configurations below `root` (``/``), with the agent's environment and the image's programs."""

    def __init__(self, environ: Mapping[str, str], *, root: Path = Path("/"), path: str = SYSTEM_PATH) -> None:
        self._environ = environ
        self._root = root
        self._path = path
        self._tools: Mapping[str, Callable[[], list[ToolHost]]] = MappingProxyType(
            {"apt": self._apt, "npm": self._npm, "pip": self._pip}
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The bundles there are."""
        return tuple(self._tools)

    def bundle(self, name: str) -> ToolBundle:
        """The hosts of one tool. Raises KeyError for an unknown name."""
        try:
            hosts = self._tools[name]()
        except Unavailable as error:
            return BundleFault(error.message, error.fix)
        if not hosts:
            return BundleFault(
                f"{name} is configured without any http or https source", f"configure {name} in the image"
            )
        return tuple(dict.fromkeys(hosts))

    def _pip(self) -> list[ToolHost]:
        """Index and extra index URLs: environment, then the global and the site-wide files."""
        found: list[ToolHost] = []
        configured = False
        for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
            urls = self._environ.get(variable, "").split()
            configured |= variable == "PIP_INDEX_URL" and bool(urls)
            found += _hosts(urls, f"pip: {variable}")
        for file in self._pip_files():
            settings = _ini(file)
            for key in ("index-url", "extra-index-url", "find-links"):
                urls = settings.get(key, "").split()
                configured |= key == "index-url" and bool(urls)
                found += _hosts(urls, f"pip: {file}")
        return found if configured else [*_hosts([PIP_DEFAULT], "pip: its default"), *found]

    def _pip_files(self) -> list[Path]:
        named = self._environ.get("PIP_CONFIG_FILE")
        if named == os.devnull:
            return []
        places = [self._root / "etc/xdg/pip/pip.conf", self._root / "etc/pip.conf"]
        program = shutil.which("pip3", path=self._path) or shutil.which("pip", path=self._path)
        if program is not None:
            places.append(Path(program).resolve().parent.parent / "pip.conf")
        if named:
            places.append(Path(named))
        return [place for place in places if place.is_file()]

    def _npm(self) -> list[ToolHost]:
        """The registries npm would use: its merged configuration without any user's or project's file."""
        output = self._ask("npm", "config", "list", "--json", "--userconfig", os.devnull)
        try:
            settings = json.loads(output)
        except ValueError as error:
            raise Unavailable("npm's configuration cannot be read", "try `npm config list --json`") from error
        entries = settings.items() if isinstance(settings, dict) else ()
        urls = [
            value
            for key, value in entries
            if isinstance(value, str) and (key == "registry" or str(key).endswith(":registry"))
        ]
        return _hosts(urls, "npm: npm config")

    def _apt(self) -> list[ToolHost]:
        """The sites of all configured sources."""
        output = self._ask("apt-get", "indextargets", "--format", "$(SITE)")
        return _hosts(sorted(set(output.split())), "apt: its sources")

    def _ask(self, program: str, *arguments: str) -> str:
        """Run the image's own program with a clean environment, away from any project."""
        file = shutil.which(program, path=self._path)
        if file is None:
            raise Unavailable(f"{program} is not installed", "install it in the image, or name the hosts yourself")
        environment = {"PATH": self._path, "LC_ALL": "C.UTF-8"}
        environment |= {name: value for name, value in self._environ.items() if name.lower().startswith("npm_config_")}
        try:
            with tempfile.TemporaryDirectory() as home:  # npm writes a log there even when it is only asked
                done = subprocess.run(
                    [file, *arguments],
                    cwd="/",
                    env={**environment, "HOME": home},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=TIMEOUT_S,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{program} could not be asked: {error}", f"see that `{program}` works") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            detail = said[-1] if said else "no message"
            raise Unavailable(f"{program} exited with {done.returncode}: {detail}", f"see that `{program}` works")
        return done.stdout[:MAX_OUTPUT].decode(errors="replace")


def _hosts(urls: Sequence[str], source: str) -> list[ToolHost]:
    """The destinations of the http and https URLs; others (local directories, cdrom) need no egress."""
    found = []
    for url in urls:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Unavailable(f"{source}: a URL cannot be read", "correct it there") from error
        if parts.scheme not in _PROTOCOLS or not parts.hostname:
            continue
        protocol, default = _PROTOCOLS[parts.scheme]
        found.append(ToolHost(parts.hostname, port or default, protocol, source))
    return found


def _ini(file: Path) -> dict[str, str]:
    """The settings of a pip.conf that concern installs; later sections win as in pip."""
    _refuse_writable(file)
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, configparser.Error) as error:
        raise Unavailable(f"{file} cannot be read: {error.__class__.__name__}", "correct the file") from error
    settings: dict[str, str] = {}
    for section in ("global", "install", "download"):
        if parser.has_section(section):
            settings |= dict(parser.items(section))
    return settings


def _refuse_writable(file: Path) -> None:
    info = file.stat()
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unavailable(f"{file} may be written by others", f"chown root {file}; chmod go-w {file}")
