"""Policy files to a `Policy`: strict, position-aware, complete in its complaints.

Rules kept here: pure (whoever calls has read the files); all files of a layer add up, in the order of their names; all
problems of all layers are collected and raised at once; nothing but `PolicyError` comes out of any text; a policy that
is returned is valid and its rules agree with their examples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from agent.policy import examples
from agent.policy.build import Bench
from agent.policy.build_layer import LayerBuilder, bundle_rules
from agent.policy.build_secrets import settle
from agent.policy.bundles import Bundle
from agent.policy.canonical import digest
from agent.policy.examples import ReadCommand
from agent.policy.findings import findings
from agent.policy.grants import workspace
from agent.policy.model import Layer, Offer, Pattern, Policy, Secret, Where
from agent.policy.passthrough import report_passthrough
from agent.policy.patterns import load_patterns
from agent.policy.problem import PolicyError, Problem
from agent.policy.reader import Reader
from agent.policy.schema import DOCUMENT
from agent.policy.shape import Record
from agent.policy.yaml_nodes import compose
from agent.values import dataclass, replace

__all__ = ["LayerSource", "PolicyError", "Problem", "load_policy"]


@dataclass(frozen=True, slots=True)
class LayerSource:
    """The files of one layer: its name (the directory) and (file name as shown in problems, text) of each."""

    name: str
    files: tuple[tuple[str, str], ...]


def load_policy(
    sources: Sequence[LayerSource],
    bundles: Mapping[str, Bundle] | None = None,
    *,
    read_command: ReadCommand | None = None,
    offers: tuple[Offer, ...] = (),
    patterns: Iterable[tuple[str, str]] | None = None,
    packs: Mapping[str, str] | None = None,
    proven: Collection[str] = (),
) -> Policy:
    """The effective policy of the layers, the first of which allows and the others narrow.

    `bundles`: what `use:` may name; `packs`: what `packs:` may name, as YAML text. `read_command` reads the examples of
    command rules; without it these are not checked, and those of the files `proven` (as `where` names them) never are.
    `offers`: bundles that denials point to. `patterns`: (name, text) of the files of credential shapes, read only where
    a rule says `scan`: without any shape such a rule is a problem, with None it is not. Raises PolicyError with every
    problem found.
    """
    problems: list[Problem] = []
    layers: list[Layer] = []
    for index, source in enumerate(sources):
        builder = LayerBuilder(_records(source, problems), bundles or {}, packs or {}, problems, first=index == 0)
        layer = _layer(source.name, builder, problems, read_command, proven)
        layers.append(_settled(layer, layers[0].secrets if layers else layer.secrets, problems))
    report_passthrough(problems, layers)
    searched = _searched(layers, patterns, problems)
    if problems:
        raise PolicyError(problems)
    return Policy(
        layers=tuple(layers),
        digest=digest(layers, searched),
        warnings=findings(layers),
        offers=offers,
        patterns=searched,
        workspace=workspace(layers),
    )


def offer(name: str, text: str) -> Offer:
    """What a shipped bundle would bring. Raises PolicyError where it is broken."""
    bench = Bench([])
    rules, _ = bundle_rules(bench, name, text)
    if bench.problems:
        raise PolicyError(bench.problems)
    return Offer(name, tuple(dict.fromkeys(rule.pattern for rule in rules)))


def _layer(
    name: str,
    builder: LayerBuilder,
    problems: list[Problem],
    read_command: ReadCommand | None,
    proven: Collection[str],
) -> Layer:
    before = len(problems)
    layer, bench = builder.build(name)
    if len(problems) == before:
        examples.report(bench, layer, read_command, proven)
    return layer


def _records(source: LayerSource, problems: list[Problem]) -> list[Record]:
    return [
        record for name, text in sorted(source.files) if isinstance(record := _read_file(name, text, problems), Record)
    ]


def _read_file(name: str, text: str, problems: list[Problem]) -> Record | None:
    node = compose(name, text, problems)
    if node is None:
        return None
    value = Reader(name, problems).read(node, DOCUMENT)
    return value if isinstance(value, Record) else None


def _settled(layer: Layer, secrets: tuple[Secret, ...], problems: list[Problem]) -> Layer:
    """The layer with its credentials tied to the secrets of the first one."""
    if layer.egress is None:
        return layer
    return replace(layer, egress=settle(Bench(problems), layer.egress, secrets))


def _searched(
    layers: Sequence[Layer], files: Iterable[tuple[str, str]] | None, problems: list[Problem]
) -> tuple[Pattern, ...]:
    scanning = [rule for layer in layers if layer.egress is not None for rule in layer.egress.allow if rule.scan]
    if not scanning or files is None:
        return ()
    before = len(problems)
    found = load_patterns(files, problems)
    if not found and len(problems) == before:
        message = "scan, but no shapes of credentials are installed: nothing would be found"
        problems.append(Problem(scanning[0].where, message, "install the agent's policies/patterns"))
    return found


def fault(where: Where, message: str, fix: str) -> PolicyError:
    """A PolicyError with one problem."""
    return PolicyError([Problem(where, message, fix)])
