"""docs/threat-model.md: its tables are made of the declared attacks; the words before them are written by hand.

`python -m tests.escape.threat_model` writes the tables between the marks; a test keeps the file as this makes it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.escape.attacks.declared import RUNTIMES, Attack, Group, Verdict
from tests.escape.attacks.suite import GROUPS

DOCUMENT = Path(__file__).parents[2] / "docs" / "threat-model.md"
BEGIN = "<!-- tables: made by python -m tests.escape.threat_model -->"
END = "<!-- end of the tables -->"


def rendered() -> str:
    """The whole document, with the tables as the declarations have them."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def tables() -> str:
    """The sum, a table for each group, and the holes."""
    parts = [_sum(), *(_group(group) for group in GROUPS), _holes()]
    return "\n".join(parts)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _table(*head: str) -> list[str]:
    return [_row(*head), _row(*("---" for _ in head))]


def _attacks() -> list[Attack]:
    return [attack for group in GROUPS for attack in group.attacks]


def _sum() -> str:
    lines = ["### How many", "", *_table("verdict", *RUNTIMES)]
    for verdict in Verdict:
        counted = Counter(
            runtime for attack in _attacks() for runtime in RUNTIMES if attack.verdicts[runtime] is verdict
        )
        lines.append(_row(verdict, *(str(counted[runtime]) for runtime in RUNTIMES)))
    return "\n".join([*lines, ""])


def _number(attack: Attack, sentences: list[str]) -> str:
    return f"[{sentences.index(attack.hole) + 1}](#holes)"


def _group(group: Group) -> str:
    lines = [f"### {group.title}", "", *_table("attack", "corpus", *RUNTIMES)]
    sentences = _sentences()
    for attack in group.attacks:
        cells = []
        for runtime in RUNTIMES:
            verdict = attack.verdicts[runtime]
            cells.append(f"**open** {_number(attack, sentences)}" if verdict is Verdict.OPEN else str(verdict))
        lines.append(_row(attack.name, ", ".join(map(str, attack.rows)), *cells))
    if group.shown:
        lines += ["", "Shown by tests of their own:", "", *_table("attack", "corpus", "test")]
        lines += [_row(shown.name, ", ".join(map(str, shown.rows)), f"`{shown.test}`") for shown in group.shown]
    untested = sorted({attack.untested for attack in group.attacks if attack.untested})
    if untested:
        lines += ["", "Untested: " + "; ".join(untested) + "."]
    return "\n".join([*lines, ""])


def _sentences() -> list[str]:
    return list(dict.fromkeys(attack.hole for attack in _attacks() if attack.hole))


def _holes() -> str:
    lines = ["### Holes", ""]
    for number, sentence in enumerate(_sentences(), start=1):
        where = [runtime for runtime in RUNTIMES if any(
            attack.hole == sentence and attack.verdicts[runtime] is Verdict.OPEN for attack in _attacks()
        )]  # fmt: skip
        lines.append(f"{number}. {sentence[0].upper()}{sentence[1:]}. ({', '.join(where)})")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    DOCUMENT.write_text(rendered())
