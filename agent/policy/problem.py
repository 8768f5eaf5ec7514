"""What is wrong with a policy: a place, what it is, and the fix. All problems of a policy are reported at once."""

from __future__ import annotations

from collections.abc import Sequence

from agent.policy.model import Where
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a policy file."""

    where: Where
    message: str
    fix: str

    def __str__(self) -> str:
        place = f"{self.where.file}:{self.where.line}:{self.where.column}"
        return f"{place}: {self.message}; {self.fix}" if self.fix else f"{place}: {self.message}"


class PolicyError(ValueError):
    """The policy is refused. `problems` is not empty and sorted by place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=_place))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def _place(problem: Problem) -> tuple[str, int, int, str]:
    return problem.where.file, problem.where.line, problem.where.column, problem.message
