"""The native client where things go wrong: it ends in 0 or 2 and nothing else, and 0 only behind a whole permit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from agent.enforce.commands.hook_protocols import PROTOCOLS
from agent.enforce.commands.hook_wire import HEAD, encode_answer
from tests.conftest import open_way, require
from tests.enforce.commands.hook_clients import native_client

PERMIT = encode_answer(True, "{}\n", "")
CALL = b'{"tool_name": "Bash", "tool_input": {"command": "ls"}}'
ENDING = [
    number
    for number in signal.Signals
    if number not in {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    and number not in {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
]


@contextlib.contextmanager
def daemon(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[list[bytes]]:
    """Takes one connection, reads the question to its end and lets `answer` do the rest; yields what was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(60)
                    asked.append(b"".join(iter(lambda: connection.recv(1 << 16), b"")))
                    answer(connection)

        thread = Thread(target=serve)
        thread.start()
        yield asked
        thread.join(60)


def permit(connection: socket.socket) -> None:
    connection.sendall(PERMIT)


def ask(path: Path, **more: object) -> subprocess.CompletedProcess[bytes]:
    more = {"input": CALL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.run([native_client(), "--socket", path], timeout=60, check=False, **more)


def limited(limit: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(limit, (value, value))


def test_it_is_a_small_static_program_that_looks_at_nothing() -> None:
    data = native_client().read_bytes()
    assert len(data) < 24 << 10
    assert b".interp" not in data
    assert b"/lib" not in data
    for name in (b"PARHELIA", b"LD_", b"HOME", b"PATH=", b"TMPDIR"):
        assert name not in data


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_call_travels_byte_for_byte_behind_its_protocol(tmp_path: Path, protocol: str) -> None:
    call = bytes(range(256)) * 1000
    with daemon(tmp_path / "s", permit) as asked:
        argv = [native_client(), protocol, "--socket", tmp_path / "s"]
        done = subprocess.run(argv, input=call, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"{}\n", b"")
    assert asked == [HEAD + protocol.encode() + b"\n" + call]


def test_a_shells_question_is_its_directory_and_words(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", lambda one: one.sendall(encode_answer(False, "", "no\n"))) as asked:
        argv = [native_client(), "shell", "--socket", tmp_path / "s", "--", "bash", "-c", "a b", ""]
        done = subprocess.run(argv, capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, b"no\n")
    assert asked == [HEAD + b"shell\n" + os.fsencode(tmp_path) + b"\0bash\0-c\0a b\0\0"]


@pytest.mark.parametrize("words", [("emacs",), ("claude-code", "x"), ("--socket",), ("shell",), ("shell", "--")])
def test_a_command_line_that_means_nothing_blocks(words: tuple[str, ...]) -> None:
    done = subprocess.run([native_client(), *words], input=CALL, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b"agent-fault: usage" in done.stderr) == (2, True)


@pytest.mark.parametrize("number", ENDING)
def test_every_signal_that_ends_a_program_ends_it_as_a_refusal(tmp_path: Path, number: signal.Signals) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        argv = [native_client(), "--socket", tmp_path / "s"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as client:
            connection, _ = listener.accept()
            client.send_signal(number)
            _, words = client.communicate(timeout=60)
            connection.close()
    assert (client.returncode, b"stopped or took too long" in words) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD, signal.SIGWINCH])
def test_a_signal_that_would_stop_it_or_means_nothing_does_not(tmp_path: Path, number: signal.Signals) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        argv = [native_client(), "--socket", tmp_path / "s"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            connection, _ = listener.accept()
            client.send_signal(number)
            assert client.stdin is not None
            client.stdin.close()
            while connection.recv(1 << 16):
                pass
            connection.sendall(PERMIT)
            connection.close()
            assert client.wait(60) == 0


def test_signals_that_its_parent_blocked_or_ignored_still_end_it(tmp_path: Path) -> None:
    def deaf() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        argv = [native_client(), "--socket", tmp_path / "s"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, preexec_fn=deaf) as client:  # noqa: PLW1509
            connection, _ = listener.accept()
            client.terminate()
            assert client.wait(60) == 2
            connection.close()


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_DATA, 1 << 20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ],
)
def test_under_a_limit_it_answers_or_blocks(tmp_path: Path, limit: int, value: int) -> None:
    with daemon(tmp_path / "s", permit) as asked:
        done = ask(tmp_path / "s", preexec_fn=limited(limit, value))
        if not asked:  # it came to nothing: let the daemon go
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as other:
                other.connect(str(tmp_path / "s"))
    assert done.returncode == (2 if limit == resource.RLIMIT_NOFILE else 0), done.stderr


def test_a_file_that_may_not_grow_cannot_hold_a_permit(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", permit), (tmp_path / "out").open("wb") as out:
        done = ask(tmp_path / "s", stdout=out, preexec_fn=limited(resource.RLIMIT_FSIZE, 0))
    assert (done.returncode, (tmp_path / "out").read_bytes()) == (2, b"")


def test_a_full_disk_cannot_hold_a_permit(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", permit), open("/dev/full", "wb") as full:
        assert ask(tmp_path / "s", stdout=full).returncode == 2


@pytest.mark.parametrize(("closed", "status"), [(0, 2), (1, 2), (2, 0)])
def test_a_closed_descriptor_is_not_taken_for_the_socket(tmp_path: Path, closed: int, status: int) -> None:
    path = tmp_path / "s"
    with daemon(path, permit) as asked:
        script = f'exec "$0" --socket "$1" {closed}>&-'
        done = subprocess.run(
            ["/bin/sh", "-c", script, native_client(), path], input=CALL, capture_output=True, timeout=60, check=False
        )
    assert done.returncode == status
    assert asked == [HEAD + b"claude-code\n" + (CALL if closed else b"")]


def test_descriptors_that_do_not_block_are_waited_for(tmp_path: Path) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    with (
        daemon(tmp_path / "s", permit),
        subprocess.Popen([native_client(), "--socket", tmp_path / "s"], stdin=reader, stdout=subprocess.PIPE) as client,
    ):
        os.close(reader)
        for byte in CALL:
            os.write(writer, bytes([byte]))
        os.close(writer)
        assert client.wait(60) == 0


def test_a_screen_that_takes_nothing_does_not_hold_a_refusal_up(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * 4096)
    with daemon(tmp_path / "s", lambda one: one.sendall(encode_answer(False, "", "no\n"))):
        assert ask(tmp_path / "s", stderr=writer).returncode == 2
    os.close(reader)
    os.close(writer)


def test_a_call_larger_than_the_bound_blocks(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", permit):
        done = ask(tmp_path / "s", input=b" " * ((64 << 20) + 1))
    assert (done.returncode, b"larger than 64 MiB" in done.stderr) == (2, True)


def test_an_answer_before_the_question_is_heard_is_read_all_the_same(tmp_path: Path) -> None:
    refusal = encode_answer(False, "{}\n", "no\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        argv = [native_client(), "--socket", tmp_path / "s"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as client:
            connection, _ = listener.accept()
            connection.sendall(refusal)
            connection.close()
            _, words = client.communicate(CALL * 100_000, timeout=60)
    assert (client.returncode, b"denied" in words or words == b"no\n") == (2, True)


def test_it_asks_the_socket_beside_it_before_the_compiled_in_one(tmp_path: Path) -> None:
    copy = shutil.copy(native_client(), tmp_path / "parhelia-hook")
    with daemon(tmp_path / "hook.sock", permit):
        done = subprocess.run([copy], input=CALL, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"{}\n")


def test_a_daemon_of_its_own_user_is_believed_only_as_an_ancestor(tmp_path: Path) -> None:
    """An agent without root: the client's file is root's (an image), the agent and the session have one uid."""
    require(os.getuid() == 0, "needs root to become another user")
    open_way(tmp_path)
    tmp_path.chmod(0o777)
    script = f"""
import os, socket, subprocess, sys
os.setuid(65534)
listener = socket.socket(socket.AF_UNIX)
listener.bind("s")
def serve():
    listener.listen()  # whose process that is, SO_PEERCRED says
    os.write(to, b"up")
    connection, _ = listener.accept()
    connection.recv(1)
    if sys.argv[1] == "ancestor":
        while connection.recv(1 << 16): pass
    connection.sendall({PERMIT!r})
    os._exit(0)
def ask():
    os.read(wait, 2)
    done = subprocess.run([sys.argv[2], "--socket", "s"], input=b"{{}}", capture_output=True)
    print(done.returncode, done.stderr.decode(), flush=True)
wait, to = os.pipe()
child = os.fork()
(ask if bool(child) == (sys.argv[1] == "sibling") else serve)()
"""
    for who, status in (("ancestor", "0 "), ("sibling", "2 parhelia: denied by agent-fault: the socket is not")):
        (tmp_path / "s").unlink(missing_ok=True)
        argv = ["/usr/bin/python3", "-c", script, who, str(native_client())]
        with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True) as program:
            assert program.stdout is not None
            assert program.stdout.readline().startswith(status), who
            os.killpg(program.pid, signal.SIGKILL)
