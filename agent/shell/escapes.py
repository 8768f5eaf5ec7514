"""Programs with a door to the shell among their own options: awk, git, tar, sed, vim.

Sources: gawk(1), git-config(1) alias, git-rebase(1), git-submodule(1), git-bisect(1), tar(1), GNU sed ``e``, vim(1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.shell.fold import Word
from agent.shell.getopt import read_options
from agent.shell.steps import Code, Inner, Opaque, Script, ShellText, Step, reads_descriptor, word_at
from agent.shell.wrappers import Wrapper


def awk_steps(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    read = read_options(words, 1, Wrapper("F:v:f:W:e:i:l:bcCd::D::gh:IkL::Mno::NOp::PrsStV", "", lenient=True))
    code: list[Step] = [Code("awk", value) for name, value in read.given if name == "e"]
    files = [value for name, value in read.given if name in ("f", "file")]
    if any(reads_descriptor(file.text) for file in files):
        return [*code, Opaque("awk reads its program from a descriptor")]
    if files or code:
        return [*code, *(Script("awk", file) for file in files)]
    return [Code("awk", words[read.end])] if read.end < len(words) else []


def git_steps(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    """The places where git hands text to a shell."""
    found: list[Step] = []
    texts = [word.text for word in words]
    for index, text in enumerate(texts[1:], 1):
        before = texts[index - 1]
        alias = re.match(r"alias\.[^=]*=!(.*)", text, re.DOTALL)
        if before == "-c" and alias is not None:
            found.append(ShellText(Word(alias[1])))
        elif text.startswith(("--exec=", "--tree-filter=", "--index-filter=", "--msg-filter=")):
            found.append(ShellText(Word(text.partition("=")[2])))
        elif before in ("--exec", "--tree-filter", "--index-filter", "--msg-filter", "--env-filter") or (
            before == "-x" and "rebase" in texts
        ):
            found.append(ShellText(words[index]))
        elif before == "foreach" and "submodule" in texts:
            rest = [word for word in words[index:] if word.text not in ("--recursive", "--quiet")]
            found.append(ShellText(Word(" ".join(word.text for word in rest))))
        elif before == "run" and "bisect" in texts:
            found.append(Inner(tuple(words[index:])))
    return found


def tar_steps(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    found: list[Step] = []
    for index, word in enumerate(words):
        name, equals, value = word.text.partition("=")
        if name in ("--to-command", "--use-compress-program", "--info-script", "--new-volume-script", "--rsh-command"):
            found.append(ShellText(Word(value) if equals else word_at(words, index + 1)))
        elif name == "--checkpoint-action" and value.startswith("exec="):
            found.append(ShellText(Word(value[5:])))
        elif word.text == "--checkpoint-action" and word_at(words, index + 1).text.startswith("exec="):
            found.append(ShellText(Word(words[index + 1].text[5:])))
        elif word.text == "-I":
            found.append(ShellText(word_at(words, index + 1)))
    return found


def sed_steps(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    """GNU sed's ``e COMMAND`` (sed(1))."""
    found: list[Step] = []
    for word in words[1:]:
        for line in re.split(r"[\n;]", word.text):
            command = re.match(r"\s*(?:\d+|\$|/[^/]*/)?\s*e\s+(\S.*)", line)
            if command is not None:
                found.append(ShellText(Word(command[1])))
    return found


def vim_steps(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    found: list[Step] = []
    for index, word in enumerate(words[1:], 1):
        command = word.text[1:] if word.text.startswith("+") else ""
        if words[index - 1].text in ("-c", "--cmd"):
            command = word.text
        shell = re.match(r":*\s*(?:silent!?\s+)?!(.*)", command, re.DOTALL)
        if shell is not None:
            found.append(ShellText(Word(shell[1])))
    return found
