"""Pushes the metrics to a Pushgateway, on a thread of its own and never in the way.

Rules:
- PUT of the whole registry to ``$URL/metrics/job/parhelia_agent/env/<env>/instance/<session>-<boot>`` (POST would leave
  metrics that are gone; a DELETE would take the session's last numbers with it: there is none).
- At once on a security event, at most once a `debounce`; else every `heartbeat`; and once at the end, with
  `parhelia_agent_session_ended` 1.
- A gateway that cannot be resolved, refuses, hangs or dribbles costs at most `timeout` seconds of this thread per try,
  is counted in `parhelia_agent_push_failures_total` and tried again with back-off. `close` is bounded as well.
- No proxy of the environment is used and no redirect followed: the numbers go where the operator said or nowhere.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from agent.record.metrics import Metrics

if TYPE_CHECKING:
    from http.client import HTTPConnection

log = logging.getLogger(__name__)

JOB = "parhelia_agent"
_BACKOFF_FIRST, _BACKOFF_MOST = 1.0, 30.0
_PLAIN = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~-]+")


class Pusher:
    """`start` it, `close` it. `url` is the gateway's base URL, http or https, user and password allowed in it."""

    def __init__(
        self,
        metrics: Metrics,
        url: str,
        *,
        env: str,
        instance: str | Callable[[], str],
        heartbeat: float = 15.0,
        debounce: float = 1.0,
        timeout: float = 3.0,
    ) -> None:
        self._metrics = metrics
        self._url = url
        self._env = env
        self._instance = instance
        self._heartbeat = heartbeat
        self._debounce = debounce
        self._timeout = timeout
        self._changed = threading.Condition()
        self._urgent = self._closing = False
        self._failing = False
        self._final_pushed = False
        self._thread = threading.Thread(target=self._run, name="metrics-push", daemon=True)

    def start(self) -> None:
        """Begin; the first push is at once, so that the series exist before their first increment."""
        self._metrics.watch(self.wake)
        self._thread.start()

    def wake(self) -> None:
        """A security event has been counted: push soon. Never waits."""
        with self._changed:
            self._urgent = True
            self._changed.notify()

    def close(self, timeout: float = 5.0) -> bool:
        """The final push, then stop. True where the gateway took it within `timeout` seconds."""
        self._metrics.end_session()
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if not self._final_pushed:
            log.warning("the last metrics were not pushed to %s", self._shown_url())
        return self._final_pushed

    def _run(self) -> None:
        backoff = 0.0
        closing = False
        while not closing:
            closing, self._urgent = self._closing, False
            pushed = self._push()
            if closing:
                self._final_pushed = pushed
                return
            backoff = 0.0 if pushed else min(_BACKOFF_MOST, max(_BACKOFF_FIRST, backoff * 2))
            self._wait(backoff)

    def _wait(self, backoff: float) -> None:
        """Until the next push is due: a failing gateway is not asked sooner for a security event."""
        begin = time.monotonic()
        with self._changed:
            while not self._closing:
                waited = time.monotonic() - begin
                due = backoff or (self._debounce if self._urgent else self._heartbeat)
                if waited >= due:
                    return
                self._changed.wait(due - waited)

    def _push(self) -> bool:
        from http.client import HTTPException

        from prometheus_client import push_to_gateway

        try:
            address = _Address(self._url)
            push_to_gateway(
                address.base,
                job=JOB,
                registry=self._metrics.registry(),
                grouping_key=self._grouping(),
                timeout=self._timeout,
                handler=address.handler,
            )
        except (OSError, HTTPException, ValueError) as error:
            self._metrics.push_failed()
            if not self._failing:
                log.warning("metrics cannot be pushed to %s: %s; trying again", self._shown_url(), error)
            self._failing = True
            return False
        self._failing = False
        return True

    def _grouping(self) -> dict[str, str]:
        instance = self._instance if isinstance(self._instance, str) else self._instance()
        return dict((label("env", self._env), label("instance", instance)))

    def _shown_url(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self._url)


def label(name: str, value: str) -> tuple[str, str]:
    """The grouping label as it stands in the URL: ``name@base64`` where the value is not plain.

    Pushgateway's README, "URL": values with slashes, and empty ones, must be base64url; ``.`` and ``..`` would be
    taken for path segments. The client library escapes the rest.
    """
    if _PLAIN.fullmatch(value):
        return name, value
    encoded = base64.urlsafe_b64encode(value.encode("utf-8", "backslashreplace")).rstrip(b"=").decode()
    return f"{name}@base64", encoded or "="


class _Address:
    """The gateway as given, taken apart once per push. Raises ValueError where it is no http(s) URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("the gateway's URL is not http://HOST[:PORT] or https://HOST[:PORT]")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        self.base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"

    def handler(
        self, url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        """What prometheus-client calls to send (its "custom handler" protocol)."""

        def send() -> None:
            connection = self._connection(timeout)
            extra = [("Authorization", self._authorization)] if self._authorization else []
            with contextlib.closing(connection):
                connection.connect()
                # A time-out of the socket is per read: a gateway that sends a byte a second would hold us for hours.
                late = threading.Event()
                stop = threading.Timer(timeout or 0, _shut, [connection.sock, late])
                stop.daemon = True
                stop.start()
                try:
                    target = urlsplit(url).path
                    connection.request(method, target, data, dict([*headers, *extra]))
                    status = connection.getresponse().status
                finally:
                    stop.cancel()
            if late.is_set():  # a head cut off in the middle still parses
                raise TimeoutError(f"no whole answer within {timeout} s")
            if not 200 <= status < 300:
                raise OSError(f"the gateway answered {status}")

        return send

    def _connection(self, timeout: float | None) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        kind = HTTPSConnection if self._tls else HTTPConnection
        return kind(self._host, self._port, timeout=timeout)


def _shut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
