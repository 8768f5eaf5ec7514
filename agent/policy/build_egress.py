"""Host rules from values: normalised hosts, ports by protocol, and the rules that could never match refused."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from agent.policy.addresses import address_class, canonical_address
from agent.policy.build import Bench, examples, severity, subject, wording
from agent.policy.build_terms import rule_terms
from agent.policy.bundles import ToolHost
from agent.policy.decision import Severity
from agent.policy.globs import ANY_DEPTH
from agent.policy.hosts import HostError, normalise_host, parse_pattern
from agent.policy.model import HostRule, Network, Where
from agent.policy.request import Protocol
from agent.policy.shape import Number, Record, Text, Value

_PORTS = {Protocol.TLS: (443,), Protocol.HTTP: (80,)}
_WIDEST = {4: 8, 6: 7}


def host_rule(bench: Bench, value: Value, rule_id: str, *, allow: bool) -> HostRule | None:
    """One entry of `egress.allow` (or `deny`), None where it has a problem."""
    before = len(bench.problems)
    text = subject(value, "host")
    if text is None:
        return None
    pattern = host_pattern(bench, text)
    record = value if isinstance(value, Record) else Record((), value.where)
    protocol = _protocol(record, allow=allow)
    ports = _ports(bench, record, protocol, allow=allow)
    methods = _methods(bench, record)
    paths = _paths(bench, record)
    terms = rule_terms(bench, record, protocol, allow=allow)
    addresses = tuple(net for text in record.texts("addresses") if (net := _range(bench, text)) is not None)
    if pattern is not None and allow:
        _refuse_unreachable(bench, pattern, addresses, text.where)
    if pattern is None or len(bench.problems) > before:
        return None
    reason, instead = wording(value)
    return HostRule(
        id=rule_id,
        pattern=pattern,
        where=value.where,
        ports=ports,
        protocol=protocol,
        methods=methods,
        paths=paths,
        addresses=addresses,
        headers=terms.headers,
        query=terms.query,
        limits=terms.limits,
        tls=terms.tls,
        credential=terms.credential,
        git=terms.git,
        scan=terms.scan,
        mode=terms.mode,
        reason=reason,
        instead=instead,
        severity=severity(value, Severity.MEDIUM),
        examples=examples(value),
    )


def host_pattern(bench: Bench, text: Text) -> str | None:
    """The normalised host pattern of an entry."""
    try:
        return parse_pattern(text.value)
    except HostError as error:
        bench.fault(text.where, error.message, error.fix or "write a host such as pypi.org, or '*.example.com'")
        return None


def tool_rule(bench: Bench, host: ToolHost, rule_id: str, where: Where) -> HostRule | None:
    """The rule for a host of a tool's configuration; `where` is the place that uses the bundle."""
    try:
        pattern = normalise_host(host.host)
    except HostError as error:
        bench.fault(where, f"{host.source} names a host that is refused: {error.message}", "correct it there")
        return None
    return HostRule(
        id=rule_id,
        pattern=pattern,
        where=where,
        ports=(host.port,),
        protocol=host.protocol,
        reason=f"configured for this image ({host.source})",
        instead="the tool's own configuration names the hosts of this bundle; other hosts need a rule of their own",
    )


def _protocol(record: Record, *, allow: bool) -> Protocol | None:
    given = record.text("protocol")
    if given:
        return Protocol(given)
    return Protocol.TLS if allow else None


def _ports(bench: Bench, record: Record, protocol: Protocol | None, *, allow: bool) -> tuple[int, ...] | None:
    if record.has("ports"):
        given = tuple(number.value for number in record.items("ports") if isinstance(number, Number))
        if len(set(given)) < len(given):
            bench.fault(record.place("ports"), "a port is named twice", "name each port once")
        return tuple(sorted(given))
    if not allow:
        return None
    if protocol is Protocol.TCP:
        bench.fault(record.where, "protocol tcp without ports", "add `ports: [...]`: raw TCP has no usual port")
    return _PORTS.get(protocol or Protocol.TLS, ())


def _methods(bench: Bench, record: Record) -> tuple[str, ...] | None:
    if not record.has("methods"):
        return None
    for text in record.texts("methods"):
        if text.value == "CONNECT":
            bench.fault(text.where, "CONNECT can never be a method inside a connection", "remove it")
    return tuple(sorted(set(record.words("methods"))))


def _paths(bench: Bench, record: Record) -> tuple[str, ...] | None:
    if not record.has("paths"):
        return None
    for text in record.texts("paths"):
        fault = _path_fault(text.value)
        if fault is not None:
            bench.fault(text.where, f"the path glob '{text.value}' can never match: {fault[0]}", fault[1])
    return tuple(sorted(set(record.words("paths"))))


def _path_fault(glob: str) -> tuple[str, str] | None:
    """Why no request path can match, as `agent.policy.url_paths` refuses or normalises them."""
    if not glob.startswith("/"):
        return "it does not start with '/'", f"write '/{glob}'"
    if "?" in glob or "#" in glob:
        return "it holds a query or fragment", "leave the query away: it is not matched"
    if "%" in glob:
        return "paths are matched decoded", "write the decoded character"
    if "\\" in glob or ";" in glob:
        return "paths with a backslash or ';' are refused", "remove it"
    pieces = glob[1:].split("/")
    if glob != "/" and "" in pieces:
        return "it has an empty segment", "remove the extra '/'; use '/x' for x itself and '/x/**' for what is below"
    if any(piece in (".", "..") for piece in pieces):
        return "paths with '.' or '..' are refused", "write the path without them"
    if any(ANY_DEPTH in piece and piece != ANY_DEPTH for piece in pieces):
        return "'**' stands for whole segments", "write '*' inside a segment, '/**/' between segments"
    return None


def _range(bench: Bench, text: Text) -> Network | None:
    try:
        network = ip_network(text.value)
    except ValueError:
        fix = _range_fix(text.value)
        bench.fault(text.where, f"'{text.value}' is no address range", fix)
        return None
    if network.prefixlen < _WIDEST[network.version]:
        bench.fault(text.where, f"{network} takes in public and special addresses alike", "grant the ranges you mean")
        return None
    ends = (address_class(str(network.network_address)), address_class(str(network.broadcast_address)))
    if ends == (None, None):
        bench.fault(text.where, f"{network} is public: `addresses` grants non-public ranges", "remove it")
        return None
    return network


def _range_fix(text: str) -> str:
    try:
        return f"write {ip_network(text, strict=False)}"
    except ValueError:
        return "write a range such as 10.20.0.0/16 or 10.20.0.7/32"


def _refuse_unreachable(bench: Bench, pattern: str, addresses: tuple[Network, ...], where: Where) -> None:
    if canonical_address(pattern) is None:
        return
    kind = address_class(pattern)
    if kind is None or any(ip_address(pattern) in network for network in addresses):
        return
    size = 32 if ":" not in pattern else 128
    bench.fault(
        where,
        f"{pattern} can never be reached: it is no public address ({kind})",
        f"grant it: `addresses: [{pattern}/{size}]`",
    )
