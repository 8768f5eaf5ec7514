"""The launcher: a small program of its own that becomes the session, in ordered steps.

The order is the security argument, so the code is the list (docs/architecture.md repeats it):

 1. parent-death signal, new session, the pty as controlling terminal
 2. close every descriptor but 0-2 and the channel
 3. reset signals and limits (Python leaves SIGPIPE ignored; no core dumps)
 4. namespaces: network (in a user namespace where the rights for it, or for tracing, are missing), mounts
 5. open the jail's doors (agent.session.jail) and hand them to the guard; hold protected places (agent.session.mounts)
    and cover what must not be seen
 6. clear supplementary groups and the bounding set, drop the uid
 7. parent-death signal again (the uid change clears it: prctl(2)), no_new_privs
 8. working directory, with the session's own rights
 9. Landlock
10. the seccomp filter; hand its listener to the guard (which, where there is none, traces since before step 1)
11. the attempts that must fail (agent.session.proofs)
12. wait for the guard's word, PR_SET_DUMPABLE 1, execve

A step that fails ends the launch: the guard is told which, and nothing of the session has run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import stat
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from agent.channel import Channel, ChannelClosed
from agent.exits import Exit
from agent.linux import landlock, namespaces, process, seccomp
from agent.session import filter as syscall_filter
from agent.session import jail, mounts
from agent.session.doors import Capture, Door
from agent.session.plan import Plan
from agent.session.proofs import attempt


class Launch:
    """The steps, each a method, run once in order."""

    def __init__(self, channel: Channel, plan: Plan) -> None:
        self._channel = channel
        self._plan = plan

    def steps(self) -> tuple[Callable[[], None], ...]:
        """In this order, none left out."""
        return (
            self.new_session,
            self.close_descriptors,
            self.reset_signals_and_limits,
            self.enter_namespaces,
            self.open_listeners,
            self.cover_private_paths,
            self.drop_user,
            self.no_new_privileges,
            self.enter_workdir,
            self.restrict_paths,
            self.restrict_calls,
            self.prove,
            self.wait_for_go,
        )

    def new_session(self) -> None:
        process.set_pdeathsig(signal.SIGKILL)
        os.setsid()
        for fd in (0, 1, 2):
            if os.isatty(fd):
                fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
                return

    def close_descriptors(self) -> None:
        channel = self._channel.fileno()
        os.closerange(3, channel)
        process.close_range(channel + 1, (1 << 32) - 1)
        os.set_inheritable(channel, False)

    def reset_signals_and_limits(self) -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            try:
                signal.signal(number, signal.SIG_DFL)
            except OSError:
                continue  # numbers that libc keeps for itself
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.umask(0o022)
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("0\n")  # not the guard's protection

    def enter_namespaces(self) -> None:
        plan = self._plan
        flags = (namespaces.NEWNET if plan.jail else 0) | (namespaces.NEWNS if plan.mounts else 0)
        if "user" in (plan.jail, plan.trace_exec):
            namespaces.unshare(namespaces.NEWUSER)
            self._ask({"type": "map_ids", "pid": os.getpid()}, "mapped")
        if flags:
            namespaces.unshare(flags)
        if plan.jail:
            namespaces.bring_loopback_up()

    def open_listeners(self) -> None:
        if not self._plan.jail:
            return
        plan = self._plan
        opened = jail.open_doors([Door(name) for name in plan.doors], Capture(plan.capture), plan.proxy_port)
        doors = [str(door) for door, _ in opened]
        self._channel.send({"type": "listeners", "doors": doors}, [listener.fileno() for _, listener in opened])
        jail.close(opened)
        self._expect("served")

    def cover_private_paths(self) -> None:
        if not self._plan.mounts:
            return
        namespaces.make_mounts_private()
        sources = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source, _ in self._plan.bind]
        mounts.hold(self._plan.hold, empty=self._plan.empty_file)
        for path in self._plan.hide:
            _hide(path)
        if self._plan.empty_run:  # connecting to a socket's path is no file access to Landlock
            namespaces.tmpfs("/run", mode=0o755, size="64k")
        for source, (_, target) in zip(sources, self._plan.bind, strict=True):
            if self._plan.empty_run and target.startswith("/run/"):
                _make_stand_in(source, target)
            namespaces.bind(f"/proc/self/fd/{source}", target)
            os.close(source)

    def drop_user(self) -> None:
        plan = self._plan
        if plan.uid is None or plan.gid is None:
            return
        os.setgroups([])
        process.drop_capability_bounding_set()
        os.setresgid(plan.gid, plan.gid, plan.gid)
        os.setresuid(plan.uid, plan.uid, plan.uid)

    def no_new_privileges(self) -> None:
        process.set_pdeathsig(signal.SIGKILL)
        process.set_no_new_privs()

    def enter_workdir(self) -> None:
        try:
            os.chdir(self._plan.workdir)
        except OSError as error:
            raise OSError(f"{self._plan.workdir}: {error.strerror} for the session's user") from error

    def restrict_paths(self) -> None:
        plan = self._plan
        if not plan.landlock:
            return
        grants = ((plan.read, landlock.READ), (plan.write, landlock.WRITE), (plan.devices, landlock.DEVICE))
        with landlock.Ruleset(
            net=landlock.NO_NET if plan.connect_ports is None else landlock.Net.CONNECT_TCP,
            scope=landlock.Scope.SIGNAL | landlock.Scope.ABSTRACT_UNIX_SOCKET,
        ) as rules:
            for paths, rights in grants:
                for path in paths:
                    if os.path.lexists(path):
                        rules.allow_path(path, rights)
            for port in plan.connect_ports or ():
                rules.allow_tcp_connect(port)
            rules.restrict_self()

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

    def prove(self) -> None:
        self._channel.send({"type": "proved", "broken": attempt(self._plan.proofs)})

    def wait_for_go(self) -> None:
        self._expect("go")
        os.environ.clear()
        process.set_dumpable(True)

    def execute(self) -> NoReturn:
        """Become the session. Ends with 127 where the command does not exist, 126 where it may not run."""
        argv, env = list(self._plan.argv), self._plan.env
        denied, failure = False, OSError(errno.ENOENT, "no such command")
        for path in _candidates(argv[0], env.get("PATH", "")):
            try:
                os.execve(path, argv, env)  # noqa: S606
            except OSError as error:
                denied, failure = denied or error.errno in (errno.EACCES, errno.EPERM), error
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    break
        text = "permission denied" if denied else failure.strerror
        os.write(2, f"parhelia: {ascii(argv[0])[1:-1] or repr('')}: {text}\n".encode())
        os._exit(Exit.COMMAND_DENIED if denied or failure.errno != errno.ENOENT else Exit.COMMAND_MISSING)

    def _ask(self, message: dict[str, object], answer: str) -> None:
        self._channel.send(message)
        self._expect(answer)

    def _expect(self, kind: str) -> None:
        message, _ = self._channel.receive()
        if message["type"] != kind:
            raise ChannelClosed(f"expected {kind!r}, got {message['type']!r}")


def _hide(path: str) -> None:
    """Cover a private path of the agent's: an empty directory that nobody may enter, or /dev/null for a file."""
    if os.path.isdir(path):  # noqa: PTH112  (the launcher keeps its imports lean)
        namespaces.tmpfs(path, mode=0o000, size="4k", read_only=True)
    elif os.path.lexists(path):
        with suppress(FileNotFoundError):  # gone since: a socket of somebody's who has ended
            namespaces.bind("/dev/null", path)


def _make_stand_in(source: int, target: str) -> None:
    """Something of the same kind for `source` to be bound over."""
    directory = stat.S_ISDIR(os.fstat(source).st_mode)
    os.makedirs(target if directory else target.rpartition("/")[0], mode=0o755, exist_ok=True)  # noqa: PTH103
    if not directory:
        with open(target, "x", encoding="ascii"):
            return


def _candidates(name: str, path: str) -> list[str]:
    if not name:
        return []
    if "/" in name:
        return [name]
    found = [f"{part or '.'}/{name}" for part in path.split(":") if os.path.lexists(f"{part or '.'}/{name}")]
    return found or [f"/nonexistent/{name}"]


def main() -> NoReturn:
    """`python -I -m agent.session.launch --channel FD`: started by the guard only."""
    channel = Channel(socket.socket(fileno=int(sys.argv[sys.argv.index("--channel") + 1])))
    message, _ = channel.receive()
    launch = Launch(channel, Plan.parse(message["plan"]))
    for step in launch.steps():
        try:
            step()
        except Exception as error:  # any fault ends the launch: nothing of the session has run
            with suppress(ChannelClosed):  # the guard has given up already
                channel.send({"type": "failed", "step": step.__name__, "error": f"{type(error).__name__}: {error}"})
            os._exit(int(Exit.UNPROTECTED))
    launch.execute()


if __name__ == "__main__":
    main()
