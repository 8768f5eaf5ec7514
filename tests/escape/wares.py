"""What the clients of the matrix fetch, and the clients that no package brings: made once, put into an arena.

Everything lies below `public` of the arena's directory, which sessions see as `/srv/shared/public`, or is served by the
stand-in web server (`files`, `git`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from tests.conftest import require
from tests.runtimes.cache import cached

PROGRAMS = Path(__file__).parent / "programs"
NPM = Path("/usr/lib/node_modules/npm")
PUBLIC = "/srv/shared/public"
WHEEL = "tiny-1.0-py3-none-any.whl"


def provide(shared: Path) -> None:
    """All of it."""
    public = shared / "public"
    public.mkdir(exist_ok=True)
    for program in PROGRAMS.iterdir():
        shutil.copy(program, public)
    shutil.copy(_go_client(), public / "get")
    shutil.copy(_static_client(), public / "direct")
    require(NPM.is_dir(), "npm is not installed")
    shutil.copytree(NPM, public / "npm", symlinks=True, dirs_exist_ok=True)
    _packages(shared / "files")
    _repository(shared)
    _ssh_keys(shared)


def _named(name: str, source: Path) -> str:
    return f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"


def _go_client() -> Path:
    source = PROGRAMS / "get.go"
    require(shutil.which("go"), "Debian's golang-go is not installed")

    def build(path: Path) -> None:
        environment = {
            "CGO_ENABLED": "0",
            "GOCACHE": f"{path.parent}/go",
            "PATH": "/usr/bin:/bin",
            "GO111MODULE": "off",
        }
        argv = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(path), str(source)]
        subprocess.run(argv, env=environment, check=True, capture_output=True, timeout=280)

    return cached(_named("go-client", source), build)


def _static_client() -> Path:
    source = PROGRAMS / "direct.c"
    require(shutil.which("gcc"), "gcc is not installed")

    def build(path: Path) -> None:
        subprocess.run(["gcc", "-static", "-O1", "-o", str(path), str(source)], check=True, capture_output=True)

    return cached(_named("static-client", source), build)


def _packages(files: Path) -> None:
    """A registry with one package each, for npm and for pip (PEP 503)."""
    npm, simple = files / "npm", files / "simple" / "tiny"
    npm.mkdir(parents=True, exist_ok=True)
    simple.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        manifest = json.dumps({"name": "tiny", "version": "1.0.0", "main": "index.js"}).encode()
        for name, text in (("package.json", manifest), ("index.js", b"module.exports = 'tiny';\n")):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    (npm / "tiny-1.0.0.tgz").write_bytes(packed.getvalue())
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed.getvalue()).digest()).decode()
    dist = {"tarball": "https://npm.good.test/files/npm/tiny-1.0.0.tgz", "integrity": integrity}
    version = {"name": "tiny", "version": "1.0.0", "dist": dist}
    described = {"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (npm / "tiny").write_text(json.dumps(described))
    with zipfile.ZipFile(simple / WHEEL, "w") as wheel:
        about = "tiny-1.0.dist-info"
        wheel.writestr("tiny.py", "x = 1\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", f"tiny.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    (simple / "index").write_text(f'<!DOCTYPE html><html><body><a href="{WHEEL}">{WHEEL}</a></body></html>')


def _git(*argv: str, at: Path) -> None:
    who = ("-c", "user.name=Tester", "-c", "user.email=tester@good.test", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *argv], cwd=at, check=True, capture_output=True)


def _repository(shared: Path) -> None:
    """`git/project.git`, with one commit."""
    work = shared / "work"
    work.mkdir()
    (work / "hello").write_text("reached the repository\n")
    _git("init", at=work)
    _git("add", "hello", at=work)
    _git("commit", "--message", "hello", at=work)
    (shared / "git").mkdir()
    _git("clone", "--bare", "work", "git/project.git", at=shared)
    _git("config", "http.receivepack", "true", at=shared / "git" / "project.git")
    shutil.rmtree(work)


def _ssh_keys(shared: Path) -> None:
    """The server's key, and the one that it lets in, which the session holds."""
    (shared / "ssh").mkdir(mode=0o700)
    for path in (shared / "ssh" / "host", shared / "public" / "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    (shared / "public" / "key").chmod(0o644)  # ssh minds the mode of its own user's files only
    shutil.copy(shared / "public" / "key.pub", shared / "ssh" / "authorized")
    (shared / "ssh" / "config").write_text(
        "ListenAddress 127.0.0.3:22\nListenAddress 203.0.113.12:22\nHostKey /srv/shared/ssh/host\nPidFile none\n"
        "UsePAM no\nStrictModes no\n"
        "AuthorizedKeysFile /srv/shared/ssh/authorized\nPermitRootLogin prohibit-password\nLogLevel ERROR\n"
        "ForceCommand case $SSH_ORIGINAL_COMMAND in git-upload-pack*) exec git -c safe.directory=* upload-pack "
        "/srv/shared/git/project.git;; *) echo reached the shell;; esac\n"
    )
