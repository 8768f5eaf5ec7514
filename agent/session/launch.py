"""The launcher: a small program of its own that confines itself, in ordered steps, and becomes the session's init.

The order is the security argument, so the code is the list (docs/architecture.md repeats it):

 0. where execs are traced: a fork, which goes on; what was the launcher stays outside as its tracer
    (agent.session.tracer)
 1. a session of its own, no descriptor but 0-2 and the channels to guard and keeper
 2. reset signals and limits (Python leaves SIGPIPE ignored; no core dumps)
 3. namespaces: network (in a user namespace where the rights for it, or for tracing, are missing), mounts, processes
    and System V objects; of processes only a child is part, so the launcher ends here and its child goes on
 4. open the jail's doors (agent.session.jail) and hand them to the guard
 5. a /proc of its own; hold protected places (agent.session.mounts), leave in sight what is granted and nothing else
    (agent.session.view), cover what of that must not be seen; lay decoys where denied reads are audited
    (agent.session.decoys) and hand the guard what asks before they are opened
 6. no_new_privs
 7. Landlock
 8. the seccomp filter; hand its listener to the guard (where there is none, the tracer has stopped execs since step 0)
 9. /dev/null for 0-2, empty the bounding set, give up every capability but those to become the session's user, to
    end its processes and, in gVisor, to open the jail's doors again; PR_SET_DUMPABLE 0: from here on it is the init
    (agent.session.init), and whatever it forks is confined alike

A command's own steps, from the fork to the execve, are in agent.session.command; the first of them makes the attempts
that must fail. A step that fails ends the launch: the guard is told which, and nothing of the session has run.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from agent.channel import Channel, ChannelClosed, Message
from agent.exits import Exit
from agent.linux import exact, landlock, namespaces, process, seccomp
from agent.linux.process import Capability
from agent.session import filter as syscall_filter
from agent.session import jail, mounts, pids, tracer, view
from agent.session.command import Account
from agent.session.decoys import Decoys
from agent.session.doors import Capture, Door
from agent.session.init import Init
from agent.session.plan import Hold, Plan

KEPT = (Capability.SETUID, Capability.SETGID, Capability.KILL)
"""What init needs of the rights it had: to fork commands of another user, and to end them."""
REOPENS = (Capability.NET_BIND_SERVICE, Capability.NET_ADMIN)
"""And to open the doors of its network again, where a restore may take the session out of it (gVisor, where execs are
traced). What it forks for the session has neither: they go with the uid."""


class Launch:
    """The steps, each a method, run once in order."""

    def __init__(self, channel: Channel, keeper: Channel, plan: Plan, tracers: socket.socket | None = None) -> None:
        self._channel = channel
        self._keeper = keeper
        self._plan = plan
        self._tracers = tracers
        self._decoys: list[int] = []

    def steps(self) -> tuple[Callable[[], None], ...]:
        """In this order, none left out."""
        return (
            self.be_traced,
            self.close_descriptors,
            self.reset_signals_and_limits,
            self.enter_namespaces,
            self.open_listeners,
            self.mount_own_proc,
            self.cover_private_paths,
            self.no_new_privileges,
            self.restrict_paths,
            self.restrict_calls,
            self.give_up_rights,
        )

    def be_traced(self) -> None:
        if (self._plan.trace_exec is None) != (self._tracers is None):
            raise ValueError("a tracer without a socket, or a socket without one")
        if self._tracers is not None:
            tracer.split(self._tracers)
            self._ask({"type": "first", "pid": os.getpid()}, "known")

    def close_descriptors(self) -> None:
        os.setsid()
        first, second = sorted((self._channel.fileno(), self._keeper.fileno()))
        for low, high in ((3, first - 1), (first + 1, second - 1), (second + 1, process.LAST_DESCRIPTOR)):
            if low <= high:
                process.close_range(low, high)
        os.set_inheritable(self._channel.fileno(), False)

    def reset_signals_and_limits(self) -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
            try:
                signal.signal(number, signal.SIG_DFL)
            except OSError:
                continue  # numbers that libc keeps for itself
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.umask(0o022)
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
            score = oom_score(int(file.read()))
            file.seek(0)
            file.write(f"{score}\n")

    def enter_namespaces(self) -> None:
        plan = self._plan
        flags = namespaces.NEWNET if plan.jail else 0
        flags |= namespaces.NEWNS if plan.mounts else 0
        flags |= pids.NEEDED if plan.pids else 0
        if "user" in (plan.jail, plan.trace_exec, plan.pids):
            namespaces.unshare(namespaces.NEWUSER)
            self._ask({"type": "map_ids", "pid": os.getpid()}, "mapped")
        if flags:
            namespaces.unshare(flags)
        if plan.jail:
            namespaces.bring_loopback_up()
        if plan.pids:
            self._become_first()

    def _become_first(self) -> None:
        """Go on as the first process of the new namespace, whose number outside only its parent knows."""
        child = os.fork()
        if child:
            self._channel.send({"type": "first", "pid": child})
            os._exit(0)
        self._expect("known")

    def open_listeners(self) -> None:
        if not self._plan.jail:
            return
        plan = self._plan
        opened = jail.open_doors([Door(name) for name in plan.doors], Capture(plan.capture), plan.proxy_port)
        doors = [str(door) for door, _ in opened]
        self._channel.send({"type": "listeners", "doors": doors}, [listener.fileno() for _, listener in opened])
        jail.close(opened)
        self._expect("served")

    def mount_own_proc(self) -> None:
        plan = self._plan
        if plan.mounts or plan.pids:
            namespaces.make_mounts_private()
        if plan.pids:
            pids.fresh_proc()

    def cover_private_paths(self) -> None:
        if not self._plan.mounts:
            return
        sources = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source, _ in self._plan.bind]
        laid = Decoys(self._plan.decoys, self._plan.decoys_at, self._hand_over_reads) if self._plan.decoys else None
        holding = mounts.Holding(self._plan.empty_file)
        holding.lay(self._plan.hold)
        self._hold_more(holding, holding.lost)
        seen = view.view_of(self._plan.read, (*self._plan.write, *self._plan.devices), self._plan.uid)
        view.narrow(seen, empty=self._plan.empty_file, spare=("/run",) if self._plan.empty_run else ())
        for path in self._plan.hide:
            _hide(path)
        for path in self._plan.sockets:
            _hide_socket(path)
        if self._plan.empty_run:  # connecting to a socket's path is no file access to Landlock
            namespaces.tmpfs("/run", mode=0o755, size="64k")
        for source, (_, target) in zip(sources, self._plan.bind, strict=True):
            if self._plan.empty_run and target.startswith("/run/"):
                _make_stand_in(source, target)
            if os.path.lexists(target):  # else it is where nothing is granted
                namespaces.bind(f"/proc/self/fd/{source}", target)
            os.close(source)
        if laid is not None:
            self._decoys = laid.show(fresh=self._plan.empty_run)
        self._hold_more(holding, holding.opened)
        holding.close()

    def _hold_more(self, holding: mounts.Holding, lost: Callable[[], list[str]]) -> None:
        """Protected places that another process moves or makes at this moment, until the guard finds no more of them or
        gives up. `lost`: what is not held, of those that are to be."""
        while places := self._ask({"type": "held", "lost": lost()}, "hold")["places"]:
            holding.hold((path, Hold(how)) for path, how in places)

    def _hand_over_reads(self, group: int) -> None:
        self._channel.send({"type": "reads"}, [group])
        self._expect("watched")

    def no_new_privileges(self) -> None:
        process.set_no_new_privs()

    def restrict_paths(self) -> None:
        if self._plan.landlock:
            self._restrict_paths(self._plan)
        for decoy in self._decoys:
            os.close(decoy)

    def _restrict_paths(self, plan: Plan) -> None:
        grants = ((plan.read, landlock.READ), (plan.write, landlock.WRITE), (plan.devices, landlock.DEVICE))
        with landlock.Ruleset(
            net=landlock.NO_NET if plan.connect_ports is None else landlock.Net.CONNECT_TCP,
            scope=landlock.Scope.SIGNAL | landlock.Scope.ABSTRACT_UNIX_SOCKET,
        ) as rules:
            for paths, rights in grants:
                for path in paths:
                    self._allow(rules, path, rights)
            for decoy in self._decoys:
                rules.allow_path(decoy, landlock.READ)
            for port in plan.connect_ports or ():
                rules.allow_tcp_connect(port)
            rules.restrict_self()

    def _allow(self, rules: landlock.Ruleset, path: str, rights: landlock.Fs) -> None:
        """Grant what the path leads to by no symlink of the session's account's; nothing where nothing is there."""
        way = exact.found(path, self._plan.uid)
        if way is not None:
            rules.allow_path(way.place, rights)
            os.close(way.place)

    def restrict_calls(self) -> None:
        plan = self._plan
        if not plan.seccomp:
            return
        options = syscall_filter.FilterOptions(
            notify_exec=plan.notify_exec,
            jail=plan.jail is not None,
            shared_uid=plan.uid is None,
            notify_connect=plan.notify_connect,
            trace_exec=plan.trace_exec is not None,
            notify_writes=plan.notify_writes,
        )
        program = syscall_filter.build(options)
        if not plan.notify_exec:
            seccomp.install(program)
            return
        listener = seccomp.install_with_listener(program)
        self._channel.send({"type": "notify"}, [listener])
        os.close(listener)
        self._expect("supervised")

    def give_up_rights(self) -> None:
        separate = self._plan.uid is not None
        if separate:
            process.drop_capability_bounding_set()
        process.keep_capabilities((*KEPT, *(REOPENS if self._reopens else ())) if separate else ())
        os.environ.clear()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for stream in (0, 1, 2):  # the operator's may be among them; gVisor lets anybody open what root has open
            os.dup2(null, stream)
        os.close(null)
        process.set_dumpable(False)

    @property
    def _reopens(self) -> bool:
        return self._plan.trace_exec is not None and self._plan.jail is not None

    def become_init(self) -> NoReturn:
        """Serve as the session's init."""
        plan = self._plan
        account = Account(plan.uid, plan.gid, plan.processes)
        alone = plan.pids is not None
        init = Init(
            self._channel,
            self._keeper,
            account,
            alone=alone,
            first=plan.command,
            proofs=plan.proofs,
            doors=[Door(name) for name in plan.doors] if self._reopens else (),
            capture=Capture(plan.capture),
        )
        self._channel.send({"type": "confined"})
        init.serve()

    def _ask(self, message: dict[str, object], answer: str) -> Message:
        self._channel.send(message)
        return self._expect(answer)

    def _expect(self, kind: str) -> Message:
        message, _ = self._channel.receive()
        if message["type"] != kind:
            raise ChannelClosed(f"expected {kind!r}, got {message['type']!r}")
        return message


def oom_score(agents: int) -> int:
    """The session's (proc_pid_oom_score_adj(5)), by the agent's: not its protection, and where it has none, more likely
    to be killed for memory than it. Of the latter the session can rid itself: it is against accidents."""
    return 0 if agents < 0 else min(1000, agents + 100)


def _hide(path: str) -> None:
    """Cover a private path of the agent's: an empty directory that nobody may enter, or /dev/null for a file."""
    if os.path.isdir(path):  # noqa: PTH112  (the launcher keeps its imports lean)
        namespaces.tmpfs(path, mode=0o000, size="4k", read_only=True)
    elif os.path.lexists(path):
        with suppress(FileNotFoundError):  # gone since
            namespaces.bind("/dev/null", path)


def _hide_socket(path: str) -> None:
    """The same for a socket of somebody's. What it is bound to may lie where other sessions put something else: only a
    socket is covered, whatever the path leads to now."""
    way = exact.found(path, None)
    if way is None:  # gone since
        return
    if stat.S_ISSOCK(os.fstat(way.place).st_mode):
        namespaces.bind("/dev/null", f"/proc/self/fd/{way.place}")
    os.close(way.place)


def _make_stand_in(source: int, target: str) -> None:
    """Something of the same kind for `source` to be bound over."""
    directory = stat.S_ISDIR(os.fstat(source).st_mode)
    os.makedirs(target if directory else target.rpartition("/")[0], mode=0o755, exist_ok=True)  # noqa: PTH103
    if not directory:
        with open(target, "x", encoding="ascii"):
            return


def main() -> NoReturn:
    """`python -I -m agent.session.launch --channel FD`: started by the guard only."""
    channel = Channel(socket.socket(fileno=int(sys.argv[sys.argv.index("--channel") + 1])))
    try:
        message, fds = channel.receive()
    except ChannelClosed:  # the session was refused before
        os._exit(int(Exit.UNPROTECTED))
    keeper, *tracers = [socket.socket(fileno=fd) for fd in fds]
    launch = Launch(channel, Channel(keeper), Plan.parse(message["plan"]), tracers[0] if tracers else None)
    for step in (*launch.steps(), launch.become_init):
        try:
            step()
        except Exception as error:  # any fault ends the launch: nothing of the session has run
            with suppress(ChannelClosed):  # the guard has given up already
                channel.send({"type": "failed", "step": step.__name__, "error": f"{type(error).__name__}: {error}"})
            break
    os._exit(int(Exit.UNPROTECTED))


if __name__ == "__main__":
    main()
