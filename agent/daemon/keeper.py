"""The keeper: carries the terminal and the signals, replaces guard and egress, and makes sure that the end is the end.

The first guard is begun by `run`, before it becomes this (`agent.daemon.keeping.workers`). Standard library
only, besides the agent's own ground floor: it must not fail. Rules: an egress process that dies while the session runs
is replaced, and its successor is given the listening sockets of before, of which copies are held here: meanwhile
connections wait in them, and nobody can take their place; so is a guard, whose successor is given all that it had this
process hold (`agent.daemon.survival.standing`), and the signals that no guard has said it passed on; one that has left
nothing, or a process that dies again and again
(`agent.daemon.keeping.restarts`), ends the session at once; the session's end ends everything it started; the
operator's terminal is always put back.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from agent.channel import Channel, ChannelClosed, Message, pair
from agent.daemon.base.spec import RunSpec
from agent.daemon.keeping import workers
from agent.daemon.keeping.leavings import hold, sweep, sweep_dead
from agent.daemon.keeping.restarts import MOST, WINDOW_SECONDS, Deaths
from agent.daemon.keeping.terminal import Terminal
from agent.daemon.keeping.workers import First
from agent.exits import Exit
from agent.linux.process import ending, set_dumpable
from agent.session.offspring import adopt_orphans, end_all

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FINISH_SECONDS = 15.0
LAST_WORDS_SECONDS = 1.0
MOST_SIGNALS = 64
"""That are kept until a guard has passed them on."""
MARK = "mark"  # agent.session.doors


class Keeper:
    """One run, from the first process to the last. `first`: the guard that has begun."""

    def __init__(self, spec: RunSpec, first: First) -> None:
        self._spec = spec
        self._selector = selectors.DefaultSelector()
        self._guard_pid = first.guard
        self._egress_pid = 0
        self._first = Channel(socket.socket(fileno=first.channel))
        self._session_pid: int | None = None
        self._status: int | None = None
        self._failure: int | None = None
        self._finishing = False
        self._dead: set[int] = set()
        self._held: tuple[list[str], list[int]] = ([], [])
        self._kept: dict[str, int] = {}
        self._signalled: list[int] = []
        self._guard_deaths = Deaths()
        self._egress_deaths = Deaths()
        self._egress_number = 0
        self._last_words = -1
        self._stray_user: int | None = None
        self._account = None if spec.egress_user is None else spec.session_user.uid

    def run(self) -> int:
        """Returns the status to exit with."""
        set_dumpable(False)
        if not adopt_orphans() and self._spec.egress_user is not None:
            self._stray_user = self._spec.session_user.uid
        os.umask(0o022)
        wake = self._watch_signals()
        terminal = Terminal.open()
        try:
            if not self._make_run_dir():
                return int(Exit.UNPROTECTED)
            channel = self._start(terminal)
            terminal.raw()
            self._loop(channel, terminal, wake)
        finally:
            self._end(terminal)
            signal.set_wakeup_fd(-1)  # its sockets go before the last signals
        if self._failure is not None:
            return self._failure
        if self._status is None:
            return 128 + signal.SIGKILL if self._session_pid else int(Exit.UNPROTECTED)
        return _exit_code(self._status)

    def _make_run_dir(self) -> bool:
        try:
            Path(self._spec.run_root).mkdir(parents=True, exist_ok=True, mode=0o755)
            Path(self._spec.run_dir).mkdir(mode=0o711)
            with suppress(OSError):  # then nobody ever takes it for over
                hold(self._spec.run_dir)  # until this process ends
        except OSError as error:
            self._say(f"the run directory {self._spec.run_dir}: {error.strerror}; name another with --run-dir")
            return False
        return True

    def _watch_signals(self) -> socket.socket:
        wake, notify = socket.socketpair()
        wake.setblocking(False)
        notify.setblocking(False)
        signal.set_wakeup_fd(notify.fileno(), warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD, signal.SIGWINCH):
            signal.signal(number, lambda *_: None)
        self._notify = notify
        return wake

    def _start(self, terminal: Terminal) -> Channel:
        channel = self._first
        self._init, inits = pair()  # its end, with this process, is the end of the session's init and of all below it
        with inits, self._start_egress() as egress:
            streams = (*terminal.stdio, inits.fileno(), egress.fileno())
            with suppress(ChannelClosed):  # dead already, and that is seen
                channel.send({"type": "start", "spec": self._spec.dump()}, streams)
        terminal.release_slave()
        return channel

    def _replace_guard(self) -> Channel | None:
        """The guard is gone. Another one takes the session over; None where none can, and the session must end."""
        if self._finishing or self._failure is not None:
            return None
        if not self._kept:
            self._say("the guard died; the session is ended" if self._session_pid else "the guard did not start")
            return None
        if not self._guard_deaths.survived(time.monotonic()):
            self._say(f"the guard died {MOST + 1} times within {WINDOW_SECONDS:.0f} seconds; the session is ended")
            return None
        self._wait(self._egress_pid, LAST_WORDS_SECONDS)
        for pid in (self._guard_pid, self._egress_pid):  # a guard may have closed its channel only
            if pid not in self._dead:
                os.kill(pid, signal.SIGKILL)
            self._wait(pid, FINISH_SECONDS)
        ours, theirs = pair()
        with ours, theirs:
            try:
                Channel(self._init).send({"type": "adopt"}, [theirs.fileno()])
            except ChannelClosed:
                self._say("the guard and the session's init died; the session is ended")
                return None
            self._say("the guard died; another one takes the session over")
            held = {"init": ours.fileno(), "last words": os.dup(self._last_words), **self._kept}
            self._guard_pid, guard = workers.start_guard(os.environ)
            self._dead.discard(self._guard_pid)
            channel = Channel(guard)
            self._egress_number = 0
            with self._start_egress() as egress, suppress(ChannelClosed):  # dead again, and that is seen
                resume = {"type": "resume", "spec": self._spec.dump(), "names": [*held]}
                channel.send(resume, [*held.values(), egress.fileno()])
                channel.send({"type": "doors", "doors": self._held[0]}, self._held[1])
                for number in self._signalled:
                    channel.send({"type": "signal", "number": number})
            os.close(held["last words"])
        return channel

    def _start_egress(self) -> socket.socket:
        """Returns the guard's end of its channel. What it leaves for the next guard, it leaves in `_last_words`."""
        if self._last_words >= 0:
            os.close(self._last_words)
        self._egress_pid, self._last_words, guard_side = workers.start_egress(os.environ)
        self._dead.discard(self._egress_pid)
        return guard_side

    def _loop(self, channel: Channel, terminal: Terminal, wake: socket.socket) -> None:
        while True:
            if self._guard_pid in self._dead:
                self._drain(channel)
                successor = self._replace_guard()
                if successor is None:
                    return
                self._selector.unregister(channel.fileno())
                channel.close()
                channel = successor
            wanted = {wake.fileno(): selectors.EVENT_READ, channel.fileno(): selectors.EVENT_READ, **terminal.wanted()}
            for fd, mask in self._select(wanted):
                if fd == wake.fileno():
                    self._signals(wake, channel, terminal)
                elif fd == channel.fileno():
                    if not self._messages(channel):
                        self._await_guard()
                        break
                else:
                    terminal.handle(fd, mask)

    def _select(self, wanted: dict[int, int]) -> list[tuple[int, int]]:
        current = {key.fd: key.events for key in self._selector.get_map().values()}
        for fd in current.keys() - wanted.keys():
            self._selector.unregister(fd)
        for fd, events in wanted.items():
            if fd not in current:
                self._selector.register(fd, events)
            elif current[fd] != events:
                self._selector.modify(fd, events)
        return [(key.fd, mask) for key, mask in self._selector.select()]

    def _signals(self, wake: socket.socket, channel: Channel, terminal: Terminal) -> None:
        try:
            numbers = wake.recv(256)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGWINCH:
                terminal.resize()
            elif number == signal.SIGCHLD:
                self._reap()
                self._check_workers(channel)
            elif number == signal.SIGHUP and not terminal.hung_up():
                with suppress(ChannelClosed):  # the next guard looks at the policy by itself
                    channel.send({"type": "reload"})
            else:
                self._signalled = [*self._signalled, number][:MOST_SIGNALS]
                with suppress(ChannelClosed):  # the next guard is told
                    channel.send({"type": "signal", "number": number})

    def _check_workers(self, channel: Channel) -> None:
        alone = self._egress_pid in self._dead and not (
            self._guard_pid in self._dead or _hung_up(channel) or ending(self._guard_pid)
        )  # it follows a dead guard, which may close the channel to it some time before that to here
        if not alone or self._finishing or self._failure is not None:
            return
        if not self._egress_deaths.survived(time.monotonic()):
            self._give_up(channel, f"the egress process died {MOST + 1} times within {WINDOW_SECONDS:.0f} seconds")
        elif self._session_pid is None or not self._held[0]:
            self._give_up(channel, "the egress process died")
        else:
            self._replace_egress(channel)

    def _replace_egress(self, channel: Channel) -> None:
        self._egress_number += 1
        doors, listeners = self._held
        with self._start_egress() as guard_side, suppress(ChannelClosed):
            channel.send({"type": "egress", "doors": doors}, [guard_side.fileno(), *listeners])

    def _give_up(self, channel: Channel, reason: str) -> None:
        self._say(f"{reason}; the session is ended")
        with suppress(ChannelClosed):
            channel.send({"type": "worker_died", "reason": reason})
        self._end_session()

    def _drain(self, channel: Channel) -> None:
        """What a dead guard had still to say."""
        looking = select.poll()
        looking.register(channel.fileno(), select.POLLIN)
        while looking.poll(0) and self._messages(channel):
            continue

    def _messages(self, channel: Channel) -> bool:
        try:
            channel.sock.setblocking(False)
            messages = channel.feed()
        except ChannelClosed:
            return False
        finally:
            channel.sock.setblocking(True)
        for message, fds in messages:
            self._take(message, fds, channel)
        return True

    def _take(self, message: Message, fds: list[int], channel: Channel) -> None:
        match message["type"]:
            case "hold":
                if message.get("anew"):
                    self._let_go()
                self._held = ([*self._held[0], *message["doors"]], [*self._held[1], *fds])
            case "keep":
                for fd in self._kept.values():
                    os.close(fd)
                self._kept = dict(zip(message["names"], fds, strict=True))
            case "end":
                self._end_session()
            case "egress_lost":
                if message["number"] == self._egress_number and self._egress_pid not in self._dead:
                    os.kill(self._egress_pid, signal.SIGKILL)  # it may have closed its channel only
            case "passed on":
                with suppress(ValueError):
                    self._signalled.remove(message["number"])
            case "started":
                self._session_pid = message["pid"]
            case "say":
                self._say(message["text"])
            case "failed":
                self._finishing = True
                self._failure = message["exit"]
                self._say(message["text"])
            case "exited":
                self._finishing = True
                self._status = message["status"]
                self._end_session()
                with suppress(ChannelClosed):
                    channel.send({"type": "finish"})
            case _:
                self._say("the guard sent an unknown message")

    def _let_go(self) -> None:
        """Of all listening sockets but the marks (`agent.daemon.survival.reopening`)."""
        doors, listeners = self._held
        kept = [(door, fd) for door, fd in zip(doors, listeners, strict=True) if door == MARK]
        for fd in {*listeners} - {fd for _, fd in kept}:
            os.close(fd)
        self._held = [door for door, _ in kept], [fd for _, fd in kept]

    def _await_guard(self) -> None:
        """Its channel has ended, so it has: after what it is about to write, or at once."""
        self._wait(self._guard_pid, FINISH_SECONDS if self._finishing else 0.1)
        if self._guard_pid not in self._dead:
            with suppress(ProcessLookupError):
                os.kill(self._guard_pid, signal.SIGKILL)
            self._wait(self._guard_pid, FINISH_SECONDS)
        self._dead.add(self._guard_pid)

    def _end_session(self) -> None:
        end_all(self._guard_pid, (), self._reap, account=self._account)
        spare = (self._guard_pid, self._egress_pid)
        end_all(os.getpid(), spare, self._reap, user=self._stray_user, account=self._account)

    def _end(self, terminal: Terminal) -> None:
        """Everything ends here, in this order: session, guard (it writes the last events), egress, terminal."""
        self._wait(self._guard_pid, FINISH_SECONDS if self._finishing else 0.0)
        end_all(os.getpid(), (), self._reap, user=self._stray_user, account=self._account)
        terminal.drain()
        terminal.restore()
        sweep(self._spec)
        sweep_dead(self._spec)

    def _wait(self, pid: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while pid and pid not in self._dead and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.005)

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in (self._guard_pid, self._egress_pid):  # of the session's orphans there is no end
                self._dead.add(pid)

    def _say(self, text: str) -> None:
        for line in text.splitlines():
            sys.stderr.write(f"parhelia: {line}\r\n" if os.isatty(2) else f"parhelia: {line}\n")
        sys.stderr.flush()


def _hung_up(channel: Channel) -> bool:
    """Has the process at the other end closed it? One that dies does so before it can be waited for."""
    looking = select.poll()
    looking.register(channel.fileno(), 0)  # POLLHUP is told unasked
    return bool(looking.poll(0))


def _exit_code(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def main() -> int:
    """`python -I -m agent.daemon.keeper --spec FD --first …`: what `agent.cli.run` becomes, and nothing else."""
    memory = int(sys.argv[sys.argv.index("--spec") + 1])
    first = First.taken_over(sys.argv[sys.argv.index("--first") + 1 :])
    with open(memory, "rb") as file:
        spec = RunSpec.from_bytes(file.read())
    return Keeper(spec, first).run()


if __name__ == "__main__":
    sys.exit(main())
