"""The policy as frozen values: what the loader builds and `decide` reads.

Rules kept here: a value that exists is valid (the loader refuses the rest with a position); collections are tuples, so
that a policy can be shared, compared and digested; nothing refers to a file but through `Where`.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from agent.policy.control_roles import ControlSection
from agent.policy.decision import Severity
from agent.policy.host_index import HostIndex
from agent.policy.lockdown import Lock
from agent.policy.model_commands import CommandMatch, CommandRule, CommandSection, InDoubt, Unverifiable
from agent.policy.model_common import NO_EXAMPLES, Examples, Mode, Where
from agent.policy.model_detect import Detector
from agent.policy.model_paths import Audited, PathRule, PathSection
from agent.policy.model_session import UNLIMITED, ProcessLimits, strictest
from agent.policy.request import Protocol
from agent.values import dataclass, field

if TYPE_CHECKING:  # its rules know their place from here
    from agent.policy.tool_rules import ToolSection

__all__ = [
    "AuditSection",
    "Audited",
    "CommandMatch",
    "CommandRule",
    "CommandSection",
    "Condition",
    "Credential",
    "Durability",
    "EgressLimits",
    "EgressSection",
    "Examples",
    "GitRepositories",
    "HostLimits",
    "HostRule",
    "InDoubt",
    "Layer",
    "Mode",
    "Network",
    "Offer",
    "OnFailure",
    "PathRule",
    "PathSection",
    "Pattern",
    "Policy",
    "RuleException",
    "Secret",
    "SecretSource",
    "SourceKind",
    "Tls",
    "Unverifiable",
    "Where",
]

Network = IPv4Network | IPv6Network


class Tls(StrEnum):
    """What happens to the TLS of a host. INSPECT: always through the interception engine. PASSTHROUGH: never (clients
    that pin their server's certificate), so no rule of the host may look inside."""

    INSPECT = "inspect"
    PASSTHROUGH = "passthrough"


class OnFailure(StrEnum):
    """What happens to an allow that cannot be recorded."""

    DENY = "deny"
    CONTINUE = "continue"


class Durability(StrEnum):
    """GROUP: an allow waits for the writer's acceptance. STRICT: it waits for the disk."""

    GROUP = "group"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Condition:
    """One header field or query parameter that a request must carry. `name`: in lower case for a header. `values`:
    globs of which one must match; empty: any value will do."""

    name: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Bounds of one allow rule, None for none.

    `body`: bytes of one request's body. `upload`, `download`: bytes in all of the session. `connections_per_minute`,
    `connections` (at once). These four count per host, and for a wildcard over all hosts below it together. `idle`:
    seconds without a byte.
    """

    body: int | None = None
    upload: int | None = None
    download: int | None = None
    connections_per_minute: int | None = None
    connections: int | None = None
    idle: int | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """The secret (by its name) that requests to a host carry. `only`: any other credential is refused. `optional`: of a
    shipped bundle; the loader drops it where the policy has no secret of this name for this host, so that a credential
    in a `Policy` is always one that is there."""

    secret: str
    only: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class GitRepositories:
    """Git over HTTPS by repository: globs of URL paths without leading slash and ``.git`` (``example/project``)."""

    fetch: tuple[str, ...] = ()
    push: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostRule:
    """One entry of `egress.allow` or `egress.deny`.

    `pattern` is a normalised host (``pypi.org``), a wildcard (``*.githubusercontent.com``: any depth below, not the
    name itself) or the canonical text of an address literal. `methods` and `paths` None mean any (no interception
    needed). `addresses`: non-public ranges this rule grants. `ports` and `protocol` None mean any: only in `deny`,
    where a rule that names a host closes it on every port. `headers`, `query`: conditions that must all hold. `git`
    takes the place of methods and paths. `scan`: uploads are searched for known shapes of credentials. `mode` OBSERVE:
    what this rule refuses is only recorded (a deny, or the conditions of an allow). `limits`, `tls`, `credential`,
    `git` and `scan` only in an allow.
    """

    id: str
    pattern: str
    where: Where
    ports: tuple[int, ...] | None = (443,)
    protocol: Protocol | None = Protocol.TLS
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    addresses: tuple[Network, ...] = ()
    headers: tuple[Condition, ...] = ()
    query: tuple[Condition, ...] = ()
    limits: HostLimits = HostLimits()
    tls: Tls | None = None
    credential: Credential | None = None
    git: GitRepositories | None = None
    scan: bool = False
    mode: Mode = Mode.ENFORCE
    reason: str = ""
    instead: str = ""
    severity: Severity = Severity.MEDIUM
    examples: Examples = NO_EXAMPLES


@dataclass(frozen=True, slots=True)
class RuleException:
    """Cancels the named rule, in its own layer, for what `match` describes, until `expires` (that day included)."""

    rule: str
    match: CommandMatch | None
    host: str | None
    owner: str
    reason: str
    expires: date
    where: Where


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """Bounds of the whole session, None for the agent's default. `connections`: at once. `connections_per_minute`: all
    hosts together. `head`, `idle`: seconds until a request's head is complete, and without a byte."""

    connections: int | None = None
    connections_per_minute: int | None = None
    head: int | None = None
    idle: int | None = None


@dataclass(frozen=True, slots=True)
class EgressSection:
    """`allow_given` False: a further layer without the key `allow`, which narrows by its denies alone. `allows`,
    `denies`: the same rules, found by host. `trust`: certificates of authorities (PEM) besides the system's."""

    mode: Mode = Mode.ENFORCE
    limits: EgressLimits = EgressLimits()
    allow: tuple[HostRule, ...] = ()
    deny: tuple[HostRule, ...] = ()
    allow_given: bool = True
    trust: tuple[str, ...] = ()
    allows: HostIndex = field(init=False, repr=False, compare=False)
    denies: HostIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "allows", HostIndex(self.allow))
        object.__setattr__(self, "denies", HostIndex(self.deny))


class SourceKind(StrEnum):
    """Where the agent gets a secret's value from: a variable of its own environment, a file, a command's output."""

    ENV = "env"
    FILE = "file"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class SecretSource:
    """`value`: the variable's name, the file's absolute path, or the command's words (each one an entry)."""

    kind: SourceKind
    value: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Secret:
    """One entry of `secrets`. The session sees a placeholder, in the variable `env` or the file `file` (absolute, or
    below its home with ``~/``); on the way to one of `hosts` (patterns, TLS only) the proxy replaces it in the header
    fields `headers` (lower case) by the value from `source`."""

    name: str
    source: SecretSource
    hosts: tuple[str, ...]
    headers: tuple[str, ...]
    where: Where
    env: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class AuditSection:
    on_failure: OnFailure = OnFailure.DENY
    durable: Durability = Durability.GROUP


@dataclass(frozen=True, slots=True)
class Layer:
    """One `--policy` directory (or the embedded default). None: the section was not given."""

    source: str
    egress: EgressSection | None = None
    commands: CommandSection | None = None
    paths: PathSection | None = None
    tools: ToolSection | None = None
    control: ControlSection | None = None
    exceptions: tuple[RuleException, ...] = ()
    audit: AuditSection | None = None
    session_env: tuple[str, ...] = ()
    process_limits: ProcessLimits = UNLIMITED
    secrets: tuple[Secret, ...] = ()
    detect: tuple[Detector, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """A shipped bundle that the policy could add with `use:`, and the host patterns it would bring (none: they are the
    tool's configuration and known only once it is used). A denial's `instead` points to it."""

    bundle: str
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pattern:
    """A known shape of a credential, searched for where a rule says `scan`. `regex` is for bytes; where `keywords` are
    given, nothing matches that holds none of them (in lower case; searched in lower-cased text)."""

    id: str
    description: str
    regex: bytes
    keywords: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """The effective policy: layers that each can only narrow. `digest`: lower-case hex SHA-256 of its canonical form.
    `patterns`: what is searched for in uploads; none where no rule says `scan`. `workspace`: the trees that every layer
    lets the session write, for the rules of commands. Not part of the digest, because they change no rule: `offers`;
    `agent_files`, the agent's own places of this machine, which no grant opens; `links`, grants that are symlinks here,
    as (path as written, place it leads to); `lock`, what a lockdown has closed of it."""

    layers: tuple[Layer, ...]
    digest: str
    warnings: tuple[str, ...] = ()
    offers: tuple[Offer, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    workspace: tuple[str, ...] = ()
    agent_files: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    lock: Lock = Lock.NONE

    @property
    def audits_writes(self) -> bool:
        """Some layer asks for denied writes to be recorded."""
        return self._audits(Audited.WRITES)

    @property
    def audits_reads(self) -> bool:
        """Some layer asks for denied reads of sensitive files to be recorded."""
        return self._audits(Audited.READS)

    @property
    def sensitive(self) -> tuple[str, ...]:
        """What all layers name as sensitive, besides what is known to be (agent.policy.sensitive)."""
        sections = (layer.paths for layer in self.layers if layer.paths is not None)
        return tuple(rule.path for section in sections for rule in section.sensitive)

    def _audits(self, access: Audited) -> bool:
        return any(layer.paths is not None and access in layer.paths.audit for layer in self.layers)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets; only the first layer can have any."""
        return self.layers[0].secrets if self.layers else ()

    @property
    def process_limits(self) -> ProcessLimits:
        """What all processes of the session may take: of all layers the least."""
        return strictest(layer.process_limits for layer in self.layers)

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The detectors of all layers."""
        return tuple(detector for layer in self.layers for detector in layer.detect)

    @property
    def trust(self) -> str:
        """The certificates (PEM) of the authorities that the policy adds; only the first layer can."""
        return "".join(self.layers[0].egress.trust) if self.layers and self.layers[0].egress else ""

    @property
    def audit(self) -> AuditSection:
        """The strictest audit settings of all layers."""
        given = [layer.audit for layer in self.layers if layer.audit is not None]
        lax = given and all(a.on_failure is OnFailure.CONTINUE for a in given)
        durable = Durability.STRICT if any(a.durable is Durability.STRICT for a in given) else Durability.GROUP
        return AuditSection(OnFailure.CONTINUE if lax else OnFailure.DENY, durable)
