"""Integrity watching by inotify(7): what changes in protected places, the policy, the agent's files is told.

Rules kept here: watches and known files are bounded, and what a bound leaves out is said; a directory is first watched
and then looked through, so that what was in it before the watch is found and what comes after is notified; nothing of
the session's is followed by a link; where the kernel's queue overflowed everything is looked through again and the gap
is said. inotify does not say who changed a file; neither does this.

watchdog reads the kernel's queue (`InotifyFD`, one thread) and calls back. Its own recursive observer is not used: its
watches, its queue and its threads have no bound, and the session decides how many directories there are.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Final

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, Mask, WatchDescriptor

from agent.enforce.paths.areas import Area
from agent.enforce.paths.changes import Change, Changes
from agent.enforce.paths.reader import POLL_SECONDS, Poller, Reader
from agent.enforce.paths.sight import Sight, digest, place, sight
from agent.enforce.paths.spots import Spot

log = logging.getLogger(__name__)

MAX_DIRECTORIES: Final = 8192
MAX_POLLED: Final = 2048
MAX_FILES: Final = 4096
MAX_ENTRIES: Final = 10_000
MAX_DIGESTED: Final = 32 << 20
"""Bytes that are read for the digests of files that nobody has changed yet."""
_LIMITS: Final = "/proc/sys/fs/inotify/max_user_watches"
_SEARCH: Final = 0o011
"""Without it a directory of another account is closed to the session, whatever is below."""
_AGAIN_SECONDS: Final = 2.0
_C: Final = InotifyConstants
_NAMES: Final = _C.IN_CREATE | _C.IN_DELETE | _C.IN_MOVED_FROM | _C.IN_MOVED_TO | _C.IN_DELETE_SELF | _C.IN_MOVE_SELF
_CONTENTS: Final = _C.IN_MODIFY | _C.IN_ATTRIB


def room() -> int:
    """How many directories may be watched: a quarter of what the kernel gives this account, `MAX_DIRECTORIES` at
    most."""
    try:
        with open(_LIMITS, encoding="ascii") as file:
            return max(64, min(MAX_DIRECTORIES, int(file.read()) // 4))
    except (OSError, ValueError):  # gVisor has no such file, and no such limit
        return MAX_DIRECTORIES


class Watch:
    """The watched areas and what is known of them. Callbacks come on watchdog's thread; `say` gets what is not or no
    longer seen, in words."""

    def __init__(self, areas: Sequence[Area], changes: Changes, say: Callable[[str], None]) -> None:
        self._areas = areas
        self._changes = changes
        self._say = say
        self._room = room()
        self._reader: Reader | Poller
        try:
            self._reader = Reader(self.begin, self.failed)
        except OSError as error:
            self._reader = Poller(self.begin, self._look_again, self.failed)
            self._room = min(self._room, MAX_POLLED)
            say(f"inotify is not to be had ({error.strerror}): everything is looked at every {POLL_SECONDS:g} s")
        self._spots: dict[int, Spot] = {}
        self._roots: list[Spot] = []
        self._ids = count(1)
        self._directories = {True: 0, False: 0}  # of what the session may write, and of the agent's
        self._files = 0
        self._digested = 0
        self._told: set[str] = set()
        self._begun = threading.Event()
        self._looked_at = 0.0
        self._hurried = False
        self._known: dict[str, Spot] = {}

    def start(self) -> None:
        """Begin; the first look at everything is taken on the thread."""
        self._reader.start()

    def hurry(self) -> None:
        """The session has ended: what it can write is still looked through, the rest of the first look is left."""
        self._hurried = True

    def settle(self, seconds: float) -> bool:
        """Wait until everything that happened before this call has been noted; False where that takes longer."""
        began = time.monotonic()
        return self._begun.wait(seconds) and self._reader.ring(seconds - (time.monotonic() - began))

    def stop(self) -> None:
        """End the thread and every watch."""
        self._reader.stop()
        self._reader.join(5.0)

    def failed(self, error: Exception) -> None:
        """A fault of this module must not end the watching, nor pass in silence."""
        log.error("a change could not be looked at", exc_info=error)
        self._leave_out(f"a change could not be looked at: {type(error).__name__}")

    # --- on watchdog's thread

    def begin(self) -> None:
        """Watch and look through everything."""
        for area in self._areas:
            root = Spot(area, None, area.root, inside=area.patterns.holds(area.root))
            self._roots.append(root)
            self._adopt(root, news=False)
        self._begun.set()

    def on_event(self, event: InotifyEvent) -> None:
        """Of one notification."""
        spot = self._spots.get(event.wd)
        if spot is None:
            return
        if not event.name:
            self._itself(spot, event)
        else:
            self._below(spot, os.fsdecode(event.name), event)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The kernel has taken the watch away, because the file is no more."""
        spot = self._spots.pop(wd, None)
        if spot is not None:
            self._forget(spot)

    def on_queue_overflow(self) -> None:
        """Notifications are lost: compare everything with what was known."""
        if not self._begun.is_set():
            return
        self._say("changes came faster than they could be read: some are not in the log, what differs now is")
        time.sleep(max(0.0, self._looked_at + _AGAIN_SECONDS - time.monotonic()))
        self._look_again()
        self._looked_at = time.monotonic()

    def _look_again(self) -> None:
        """Note what differs from what was known; everything is watched anew."""
        known = self._known = {spot.path: spot for spot in self._all() if spot.inside and spot.seen is not None}
        self._reader.remove_callbacks([(WatchDescriptor(wd), spot.id) for wd, spot in self._spots.items()])
        self._spots.clear()
        self._roots.clear()
        self._directories = {True: 0, False: 0}
        self._files = self._digested = 0
        self.begin()
        self._known = {}
        now = {spot.path: spot for spot in self._all() if spot.inside}
        for path, before in known.items():
            spot = now.get(path)
            if spot is None:
                self._changes.note(before.area.kind, path, Change.DELETED, before.digest)
            elif spot.seen != before.seen and not spot.directory:
                self._changes.note(before.area.kind, path, Change.MODIFIED, before.digest)
        for path in now.keys() - known.keys():
            self._changes.note(now[path].area.kind, path, Change.CREATED)

    def _itself(self, spot: Spot, event: InotifyEvent) -> None:
        """A watched file, or a watched directory's own attributes."""
        if not spot.inside:
            return
        if event.is_modify:
            self._note(spot, Change.MODIFIED)
        elif event.is_attrib:
            now = spot.look()
            if now is not None and spot.seen is not None and now.inode == spot.seen.inode:  # else a name tells it
                self._note(spot, Change.ATTRIBUTES)
        elif spot.parent is None and (event.is_delete_self or event.is_move_self):
            self._note(spot, Change.DELETED if event.is_delete_self else Change.MOVED)

    def _below(self, spot: Spot, name: str, event: InotifyEvent) -> None:
        """A name in a watched directory."""
        if name in spot.area.skip:
            return
        known = spot.children.get(name)
        if event.is_create or event.is_moved_to:
            change = Change.CREATED if event.is_create else Change.MOVED
            self._appeared(spot, name, known, change)
        elif event.is_delete or event.is_moved_from:
            self._vanished(spot, name, known, event)
        elif not spot.area.contents and self._inside(spot, name) and not event.mask & _C.IN_ISDIR:
            change = Change.MODIFIED if event.is_modify else Change.ATTRIBUTES
            self._changes.note(spot.area.kind, spot.below(name), change, None if known is None else known.digest)

    def _appeared(self, parent: Spot, name: str, known: Spot | None, change: Change) -> None:
        before = None if known is None else known.digest
        spot = Spot(parent.area, parent, name, inside=self._inside(parent, name))
        if not spot.inside and parent.area.shallow:
            return
        now = spot.look()
        spot.inside = (now is not None and self._tells(parent, name, directory=now.directory)) or spot.inside
        if now is None:  # gone again, and that will be told
            if spot.inside:
                self._changes.note(parent.area.kind, spot.path, change, before)
            return
        if known is not None and known.seen is not None and known.seen.inode == now.inode and change is Change.CREATED:
            return  # found before it was told
        if known is not None:
            self._drop(known)
        if spot.inside:
            self._changes.note(parent.area.kind, spot.path, change, before)
        if now.directory:
            self._adopt(spot, news=True)
        elif spot.inside:
            self._keep(spot, now)

    def _vanished(self, parent: Spot, name: str, known: Spot | None, event: InotifyEvent) -> None:
        change = Change.DELETED if event.is_delete else Change.MOVED
        directory = bool(event.mask & _C.IN_ISDIR)
        if known is not None and known.directory == directory:  # else it was found after that
            for spot in known.all():
                if spot.inside:
                    self._changes.note(spot.area.kind, spot.path, change, spot.digest)
            self._drop(known)
        elif self._tells(parent, name, directory=directory):
            self._changes.note(parent.area.kind, parent.below(name), change)

    # --- the tree

    def _adopt(self, top: Spot, *, news: bool) -> None:
        """Watch the directory and all below it, breadth first; `news`: nothing in it was there before."""
        queue = deque([(top, 0)])
        began = time.monotonic()
        while queue and not self._reader.ending and (top.area.contents or not self._hurried):
            spot, depth = queue.popleft()
            for child in self._enter(spot, news=news):
                if depth < spot.area.depth:
                    queue.append((child, depth + 1))
                else:
                    self._leave_out(f"{spot.area.root} is watched {spot.area.depth} directories deep")
        if news:
            time.sleep(min(0.05, time.monotonic() - began))  # at most half of the time is spent on what a session makes

    def _enter(self, spot: Spot, *, news: bool) -> Iterator[Spot]:
        """Watch this directory and take in what it holds; gives the directories in it that are to be entered."""
        bounded = spot.area.contents
        most = MAX_DIRECTORIES if not bounded else self._room if news else self._room * 3 // 4
        if self._directories[bounded] >= most:
            self._leave_out(f"{most} directories of {spot.area.kind} places are watched, and not those beyond")
            return
        try:
            at = place(spot.path)
        except OSError:
            return  # gone, or no directory any more
        try:
            spot.seen = sight(os.fstat(at))
            mask = _NAMES | _C.IN_ONLYDIR
            if spot.inside:
                mask |= _C.IN_ATTRIB if spot.area.contents else _CONTENTS
            if not self._add(spot, at, mask):
                return
            self._directories[bounded] += 1
            spot.counted = True
            if spot.parent is not None:
                spot.parent.children[spot.name] = spot
            found = self._scan(spot, at)
        except OSError:
            return
        finally:
            os.close(at)
        for name, stat in found:
            child = self._found(spot, name, sight(stat), news=news)
            if child is not None:
                yield child

    def _scan(self, spot: Spot, at: int) -> list[tuple[str, os.stat_result]]:
        with os.scandir(f"/proc/self/fd/{at}") as entries:
            wanted = ((each.name, each.stat(follow_symlinks=False)) for each in entries if self._wants(spot, each))
            found = list(islice(wanted, MAX_ENTRIES))
            if next(wanted, None) is not None:
                self._leave_out(f"{MAX_ENTRIES} names of one directory are looked at, and not those beyond")
        return found

    def _wants(self, spot: Spot, entry: os.DirEntry[str]) -> bool:
        if entry.name in spot.area.skip:
            return False
        if self._inside(spot, entry.name) or entry.name in spot.area.files:
            return True
        return not spot.area.shallow and entry.is_dir(follow_symlinks=False)

    def _found(self, parent: Spot, name: str, now: Sight, *, news: bool) -> Spot | None:
        """Take in one entry; returns it where it is a directory."""
        area = parent.area
        spot = Spot(area, parent, name, inside=self._tells(parent, name, directory=now.directory))
        late = area.since is not None and now.changed > area.since and now.owner == area.owner
        late = late and not self._begun.is_set()  # a later look compares
        if spot.inside and (news or late):
            self._changes.note(area.kind, spot.path, Change.CREATED if news else Change.MODIFIED)
        if not now.directory:
            self._keep(spot, now)
            return None
        closed = area.owner is not None and now.owner != area.owner and not now.mode & _SEARCH
        return None if closed else spot

    def _keep(self, spot: Spot, now: Sight) -> None:
        """Know a file, and watch it by itself where its area asks for that."""
        if not spot.area.contents and not spot.area.digests:
            return
        if self._files >= MAX_FILES and spot.area.contents:
            self._leave_out(f"{MAX_FILES} protected files are watched, and not those beyond")
            return
        spot.seen = now
        if spot.parent is not None:
            spot.parent.children[spot.name] = spot
        if spot.area.digests and now.regular and self._digested + now.size <= MAX_DIGESTED:
            before = self._known.get(spot.path) if self._known else None
            unchanged = before is not None and before.seen == now
            spot.digest = before.digest if before is not None and unchanged else digest(spot.path)
            self._digested += now.size
        if not spot.area.contents or not now.regular:
            return
        self._files += 1
        spot.counted = True
        try:
            at = place(spot.path)
        except OSError:
            return
        try:
            self._add(spot, at, _CONTENTS)
        except OSError:
            return
        finally:
            os.close(at)

    def _add(self, spot: Spot, at: int, mask: int) -> bool:
        """Watch what the descriptor stands for; False where it is watched under another name or cannot be."""
        spot.id = CallbackId(next(self._ids))
        try:
            wd = self._reader.add_callback(b"/proc/self/fd/%d" % at, Mask(mask), self, spot.id)
        except OSError as error:
            self._leave_out(f"{spot.area.root} is not watched as a whole: {error.strerror}")
            return False
        if wd < 0 or wd in self._spots:
            self._reader.remove_callbacks([(wd, spot.id)])
            return False
        self._spots[wd] = spot
        spot.wd = wd
        return True

    def _drop(self, top: Spot) -> None:
        """Forget a part of the tree and its watches."""
        for spot in list(top.all()):
            if spot.wd is not None and self._spots.get(spot.wd) is spot:
                del self._spots[spot.wd]
                self._reader.remove_callbacks([(WatchDescriptor(spot.wd), spot.id)])
            self._forget(spot)

    def _forget(self, spot: Spot) -> None:
        spot.wd = None
        if spot.parent is not None and spot.parent.children.get(spot.name) is spot:
            del spot.parent.children[spot.name]
        if spot.counted:
            spot.counted = False
            if spot.directory:
                self._directories[spot.area.contents] -= 1
            else:
                self._files -= 1

    def _all(self) -> Iterator[Spot]:
        for root in self._roots:
            yield from root.all()

    def _inside(self, parent: Spot, name: str) -> bool:
        return parent.inside or parent.area.patterns.completes(parent.path, name)

    def _tells(self, parent: Spot, name: str, *, directory: bool) -> bool:
        return self._inside(parent, name) or (not directory and name in parent.area.files)

    def _note(self, spot: Spot, change: Change) -> None:
        self._changes.note(spot.area.kind, spot.path, change, spot.digest)

    def _leave_out(self, text: str) -> None:
        """Say, once, what is not watched."""
        if text not in self._told:
            self._told.add(text)
            self._say(text)
