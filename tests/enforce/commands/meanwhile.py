"""A program whose second thread changes something between the check of an exec and the exec itself: by word of the one
who checks, since any time that is waited for instead can be too short."""

from __future__ import annotations

import os
import select

from tests.enforce.commands.filtered import PATIENCE_S

PIECES = """
#include <unistd.h>
/* 198 leads to the one who checks, 199 from it: see tests/enforce/commands/meanwhile.py. */
static void announce(void) { write(198, "a", 1); }
static void wait_for_the_word(void) { char byte; read(199, &byte, 1); }
static void changed(void) { write(198, "c", 1); }
"""
"""What a program in C begins with: `announce` before the exec, the other two around the change."""


class Meanwhile:
    """What leads to one such program and back. `close` at the end."""

    def __init__(self) -> None:
        self._heard, self._told = os.pipe()
        self._word, self._give = os.pipe()

    def hand_over(self) -> None:
        """In the child, before it executes the program."""
        os.dup2(self._told, 198)
        os.dup2(self._word, 199)

    def happens(self) -> None:
        """Where the program has announced its exec: let it make its change, and return once it has."""
        if self._says(0):
            os.write(self._give, b"g")
            assert self._says(PATIENCE_S), "the change was never made"

    def _says(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._heard, select.POLLIN)
        return bool(poller.poll(seconds * 1000)) and bool(os.read(self._heard, 1))

    def close(self) -> None:
        for descriptor in (self._heard, self._told, self._word, self._give):
            os.close(descriptor)
