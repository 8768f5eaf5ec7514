"""Rules against their own examples: a rule that disagrees with what its author wrote beside it is an error.

Rules kept here: an example is judged by its own rule alone; an example of `match` must match for certain and one of
`no_match` must certainly not; an example that cannot be read is a problem too. Examples name no header fields, so that
conditions on those are left aside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date

from agent.policy.build import Bench
from agent.policy.commands import Fit as CommandFit
from agent.policy.commands import Places, judge
from agent.policy.egress_match import Fit, allows
from agent.policy.model import CommandRule, HostRule, Layer, PathRule, Where
from agent.policy.paths import covers, is_normal, protects
from agent.policy.request import CommandRequest, EgressRequest, Origin, Stage
from agent.policy.targets import TargetError, parse_target
from agent.policy.words import shown
from agent.values import replace

type ReadCommand = Callable[[str], CommandRequest]
"""Shell text to what it runs (`agent.shell.requests.from_text` with a place to stand in)."""

ORIGIN = Origin(mechanism="examples")
EXAMPLE_HOME = "/home/session"
"""What ``~`` is in examples."""
EXAMPLE_WORKSPACE = ("/vol/parhelia/workspaces", "/vol/parhelia/checkpoints", "/tmp")  # noqa: S108
"""What ``<workspace>`` is in examples, whatever the policy grants: a shipped pack agrees with its own everywhere."""


def report(bench: Bench, layer: Layer, read_command: ReadCommand | None, proven: Collection[str] = ()) -> None:
    """Add a problem for each example that its rule disagrees with. Without `read_command` (the loader alone cannot read
    shell text) the examples of command rules are left aside, and so are those of rules from the files `proven`."""
    if layer.egress is not None:
        for rule in (*layer.egress.allow, *layer.egress.deny):
            _report_host(bench, rule)
    if layer.commands is not None and read_command is not None:
        for command in layer.commands.deny:
            if command.where.file in proven:
                continue
            _report_command(bench, command, read_command)
    if layer.paths is not None:
        for path in (*layer.paths.write, *layer.paths.read, *layer.paths.sensitive):
            _report_path(bench, path, covers)
        for path in (*layer.paths.protect, *layer.paths.watch):
            _report_path(bench, path, lambda pattern, text: protects(pattern, text, EXAMPLE_HOME))


def _report_host(bench: Bench, rule: HostRule) -> None:
    for wanted, texts in ((True, rule.examples.match), (False, rule.examples.no_match)):
        for text in texts:
            try:
                target = parse_target(text)
            except TargetError as error:
                bench.fault(rule.where, f"the example '{shown(text)}' cannot be read: {error}", "write a URL or a host")
                continue
            request = EgressRequest(
                host=target.host,
                port=target.port,
                protocol=target.protocol,
                method=target.method or "GET",
                path=target.path,
                query=None if target.path is None else target.query,
                today=date.min,
                origin=ORIGIN,
                stage=Stage.NAME,
            )
            _compare(bench, rule.id, rule.where, text, wanted, sure=allows(replace(rule, headers=()), request))


def _report_command(bench: Bench, rule: CommandRule, read_command: ReadCommand) -> None:
    for wanted, texts in ((True, rule.examples.match), (False, rule.examples.no_match)):
        for text in texts:
            request = read_command(text)
            places = Places(request.home, EXAMPLE_WORKSPACE, request.cwd)
            fits = [judge(rule.match, command, places) for command in request.commands]
            best = max(fits, default=CommandFit.NO)
            _compare(bench, rule.id, rule.where, text, wanted, sure=Fit(int(best)))


def _report_path(bench: Bench, rule: PathRule, holds: Callable[[str, str], bool]) -> None:
    for wanted, texts in ((True, rule.examples.match), (False, rule.examples.no_match)):
        for text in texts:
            if not is_normal(text):
                bench.fault(rule.where, f"the example '{shown(text)}' is no absolute path", "write an absolute path")
                continue
            _compare(bench, rule.id, rule.where, text, wanted, sure=Fit.YES if holds(rule.path, text) else Fit.NO)


def _compare(bench: Bench, rule: str, where: Where, text: str, wanted: bool, *, sure: Fit) -> None:
    if wanted and sure is not Fit.YES:
        how = "does not match" if sure is Fit.NO else "does not certainly match"
    elif not wanted and sure is not Fit.NO:
        how = "matches" if sure is Fit.YES else "may match"
    else:
        return
    listed = "match" if wanted else "no_match"
    bench.fault(where, f"{rule} {how} its example '{shown(text)}' under {listed}", "correct the rule or the example")
