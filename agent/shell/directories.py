"""cd, pushd and popd (bash(1)): where later commands run.

Rules: a directory that is not known is None; ``CDPATH`` set in the text makes relative names unknown; where a change
fails the shell stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.shell.pieces import ANYTHING, NOTHING, Word
from agent.shell.setting import Running, Setting
from agent.shell.state import UNKNOWN_VALUES, Outcome, State

_OPTION = re.compile(r"-[LPe@n]+|--")
_DEEPEST = 16
_ROTATION = re.compile(r"[+-]\d+")


def change_directory(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    operands = [word for word in words[1:] if _OPTION.fullmatch(word.text) is None]
    target = operands[0] if operands else _home(state)
    if target.text == "-":
        previous = state.variables.get("OLDPWD", UNKNOWN_VALUES)
        places = [value[0].text if value and value[0].known else None for value in previous]
        return Outcome(_left(state, state.moved(*places)), state, NOTHING)
    return Outcome(_left(state, _gone(runner, target, state, setting)), state, NOTHING)


def _home(state: State) -> Word:
    """The value of HOME, as far as the text set it."""
    values = state.variables.get("HOME", ((Word("~"),),))
    return values[0][0] if len(values) == 1 and values[0] else ANYTHING


def push_directory(runner: Running, words: Sequence[Word], state: State, setting: Setting) -> Outcome:
    operands = [word for word in words[1:] if _OPTION.fullmatch(word.text) is None]
    if not operands or _ROTATION.fullmatch(operands[0].text):
        if not operands and state.stack == ():
            return Outcome(state, state, NOTHING)
        if operands or not state.stack:
            return Outcome(_left(state, state.moved(None)), state, NOTHING)
        swapped = state._replace(cwd=state.stack[-1], stack=(*state.stack[:-1], state.cwd))
        return Outcome(_left(state, swapped), state, NOTHING)
    moved = _gone(runner, operands[0], state, setting)
    stack = None if state.stack is None or len(state.stack) > _DEEPEST else (*state.stack, state.cwd)
    return Outcome(_left(state, moved._replace(stack=stack)), state, NOTHING)


def pop_directory(_runner: Running, words: Sequence[Word], state: State, _setting: Setting) -> Outcome:
    if len(words) == 1 and state.stack == ():
        return Outcome(state, state, NOTHING)
    if len(words) > 1 or not state.stack:
        return Outcome(_left(state, state.moved(None)), state, NOTHING)
    popped = state._replace(cwd=state.stack[-1], stack=state.stack[:-1])
    return Outcome(_left(state, popped), state, NOTHING)


def _gone(runner: Running, target: Word, state: State, setting: Setting) -> State:
    searched = "CDPATH" in state.variables or any(name == "CDPATH" for name, _ in setting.assignments)
    if searched and not target.text.startswith(("/", "./", "../", "~")) and target.text not in (".", ".."):
        return state.moved(None)
    return runner.moved(state, target)


def _left(before: State, after: State) -> State:
    """`after`, with OLDPWD where the shell was `before`."""
    values = tuple((Word(place),) if place is not None else None for place in before.cwd)
    return after.assign_any("OLDPWD", values)
