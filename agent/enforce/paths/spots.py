"""The tree of what is watched: one spot for each directory that is followed and each file that is told about."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.observers.inotify_c import CallbackId

from agent.enforce.paths.areas import Area
from agent.enforce.paths.sight import Sight, look


class Spot:
    """One file or directory. `inside`: changes to it are told. `digest`: of what was found first. `counted`: it takes
    one of the places that the bounds leave."""

    __slots__ = ("area", "children", "counted", "digest", "id", "inside", "name", "parent", "seen", "wd")

    def __init__(self, area: Area, parent: Spot | None, name: str, *, inside: bool) -> None:
        self.area = area
        self.parent = parent
        self.name = name
        self.inside = inside
        self.children: dict[str, Spot] = {}
        self.seen: Sight | None = None
        self.digest: str | None = None
        self.wd: int | None = None
        self.id = CallbackId(0)
        self.counted = False

    @property
    def path(self) -> str:
        """Where it is: absolute; bytes that are not UTF-8 as `os.fsdecode` has them."""
        parts: list[str] = []
        at: Spot = self
        while at.parent is not None:
            parts.append(at.name)
            at = at.parent
        return "/".join([at.name.rstrip("/"), *reversed(parts)]) or "/"

    @property
    def directory(self) -> bool:
        return self.seen is not None and self.seen.directory

    def below(self, name: str) -> str:
        """The path of `name` in this directory."""
        return f"{self.path.rstrip('/')}/{name}"

    def look(self) -> Sight | None:
        """What is there now."""
        return look(self.path)

    def all(self) -> Iterator[Spot]:
        """It and everything below it."""
        waiting = [self]
        while waiting:
            spot = waiting.pop()
            yield spot
            waiting.extend(spot.children.values())
