"""Git over HTTPS as requests: which repository one is about, and what it needs the right to do.

Rules kept here: only the requests of the smart protocol are git here, spelled exactly as git spells them; the dumb
protocol (objects by path, ``info/refs`` without a service) is not, since it reads a repository without naming what for.
Git LFS is one endpoint for both directions, told apart only in the body: everything of it needs the right to push.

Sources: gitprotocol-http(5); the Git LFS API (docs/api/batch.md, docs/api/locking.md of git-lfs).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from agent.policy.conditions import QueryError, parse_query
from agent.policy.globs import match_segments
from agent.policy.model import GitRepositories
from agent.policy.url_paths import UrlPathError, segments
from agent.values import dataclass


class Right(StrEnum):
    """What a request does to a repository."""

    FETCH = "fetch"
    PUSH = "push"


@dataclass(frozen=True, slots=True)
class GitRequest:
    """`repository`: the segments of its path, the last one without ``.git``."""

    right: Right
    repository: tuple[str, ...]

    def __str__(self) -> str:
        return f"git {self.right} of {'/'.join(self.repository)}"


_SERVICES: Final = {"git-upload-pack": Right.FETCH, "git-receive-pack": Right.PUSH}
_LFS: Final = ("info", "lfs")
_LFS_ENDPOINTS: Final = (
    ("POST", ("objects", "batch")),
    ("GET", ("locks",)),
    ("POST", ("locks",)),
    ("POST", ("locks", "verify")),
    ("POST", ("locks", "*", "unlock")),
)


def read_git(method: str, path: str, query: str) -> GitRequest | None:
    """What a request is to git, None where it is none of the smart protocol's."""
    try:
        parts = segments(path)
    except UrlPathError:
        return None
    if method == "GET" and parts[-2:] == ("info", "refs"):
        right = _service(query)
        return None if right is None else _of(right, parts[:-2])
    if method == "POST" and parts[-1] in _SERVICES:
        return _of(_SERVICES[parts[-1]], parts[:-1])
    for verb, endpoint in _LFS_ENDPOINTS:
        tail = (*_LFS, *endpoint)
        if method == verb and match_segments(tail, parts[-len(tail) :]):
            return _of(Right.PUSH, parts[: -len(tail)])
    return None


def allows_git(repositories: GitRepositories, request: GitRequest) -> bool:
    """Is there a glob for this repository and this right?"""
    globs = repositories.fetch if request.right is Right.FETCH else repositories.push
    return any(match_segments(glob.split("/"), request.repository) for glob in globs)


def _service(query: str) -> Right | None:
    try:
        parameters = parse_query(query)
    except QueryError:
        return None
    if len(parameters) != 1 or parameters[0][0] != "service":
        return None
    return _SERVICES.get(parameters[0][1])


def _of(right: Right, repository: tuple[str, ...]) -> GitRequest | None:
    if not repository:
        return None
    name = repository[-1].removesuffix(".git")
    if not name or name.endswith(".git"):
        return None
    return GitRequest(right, (*repository[:-1], name))
