"""Holding a session's processes still: SIGSTOP to all of them until none runs, and again to whatever stirs.

Rules kept here: it is held only where two walks of /proc in a row have found every task of every process at rest (each
has taken the signal or has it before it can run its own code again); what forks faster than it is walked is reached by
one kill(2) to all of the account's processes, where they are all this session's (`agent.session.offspring` says why),
and what another session of the account has started meanwhile is let go on;
what the session itself had stopped before stays stopped when the rest goes on; what stirs again and again is not held,
and that is told (`unheld`). The agent's own processes are spared.

SIGSTOP cannot be caught, and no process of the session is left to send SIGCONT (signal(7)); but the kernel may send it
for one: a timer that was set before (timer_create(2)), a descriptor that becomes ready (F_SETSIG, fcntl(2)). A task in
uninterruptible sleep has the signal pending and counts as at rest; so does a traced one that its tracer holds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress

FREEZE_SECONDS = 5.0
HOLD_SECONDS = 0.5
STIRRED = 3
"""Walks that may find something running while all is held: a fork of the last moment, a sleep that ends."""
_ROUND_SECONDS = 0.01
_STOPPED = frozenset("TZXx")  # proc_pid_stat(5); I is a kernel thread's
_AT_REST = _STOPPED | frozenset("tD")  # these have the signal pending: each walk sends it


class Freezer:
    """One session's. `root`: the process below which all of them are; `spare`: the agent's own there. `account`: the
    session's uid where no other process of this machine should have it; `strangers` says which do all the same."""

    def __init__(
        self,
        root: Callable[[], int],
        *,
        spare: Callable[[], Collection[int]] = tuple,
        account: int | None = None,
        strangers: Callable[[int], Collection[int]] = lambda account: (),
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self._root = root
        self._spare = spare
        self._account = account
        self._strangers = strangers
        self._hold_seconds = hold_seconds
        self._resting: set[int] = set()
        self._walking = threading.Lock()  # a walk that nobody waits for any more may still be under way
        self._let_go = False
        self._holding: asyncio.Task[None] | None = None
        self.unheld: Callable[[], None] = lambda: None
        """Called on the loop, once for a freeze, where it does not hold: something goes on however often it is
        stopped."""

    @property
    def frozen(self) -> bool:
        """True from a `freeze` that held to the `thaw`."""
        return self._holding is not None

    async def freeze(self, seconds: float = FREEZE_SECONDS, *, others: bool = True) -> list[int]:
        """Stop them all, and hold them. Returns what still runs after `seconds`: empty is success. `others`: what is
        stopped already is so by somebody else, and stays so when the rest goes on."""
        if self._holding is None and others:
            self._resting = {pid for pid, states in self.processes().items() if "T" in states}
        self._let_go = False
        left = await asyncio.to_thread(self._until_still, seconds)
        if not left and self._holding is None:
            self._holding = asyncio.get_running_loop().create_task(self._hold())
        return left

    async def thaw(self) -> None:
        """Let them go on."""
        await self.stop()
        await asyncio.to_thread(self._continue)

    async def stop(self) -> None:
        """Hold them no longer; they stay as they are."""
        if self._holding is not None:
            self._holding.cancel()
            with suppress(asyncio.CancelledError):
                await self._holding
            self._holding = None

    def processes(self) -> dict[int, str]:
        """The session's processes now, each with the states of its tasks (proc_pid_stat(5))."""
        alone = self._account is not None and not self._strangers(self._account)
        found = _below(self._root(), self._account if alone else None)
        return {pid: states for pid in found if pid not in self._spare() and (states := _states(pid))}

    async def _hold(self) -> None:
        stirred = 0
        while stirred < STIRRED:
            await asyncio.sleep(self._hold_seconds)
            stirred += bool(await asyncio.to_thread(self._round))
        self.unheld()

    def _until_still(self, seconds: float) -> list[int]:
        deadline = time.monotonic() + seconds
        quiet = 0
        while quiet < 2:
            running = self._round()
            quiet = 0 if running else quiet + 1
            if running and time.monotonic() > deadline:
                return running
            time.sleep(_ROUND_SECONDS)
        return []

    def _round(self) -> list[int]:
        """One walk, which sends the signal to all that has not stopped: what was found running."""
        with self._walking:
            if self._let_go:
                return []
            awake = {pid: set(states) for pid, states in self.processes().items() if not set(states) <= _STOPPED}
            running = [pid for pid, states in awake.items() if not states <= _AT_REST]
            if running and self._account is not None and not self._strangers(self._account):
                signal_account(self._account, signal.SIGSTOP)
                for pid in self._strangers(self._account):  # born meanwhile, in another session
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            for pid in awake:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGSTOP)
            return running

    def _continue(self) -> None:
        with self._walking:
            self._let_go = True
            for pid in self.processes():
                if pid not in self._resting:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGCONT)


def signal_account(account: int, number: signal.Signals) -> None:
    """Send it to all processes of `account` at once, as that account: it reaches no other (kill(2))."""
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(account, account, account)
            os.kill(-1, number)
        finally:
            os._exit(0)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)


def _below(root: int, user: int | None) -> list[int]:
    """Processes below `root`, and all of `user`'s where given."""
    children: dict[int, list[int]] = defaultdict(list)
    found: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  (names are all that is needed)
        if not entry.isdigit():
            continue
        with suppress(OSError, ValueError), open(f"/proc/{entry}/stat", "rb") as file:
            stat = file.read()
            children[int(stat[stat.rfind(b")") + 2 :].split()[1])].append(int(entry))
            if user is not None and os.fstat(file.fileno()).st_uid == user:
                found.append(int(entry))
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return list(dict.fromkeys(found))


def _states(pid: int) -> str:
    """The states of its tasks, without those that have ended: a process lives on without its first one."""
    states = ""
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
                stat = file.read()
                states += chr(stat[stat.rfind(b")") + 2])
    return "".join(state for state in states if state not in "ZXx")
