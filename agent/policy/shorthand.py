"""A command rule written as one line: ``mkfs``, ``dd if=/dev/zero``.

Rules kept here: what says nothing, or more than a line can, is an error that says what to write instead.
"""

from __future__ import annotations

from agent.policy.model import CommandMatch
from agent.policy.options import GENERIC, GRAMMARS, canonical_option


class ShorthandError(ValueError):
    """A shorthand that says nothing or more than one line can; `fix` is what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def parse_shorthand(text: str) -> CommandMatch:
    """``mkfs`` or ``dd if=/dev/zero`` as a `CommandMatch`: program, subcommand words, options, one operand.

    Raises ShorthandError.
    """
    words = text.split()
    if not words or words[0].startswith("-") or "/" in words[0] or "=" in words[0]:
        raise ShorthandError(f"{text!r} does not start with a program's name", "write a program, such as mkfs")
    if any(char in text for char in "'\"`$;|&<>(){}\\\0"):
        raise ShorthandError(f"{text!r} is shell syntax", "write {id: ..., match: {program: ..., operands: [...]}}")
    program = words[0]
    grammar = GRAMMARS.get(program, GENERIC)
    options: list[str] = []
    subcommand: list[str] = []
    operands: list[str] = []
    for word in words[1:]:
        if word.startswith("--") and len(word) > 2:
            options.append(canonical_option(word[2:], grammar))
        elif word.startswith("-") and len(word) > 1:
            letters = [word[1:]] if grammar.single_dash else list(word[1:])
            options += [canonical_option(letter, grammar) for letter in letters]
        elif operands or any(char in word for char in "=/.~*?[") or grammar.plain:
            operands.append(word)
        else:
            subcommand.append(word)
    if len(operands) > 1:
        raise ShorthandError(
            f"{text!r} names {len(operands)} operands", "write {id: ..., match: {program: ..., operands: [...]}}"
        )
    return CommandMatch((program,), tuple(subcommand), tuple(dict.fromkeys(options)), tuple(operands))
