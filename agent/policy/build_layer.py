"""One layer from the records of its files: lists are joined in the order of the files' names, settings must agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from agent.policy import shadow
from agent.policy.build import Bench
from agent.policy.build_commands import command_rule, rule_exception
from agent.policy.build_control import control_section
from agent.policy.build_detect import detectors
from agent.policy.build_egress import host_rule, tool_rule
from agent.policy.build_paths import audited, grant, protection, sensitive
from agent.policy.build_secrets import secrets, tie
from agent.policy.build_tools import tool_section
from agent.policy.build_trust import authorities
from agent.policy.bundles import Bundle, BundleFault
from agent.policy.model import (
    AuditSection,
    CommandRule,
    CommandSection,
    Durability,
    EgressLimits,
    EgressSection,
    HostRule,
    Layer,
    Mode,
    OnFailure,
    PathRule,
    PathSection,
    Secret,
    Unverifiable,
)
from agent.policy.model_session import ProcessLimits
from agent.policy.packs import pack_rules
from agent.policy.problem import Problem
from agent.policy.reader import Reader
from agent.policy.schema import BUNDLE
from agent.policy.shape import Number, Record, Text, Value
from agent.policy.yaml_nodes import compose


class LayerBuilder:
    """Builds one layer. `records`: the files, read, in the order of their names. `first`: the layer that allows."""

    def __init__(
        self,
        records: Sequence[Record],
        bundles: Mapping[str, Bundle],
        packs: Mapping[str, str],
        problems: list[Problem],
        *,
        first: bool,
    ) -> None:
        self._records = records
        self._bundles = bundles
        self._packs = packs
        self._bench = Bench(problems)
        self._first = first

    def build(self, source: str) -> tuple[Layer, Bench]:
        """The layer, as far as it has no problems, and what examples are reported to."""
        given = self._secrets()
        egress = self._egress()
        if self._first:
            tie(self._bench, given, egress)
        commands = self._commands()
        paths = self._paths()
        tools = self._sections("tools")
        exceptions = [
            rule_exception(
                self._bench,
                value,
                commands.deny if commands is not None else (),
                egress.deny if egress is not None else (),
            )
            for value in self._joined(self._records, "exceptions")
        ]
        layer = Layer(
            source=source,
            egress=egress,
            commands=commands,
            paths=paths,
            tools=tool_section(self._bench, tools, self._setting(tools, "mode", Mode, Mode.ENFORCE)),
            control=control_section(self._bench, self._sections("control")),
            exceptions=tuple(exception for exception in exceptions if exception is not None),
            audit=self._audit(),
            session_env=self._passed_on(),
            process_limits=self._process_limits(),
            secrets=given,
            detect=detectors(self._bench, self._joined(self._records, "detect")),
        )
        return layer, self._bench

    def _egress(self) -> EgressSection | None:
        records = self._sections("egress")
        used, corners = self._bundle_rules()
        if not records and not used:
            return None
        own = self._host_rules(records, "allow")
        closed = self._host_rules(records, "deny")
        shadow.report_hosts(self._bench, own, closed, frozenset(rule.id for rule in own))
        return EgressSection(
            mode=self._setting(records, "mode", Mode, Mode.ENFORCE),
            limits=self._limits(records),
            allow=(*own, *used),
            deny=(*closed, *corners),
            trust=authorities(self._bench, self._joined(records, "trust"), first=self._first),
            allow_given=self._first or bool(used) or any(record.has("allow") for record in records),
        )

    def _host_rules(self, records: Sequence[Record], key: str) -> list[HostRule]:
        rules = [
            host_rule(self._bench, value, self._bench.identify(value, "egress", key, index), allow=key == "allow")
            for index, value in enumerate(self._joined(records, key))
        ]
        return [rule for rule in rules if rule is not None]

    def _limits(self, records: Sequence[Record]) -> EgressLimits:
        given = [limits for record in records if (limits := record.record("limits")) is not None]
        return EgressLimits(
            connections=self._bound(given, "connections"),
            connections_per_minute=self._bound(given, "connections_per_minute"),
            head=self._bound(given, "head"),
            idle=self._bound(given, "idle"),
        )

    def _secrets(self) -> tuple[Secret, ...]:
        values = self._joined(self._records, "secrets")
        if values and not self._first:
            fix = "move it to the first layer: a further one can only narrow"
            self._bench.fault(values[0].where, "secrets in a further layer", fix)
            return ()
        return secrets(self._bench, values, self._passed_on())

    def _passed_on(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word for record in self._sections("session") for word in record.words("env")))

    def _process_limits(self) -> ProcessLimits:
        given = [limits for record in self._sections("session") if (limits := record.record("limits")) is not None]
        return ProcessLimits(self._bound(given, "pids"), self._bound(given, "memory"))

    def _commands(self) -> CommandSection | None:
        records = self._sections("commands")
        used = self._pack_rules()
        if not records and not used:
            return None
        deny = [
            command_rule(self._bench, value, self._bench.identify(value, "commands", "deny", index))
            for index, value in enumerate(self._joined(records, "deny"))
        ]
        return CommandSection(
            mode=self._setting(records, "mode", Mode, Mode.ENFORCE),
            unverifiable=self._setting(records, "unverifiable", Unverifiable, Unverifiable.SUPERVISE),
            deny=(*(rule for rule in deny if rule is not None), *used),
        )

    def _paths(self) -> PathSection | None:
        records = self._sections("paths")
        if not records:
            return None
        section = PathSection(
            mode=self._setting(records, "mode", Mode, Mode.ENFORCE),
            write=self._grants(records, "write"),
            read=self._grants(records, "read"),
            protect=self._places(records, "protect", protection),
            watch=self._places(records, "watch", protection),
            write_given=self._first or any(record.has("write") for record in records),
            read_given=self._first or any(record.has("read") for record in records),
            sensitive=self._places(records, "sensitive", sensitive),
            audit=audited(self._bench, [record.get("audit") for record in records]),
        )
        shadow.report_paths(self._bench, section)
        return section

    def _grants(self, records: Sequence[Record], key: str) -> tuple[PathRule, ...]:
        rules = [
            grant(self._bench, value, self._bench.identify(value, "paths", key, index), write=key == "write")
            for index, value in enumerate(self._joined(records, key))
        ]
        return tuple(rule for rule in rules if rule is not None)

    def _places(
        self, records: Sequence[Record], key: str, build: Callable[[Bench, Value, str], PathRule | None]
    ) -> tuple[PathRule, ...]:
        rules = [
            build(self._bench, value, self._bench.identify(value, "paths", key, index))
            for index, value in enumerate(self._joined(records, key))
        ]
        return tuple(rule for rule in rules if rule is not None)

    def _audit(self) -> AuditSection | None:
        records = self._sections("audit")
        if not records:
            return None
        return AuditSection(
            on_failure=self._setting(records, "on_failure", OnFailure, OnFailure.DENY),
            durable=self._setting(records, "durable", Durability, Durability.GROUP),
        )

    def _bundle_rules(self) -> tuple[list[HostRule], list[HostRule]]:
        """What all used bundles allow, and what they take out again."""
        allow: list[HostRule] = []
        deny: list[HostRule] = []
        for text in self._used("use", "bundle"):
            opened, closed = self._bundle(text)
            allow += opened
            deny += closed
        return allow, deny

    def _pack_rules(self) -> list[CommandRule]:
        """The rules of all used packs."""
        found: list[CommandRule] = []
        bench = Bench(self._bench.problems)  # ids of packs may meet the layer's own: both rules hold
        for text in self._used("packs", "pack"):
            if text.value in self._packs:
                found += pack_rules(bench, text.value, self._packs[text.value])
                continue
            names = ", ".join(sorted(self._packs)) or "none are installed"
            self._bench.fault(text.where, f"there is no pack '{text.value}'", f"the packs are: {names}")
        return found

    def _used(self, key: str, what: str) -> list[Text]:
        """The names under `key`, each once."""
        seen: dict[str, Text] = {}
        for text in self._joined(self._records, key):
            if not isinstance(text, Text):
                continue
            if text.value in seen:
                self._bench.fault(text.where, f"the {what} '{text.value}' is used twice", "remove one of the two")
                continue
            seen[text.value] = text
        return list(seen.values())

    def _bundle(self, use: Text) -> tuple[list[HostRule], list[HostRule]]:
        if use.value not in self._bundles:
            names = ", ".join(sorted(self._bundles)) or "none are installed"
            self._bench.fault(use.where, f"there is no bundle '{use.value}'", f"the bundles are: {names}")
            return [], []
        bundle = self._bundles[use.value]
        if isinstance(bundle, BundleFault):
            self._bench.fault(use.where, f"the bundle '{use.value}' cannot be used: {bundle.message}", bundle.fix)
            return [], []
        if isinstance(bundle, str):
            return bundle_rules(self._bench, use.value, bundle)
        rules = [tool_rule(self._bench, host, f"{use.value}[{index}]", use.where) for index, host in enumerate(bundle)]
        return [rule for rule in rules if rule is not None], []

    def _sections(self, name: str) -> list[Record]:
        return [section for record in self._records if (section := record.record(name)) is not None]

    @staticmethod
    def _joined(records: Sequence[Record], key: str) -> list[Value]:
        return [value for record in records for value in record.items(key)]

    def _setting[T: StrEnum](self, records: Sequence[Record], key: str, kind: type[T], default: T) -> T:
        """A setting of the section; two files may both give it, but not differently."""
        given = self._agreed(records, key)
        return kind(given.value) if isinstance(given, Text) else default

    def _bound(self, records: Sequence[Record], key: str) -> int | None:
        given = self._agreed(records, key)
        return given.value if isinstance(given, Number) else None

    def _agreed(self, records: Sequence[Record], key: str) -> Text | Number | None:
        given = [value for record in records if isinstance(value := record.get(key), Text | Number)]
        for other in given[1:]:
            if other.value != given[0].value:
                message = f"'{key}: {other.value}' contradicts {given[0].where} ({given[0].value})"
                self._bench.fault(other.where, message, "give it once for the directory")
        return given[0] if given else None


def bundle_rules(bench: Bench, name: str, text: str) -> tuple[list[HostRule], list[HostRule]]:
    """What a shipped bundle allows, and what it takes out again. The ids start with its name: ``github/web``."""
    file = f"policies/bundles/{name}.yaml"
    node = compose(file, text, bench.problems)
    record = Reader(file, bench.problems).read(node, BUNDLE) if node is not None else None
    if not isinstance(record, Record):
        return [], []
    rules = {
        key: [
            host_rule(bench, value, bench.identify(value, key, "", index, prefix=f"{name}/"), allow=key == "allow")
            for index, value in enumerate(record.items(key))
        ]
        for key in ("allow", "deny")
    }
    return [rule for rule in rules["allow"] if rule], [rule for rule in rules["deny"] if rule]
