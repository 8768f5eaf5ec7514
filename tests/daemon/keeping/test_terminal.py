"""What the keeper knows of the operator's terminal."""

from __future__ import annotations

import os

from agent.daemon.keeping.terminal import Terminal


def test_a_terminal_is_gone_when_its_other_end_is_closed() -> None:
    outer, operators = os.openpty()
    terminal = Terminal((0, 1, 2), _source=operators)
    try:
        assert not terminal.hung_up()
        os.close(outer)
        assert terminal.hung_up()
    finally:
        os.close(operators)


def test_without_a_terminal_none_is_gone() -> None:
    assert not Terminal((0, 1, 2)).hung_up()
