"""Pushing to a real Pushgateway (Debian's), and to gateways that are dead, deaf or rude."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.record.metrics import Metrics
from agent.record.push import Pusher, label
from tests.conftest import held_port, require
from tests.record.logs import allowed, denial, open_ledger, wait_until

GATEWAY = "/usr/bin/prometheus-pushgateway"


class Gateway:
    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200, path
            return response.read().decode()

    def groups(self) -> list[dict[str, object]]:
        data = json.loads(self.get("/api/v1/metrics"))["data"]
        assert isinstance(data, list)
        return data

    def value(self, name: str, **labels: str) -> float | None:
        """The pushed sample with these labels (among others), None where there is none."""
        for line in self.get("/metrics").splitlines():
            if line.startswith(name + "{") and all(f'{key}="{text}"' in line for key, text in labels.items()):
                return float(line.rpartition(" ")[2])
        return None


def start_gateway(port: int, log: Path) -> subprocess.Popen[bytes]:
    require(shutil.which(GATEWAY), "prometheus-pushgateway is not installed")
    command = [GATEWAY, f"--web.listen-address=127.0.0.1:{port}", "--persistence.file="]  # Debian's default is a file
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)

    def ready() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        assert process.poll() is None, log.read_text()
        return False

    wait_until(ready, "the gateway listens")
    return process


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with held_port() as port:
        process = start_gateway(port, tmp_path / "gateway.log")
        yield Gateway(port)
        process.terminate()
        process.wait(60)


def test_a_real_gateway_shows_the_numbers_of_the_log(tmp_path, gateway):
    metrics = Metrics(version="0.1", policy_digest="abc")
    pusher = Pusher(metrics, gateway.url, env="prod", instance="sess-boot", heartbeat=600, debounce=0.05)
    pusher.start()
    name = "parhelia_security_denied_total"
    wait_until(
        lambda: gateway.value(name, event_type="bash.dangerous", instance="sess-boot", env="prod") == 0,
        "the zero is there before the first event",
    )
    ledger = open_ledger(tmp_path / "log", metrics=metrics)
    for _ in range(30):
        ledger.post(denial())
    ledger.accept(allowed())
    ledger.flush()
    wait_until(
        lambda: gateway.value(name, event_type="network.egress_blocked", instance="sess-boot") == 30,
        "a security event is pushed long before the heartbeat",
    )
    assert gateway.value("parhelia_agent_session_ended", instance="sess-boot") == 0
    ledger.close()
    assert pusher.close(60)
    (group,) = gateway.groups()
    assert group["labels"] == {"job": "parhelia_agent", "env": "prod", "instance": "sess-boot"}
    assert group["last_push_successful"] is True
    assert gateway.value("parhelia_agent_session_ended", instance="sess-boot") == 1
    assert gateway.value("parhelia_agent_audit_sequence") == ledger.seq
    assert gateway.value("parhelia_agent_push_failures_total") == 0
    assert gateway.value("parhelia_agent_info", version="0.1", policy_digest="abc") == 1


def test_the_heartbeat_pushes_what_no_event_announces(gateway):
    metrics = Metrics(version="1")
    pusher = Pusher(metrics, gateway.url, env="e", instance="i", heartbeat=0.1)
    pusher.start()
    wait_until(lambda: bool(gateway.groups()), "the first push")
    metrics.add_egress_bytes(5, 0)
    wait_until(lambda: gateway.value("parhelia_agent_egress_bytes_total", direction="up") == 5, "the heartbeat")
    assert pusher.close(60)


@pytest.mark.parametrize(
    "value", ["default", "", "a/b", "a b", ".", "..", "caf\u00e9", "a+b%2F?#&=", "x@y", 'q"uote\\']
)
def test_a_label_value_of_any_spelling_arrives_as_it_is(gateway, value):
    pusher = Pusher(Metrics(version="1"), gateway.url + "/", env=value, instance="s-b", heartbeat=600)
    pusher.start()
    assert pusher.close(60)
    (group,) = gateway.groups()
    expected = {"job": "parhelia_agent", "instance": "s-b"} | ({"env": value} if value else {})
    found = group["labels"]
    assert isinstance(found, dict)
    assert {key: text for key, text in found.items() if text} == expected


def test_two_sessions_are_two_groups_and_the_end_of_one_deletes_neither(gateway):
    for instance in ("one-b", "two-b"):
        pusher = Pusher(Metrics(version="1"), gateway.url, env="e", instance=instance)
        pusher.start()
        assert pusher.close(60)
    assert gateway.value("parhelia_agent_session_ended", instance="one-b") == 1
    assert gateway.value("parhelia_agent_session_ended", instance="two-b") == 1


def test_a_gateway_that_comes_late_gets_everything_and_the_failures_are_counted(tmp_path):
    require(shutil.which(GATEWAY), "prometheus-pushgateway is not installed")
    with held_port() as port:
        comes_late(port, tmp_path)


def comes_late(port: int, tmp_path: Path) -> None:
    metrics = Metrics(version="1")
    pusher = Pusher(metrics, f"http://127.0.0.1:{port}", env="e", instance="i", heartbeat=0.1, timeout=2)
    pusher.start()
    metrics.count(denial())
    wait_until(lambda: failures(metrics) >= 1, "the refused push is counted")
    process = start_gateway(port, tmp_path / "gateway.log")
    try:
        gateway = Gateway(port)
        wait_until(
            lambda: gateway.value("parhelia_security_denied_total", event_type="network.egress_blocked") == 1,
            "it is tried again",
        )
        wait_until(lambda: (gateway.value("parhelia_agent_push_failures_total") or 0) >= 1, "the failures are shown")
        assert pusher.close(60)
    finally:
        process.terminate()
        process.wait(60)


def failures(metrics: Metrics) -> float:
    for line in metrics.render().decode().splitlines():
        if line.startswith("parhelia_agent_push_failures_total "):
            return float(line.split()[1])
    raise AssertionError("no such metric")


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.invalid:9091",
        "http://user:secret@gateway.invalid",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:notaport",
        "http://[::1",
        "https://127.0.0.1:1",
        "http://" + "a" * 300 + ".invalid",
    ],
)
def test_an_address_that_cannot_work_is_counted_and_never_in_the_way(url, caplog):
    metrics = Metrics(version="1")
    pusher = Pusher(metrics, url, env="e", instance="i", timeout=1)
    pusher.start()
    wait_until(lambda: failures(metrics) >= 1, "the failure is counted")
    metrics.count(denial())
    assert pusher.close(60) is False
    assert "secret" not in caplog.text


class Rude:
    """A server that takes connections and behaves as told, until closed."""

    def __init__(self, answer: bytes, *, dribble: bool = False) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._answer, self._dribble = answer, dribble
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connections = []
        with contextlib.suppress(OSError):
            while not self._end.is_set():
                connection = self._server.accept()[0]
                connections.append(connection)
                if self._dribble:
                    threading.Thread(target=self._drip, args=(connection,), daemon=True).start()
                elif self._answer:
                    connection.recv(1 << 16)
                    connection.sendall(self._answer)
                    connection.close()

    def _drip(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not self._end.wait(0.05):
                connection.sendall(b"x: y\r\n"[:1])

    def close(self) -> None:
        self._end.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(60)


@pytest.mark.parametrize(
    ("answer", "dribble"),
    [
        (b"", False),
        (b"", True),
        (b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", False),
        (b"\x00\xff garbage\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n" + b"h: " + b"a" * 200_000, False),
    ],
    ids=["hangs", "dribbles", "fails", "redirects", "is no HTTP", "floods"],
)
def test_a_gateway_that_misbehaves_is_counted_and_close_is_bounded(answer, dribble):
    server = Rude(answer, dribble=dribble)
    metrics = Metrics(version="1")
    pusher = Pusher(metrics, server.url, env="e", instance="i", timeout=0.3)
    pusher.start()
    try:
        wait_until(lambda: failures(metrics) >= 1, "the failure is counted")
        assert pusher.close(60) is False
        assert not pusher._thread.is_alive()
    finally:
        server.close()


def test_close_does_not_wait_for_a_hanging_gateway_longer_than_it_is_told():
    server = Rude(b"")
    pusher = Pusher(Metrics(version="1"), server.url, env="e", instance="i", timeout=60)
    pusher.start()
    try:
        assert pusher.close(0.2) is False
        assert pusher._thread.is_alive()
    finally:
        server.close()


def test_user_and_password_of_the_url_are_sent_as_basic_authorization():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pusher = Pusher(Metrics(version="1"), f"http://me:p%40ss@127.0.0.1:{port}/base", env="e", instance="i")
        pusher.start()
        connection, _ = server.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        server.close()
        pusher.close(60)
    lines = head.split(b"\r\n\r\n")[0].decode().split("\r\n")
    assert lines[0] == "PUT /base/metrics/job/parhelia_agent/env/e/instance/i HTTP/1.1"
    assert "Authorization: Basic " + base64.b64encode(b"me:p@ss").decode() in lines


def test_the_environment_s_proxy_is_not_used(monkeypatch, gateway):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    pusher = Pusher(Metrics(version="1"), gateway.url, env="e", instance="i")
    pusher.start()
    assert pusher.close(60)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("prod-1.x_~", ("env", "prod-1.x_~")),
        ("", ("env@base64", "=")),
        ("a/b", ("env@base64", "YS9i")),
        (".", ("env@base64", "Lg")),
        ("\udc80", ("env@base64", base64.urlsafe_b64encode(b"\\udc80").rstrip(b"=").decode())),
    ],
)
def test_a_value_that_is_not_plain_is_base64(value, expected):
    assert label("env", value) == expected
