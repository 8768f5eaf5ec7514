"""Classes of paths that a command rule names in angle brackets: ``<system>``, ``<device>``, …

Rules kept here: what lies in a class is said once, in `CLASSES`; a class is globs, as in `agent.policy.operands`, less
trees and globs that are taken out of it, and only where all of the operand lies there; a word with an unknown part
*may* lie in every class.

Sources: hier(7), null(4), mem(4), the kernel's Documentation/admin-guide/devices.txt; the files of credentials are
those that ssh(1), curl(1), git-credential-store(1), docker(1), the AWS, Google and Azure command lines, npm(1), psql(1)
and gpg(1) name in their manuals.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from agent.expressions import expression
from agent.policy.operands import PATH_MAX, Fit, normalise_operand, operand_fit
from agent.policy.path_sets import any_meets
from agent.policy.paths import AGENT_FILES, DEVICES, HOOK_SETTINGS, covers
from agent.policy.request import UNKNOWN
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Places:
    """Where the session is at home: its home directory, the trees that `paths.write` grants, and the directory in which
    the command was asked for (empty: not known)."""

    home: str
    workspace: tuple[str, ...] = ()
    here: str = ""


@dataclass(frozen=True, slots=True)
class PathClass:
    """`globs`: what belongs to it. `below`: trees whose inside does not; `globs_out`: what else does not. ``~`` is the
    home; `HOME`, `WORKSPACE` and `HERE` stand for the session's own places. `named`: only what the known part of a word
    names belongs to it, not all that its wildcards might meet (``*`` may be a file of credentials; the exec ring sees
    which it is)."""

    about: str
    globs: tuple[str, ...]
    below: tuple[str, ...] = ()
    globs_out: tuple[str, ...] = ()
    named: bool = False


HOME: Final = "(home)"
WORKSPACE: Final = "(workspace)"
HERE: Final = "(here)"
_SCRATCH: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
_STREAMS: Final = (*DEVICES, "/dev/pts/*", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/*", "/proc/*/fd/*")
_TREES: Final = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/media", "/mnt", "/opt", "/proc"),
    *("/root", "/run", "/sbin", "/srv", "/sys", "/usr", "/var"),
)

CLASSES: Final[Mapping[str, PathClass]] = MappingProxyType(
    {
        "<system>": PathClass(
            "the system: / itself and its trees, other users' homes, the roots of shared directories",
            (
                *("/", "/*", "/home", "/home/*", "/tmp", "/vol", "/vol/parhelia"),  # noqa: S108
                *(f"{tree}/**" for tree in _TREES),
            ),
            below=(*_SCRATCH, HOME, WORKSPACE),
            globs_out=(*_STREAMS, "~"),
        ),
        "<home>": PathClass("the session's home, itself and below", ("~", "~/**")),
        "<workspace>": PathClass("what paths.write grants, itself and below", (WORKSPACE,)),
        "<outside>": PathClass(
            "outside of every tree that paths.write grants, of the home and of /tmp",
            ("/**",),
            below=(*_SCRATCH, HOME, WORKSPACE),
            globs_out=(*_STREAMS, "~"),
        ),
        "<here>": PathClass(
            "all of the directory in which the command was asked for: itself, or everything in it",
            (HERE, f"{HERE}/[*]", f"{HERE}/.[*]"),
        ),
        "<device>": PathClass(
            "disks and memory",
            (
                *("/dev/sd*", "/dev/hd*", "/dev/vd*", "/dev/xvd*", "/dev/nvme*", "/dev/mmcblk*", "/dev/pmem*"),
                *("/dev/dm-*", "/dev/md*", "/dev/mapper/*", "/dev/loop*", "/dev/nbd*", "/dev/zram*", "/dev/ram*"),
                *("/dev/disk/**", "/dev/disk*", "/dev/rdisk*", "/dev/sr*", "/dev/mtd*"),
                *("/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore"),
            ),
        ),
        "<agent>": PathClass("the agent's own files", tuple(f"{place}/**" for place in (*AGENT_FILES, *HOOK_SETTINGS))),
        "<agent-private>": PathClass(
            "the agent's files that a session has no business to read",
            (
                *("/etc/parhelia/**", "/vol/parhelia/audit/**", "/run/parhelia/**/*.sock", "/proc/1/mem"),
                *("/proc/1/environ", "/proc/1/maps", "/proc/1/fd/**", "/proc/1/task/**"),
            ),
            named=True,
        ),
        "<secret-file>": PathClass(
            "files that hold credentials",
            (
                *(
                    "**/.env",
                    "**/.env.*",
                    "**/*.env",
                    "**/.envrc",
                    "**/.netrc",
                    "**/_netrc",
                    "**/.pgpass",
                    "**/.my.cnf",
                ),
                *("**/.pypirc", "**/.npmrc", "**/.git-credentials", "**/.htpasswd", "**/.vault-token", "**/.boto"),
                *("**/id_rsa*", "**/id_dsa*", "**/id_ecdsa*", "**/id_ed25519*", "**/*.pem", "**/*.key", "**/*.p12"),
                *("**/*.pfx", "**/*.jks", "**/*.keystore", "**/*.kdbx", "**/*.ppk", "**/.s3cfg", "**/.dockercfg"),
                *("~/.ssh/**", "**/.ssh/**", "**/.aws/credentials", "**/.aws/config", "**/.aws/sso/**"),
                *("**/.azure/**", "**/.config/gcloud/**", "**/.kube/config", "**/.docker/config.json"),
                *("**/.config/gh/hosts.yml", "**/.gnupg/**", "**/.password-store/**", "**/.cargo/credentials*"),
                *(
                    "**/.gem/credentials",
                    "**/.terraform.d/credentials*",
                    "**/.config/op/**",
                    "**/.claude/.credentials*",
                    "**/auth.json",
                    "**/.gemini/oauth_creds.json",
                    "**/.config/github-copilot/**",
                ),
                *("**/credentials.json", "**/service-account*.json", "**/service_account*.json", "**/secrets.y*ml"),
                *("/run/secrets/**", "/var/run/secrets/**", "/etc/shadow*", "/etc/gshadow*", "/etc/sudoers*"),
                *("/etc/ssh/ssh_host_*_key", "/proc/*/environ", "/etc/kubernetes/**"),
            ),
            named=True,
            globs_out=(
                *("**/*cert*.pem", "**/*chain*.pem", "**/ca.pem", "**/ca-*.pem", "/etc/ssl/**", "/usr/**"),
                *("**/*.example", "**/*.sample", "**/*.template", "**/*.tmpl", "**/*.dist", "**/*.pub"),
                *("**/.env.schema", "**/.env.defaults", "**/.ssh/known_hosts*", "**/.ssh/config", "**/example.env"),
            ),
        ),
    }
)
"""Every class, by the name that rules give it."""

_KEYED: Final = expression(r"([A-Za-z_][A-Za-z0-9_-]*=)?(<[a-z-]+>)")
_UNKNOWN_PART: Final = expression(UNKNOWN)
_WILDCARD: Final = expression(f"[*?{UNKNOWN}]|\\[[^]]*\\]")
_PERHAPS_ABOVE: Final = expression(r"\.\.?[*?\[]")  # may become ``..``


@lru_cache(maxsize=1024)
def named_class(pattern: str) -> str | None:
    """The class that `pattern` names (``<device>``, ``of=<device>``), None where it names none; it need not exist."""
    found = _KEYED.fullmatch(pattern)
    return None if found is None else found[2]


def class_fit(pattern: str, word: str, *, cwd: str | None, places: Places, glob: bool, recursive: bool) -> Fit:
    """Does `word` lie in the class that `pattern` names? The flags are those of `agent.policy.operands.operand_fit`."""
    named = named_class(pattern)
    if named is None:
        return Fit.NO
    key = pattern[: -len(named)]
    if key:
        if not word.startswith(key):
            return Fit.MAYBE if word.startswith(UNKNOWN) else Fit.NO
        word = word[len(key) :]
    described = CLASSES[named]
    if not glob and UNKNOWN not in word:
        path = normalise_operand(word, cwd, places.home)
        if path != UNKNOWN and len(path) <= PATH_MAX:
            return _spelled_out_fit(named, path, places, recursive)
    known = (_WILDCARD if glob else _UNKNOWN_PART).sub("", word) if described.named else word
    path = normalise_operand(known, cwd, places.home)
    if path == UNKNOWN:
        return Fit.MAYBE
    glob = glob and not described.named
    if _taken_out(described, path, places, glob):
        return Fit.NO
    shapes = _spelled(described.globs, places)
    best = Fit.MAYBE if UNKNOWN in word else Fit.NO
    if not glob and len(path) <= PATH_MAX:
        return Fit.YES if any_meets(shapes, path, home=places.home, recursive=recursive) else best
    for shape in shapes:
        fit = operand_fit(shape, path, cwd=cwd, home=places.home, glob=glob, recursive=recursive)
        if fit is Fit.YES:
            return fit
        best = max(best, fit)
    return best


def _spelled_out_fit(named: str, path: str, places: Places, recursive: bool) -> Fit:
    """`class_fit` of a path in which nothing is open."""
    below, shapes = _of_class(named, places)
    if path.startswith(below) or not any_meets(shapes, path, home=places.home, recursive=recursive):
        return Fit.NO
    return Fit.NO if any_meets(CLASSES[named].globs_out, path, home=places.home, recursive=False) else Fit.YES


@lru_cache(maxsize=256)
def _of_class(named: str, places: Places) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How paths begin that are taken out of the class, and what belongs to it."""
    described = CLASSES[named]
    roots = [
        root
        for tree in described.below
        for root in (places.workspace if tree == WORKSPACE else (places.home,) if tree == HOME else (tree,))
    ]
    return tuple(f"{root}/" for root in roots if root != "/"), _spelled(described.globs, places)


def class_within(pattern: str, word: str, *, cwd: str | None, places: Places, glob: bool) -> bool:
    """True where everything that `word` can stand for lies in the class (for exceptions: in doubt, False)."""
    if UNKNOWN in word or glob:
        return False
    return class_fit(pattern, word, cwd=cwd, places=places, glob=False, recursive=False) is Fit.YES


def _spelled(globs: tuple[str, ...], places: Places) -> tuple[str, ...]:
    if WORKSPACE in globs:
        return tuple(f"{root}/**" for root in places.workspace)
    if HERE in globs:
        return tuple(shape.replace(HERE, places.here) for shape in globs) if places.here else ()
    return globs


def _taken_out(described: PathClass, path: str, places: Places, glob: bool) -> bool:
    for tree in described.below:
        roots = places.workspace if tree == WORKSPACE else (places.home,) if tree == HOME else (tree,)
        if any(_inside(root, path, glob) for root in roots):
            return True
    if glob:
        return False
    return len(path) <= PATH_MAX and any_meets(described.globs_out, path, home=places.home, recursive=False)


def _inside(root: str, path: str, glob: bool) -> bool:
    """Is all that `path` stands for strictly below `root`? ``.*`` may be ``..`` in older shells, so that it may not."""
    if root in ("/", path) or not covers(root, path):
        return False
    return not glob or not any(_PERHAPS_ABOVE.match(part) for part in path[len(root) :].split("/"))
