"""Time that nobody counted is a pause, by whichever clock it shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from agent.daemon.survival.pulse import LIMIT, Pulse

START = (100.0, 1_000_000.0)


@dataclass
class Body:
    """A pulse whose clocks are set by hand."""

    now: tuple[float, float] = START
    pauses: list[float] = field(default_factory=list)

    def pulse(self) -> Pulse:
        return Pulse(self.pauses.append, lambda: self.now)

    def after(self, boot: float, wall: float) -> None:
        self.now = (self.now[0] + boot, self.now[1] + wall)


def test_what_shows_a_restore_by_itself_is_a_pause_of_no_length() -> None:
    body, moved = Body(), [0]
    pulse = Pulse(body.pauses.append, lambda: body.now, lambda: moved[0])
    pulse.beat()
    moved[0] += 1
    assert not pulse.steady()
    pulse.beat()
    pulse.beat()
    assert body.pauses == [0.0]
    pulse.settled()
    assert pulse.steady()
    pulse.beat()
    assert body.pauses == [0.0]


def test_beats_that_come_in_time_are_no_pause() -> None:
    body = Body()
    pulse = body.pulse()
    for _ in range(100):
        body.after(LIMIT - 0.1, LIMIT - 0.1)
        assert pulse.steady()
        pulse.beat()
    assert body.pauses == []


@pytest.mark.parametrize(
    "passed",
    [(LIMIT, LIMIT), (LIMIT, 0.5), (0.5, LIMIT), (3600.0, -5.0)],
    ids=["both clocks", "a wall clock that was put back", "a monotonic clock that was kept", "an hour"],
)
def test_a_gap_in_either_clock_is_a_pause_and_told_once(passed: tuple[float, float]) -> None:
    body = Body()
    pulse = body.pulse()
    body.after(*passed)
    assert not pulse.steady(), "whoever asks before the next beat is told as well"
    pulse.beat()
    pulse.beat()
    assert body.pauses == [pytest.approx(max(passed))]
    assert not pulse.steady(), "until what it asks for is done"
    pulse.settled()
    assert pulse.steady()
    body.after(*passed)
    pulse.beat()
    assert len(body.pauses) == 2


def test_a_wall_clock_that_goes_back_is_no_pause() -> None:
    body = Body()
    pulse = body.pulse()
    body.after(0.5, -3600.0)
    pulse.beat()
    assert pulse.steady()
    assert body.pauses == []


STOPPED = """
import sys, time
from agent.daemon.survival import pulse
pulse.LIMIT, pulse.BEAT_SECONDS = 1.0, 0.05
beating = pulse.Pulse(lambda seconds: print("paused", seconds >= 1.0, beating.steady(), flush=True))
beating.start()
print("ready", flush=True)
sys.stdin.read(1)
beating.stop()
"""


def test_a_process_that_was_stopped_notices_it_itself() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "paused True False\n"
        process.communicate("x", timeout=20)
