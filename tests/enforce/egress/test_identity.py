"""Who a connection goes to, before any of it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.hello import ClientHello, HelloError
from agent.enforce.egress.identity import (
    Doorkeeper,
    Refusal,
    needs_engine,
    observing,
    parse_authority,
    serves,
    speaks,
    spoken,
)
from agent.enforce.egress.resolve import Resolver
from agent.gate import Gate
from agent.policy.hosts import HostError
from agent.policy.model import EgressSection, Layer, Mode, Policy
from agent.policy.request import Origin, Protocol, Stage
from agent.record.event import Event, RecordError
from tests.enforce.egress.proxy import policy, rule

ORIGIN = Origin("proxy", source_ip="127.0.0.1")
ALLOWED = policy(rule("api.good.test"), rule("*.good.test", addresses=()))


def test_a_policy_without_an_egress_section_serves_nothing() -> None:
    nothing = Policy((Layer("test", egress=None),), "0" * 64)
    assert not serves(nothing, 443)
    assert not speaks(nothing, "api.good.test", 443, Protocol.TLS)
    assert spoken(nothing, "api.good.test", 443) is Protocol.TLS


def test_a_tunnel_beside_a_rule_for_raw_bytes_is_raw_where_no_rule_has_tls() -> None:
    """What lint warns of: a rule for plain HTTP demands nothing of a tunnel to its port."""
    raw = rule("*.good.test", 443, 80, protocol=Protocol.TCP)
    both = policy(raw, rule("api.good.test"), rule("api.good.test", 80, protocol=Protocol.HTTP, paths=("/pub/**",)))
    assert spoken(both, "api.good.test", 443) is Protocol.TLS
    assert spoken(both, "api.good.test", 80) is Protocol.TCP


class Kept:
    """A recorder that keeps what it is given."""

    def __init__(self, error: str | None = None) -> None:
        self.events: list[Event] = []
        self.error = error

    def post(self, event: Event) -> None:
        self.events.append(event)
        if self.error is not None:
            raise RecordError(self.error)

    def accept(self, event: Event) -> None:
        self.post(event)


class Door:
    """A doorkeeper with names of its own."""

    def __init__(self, given: Policy, names: dict[str, Sequence[str]], error: str | None = None) -> None:
        self.recorder = Kept(error)
        self.lookups: list[str] = []

        def lookup(host: str) -> Sequence[str]:
            self.lookups.append(host)
            if host not in names:
                raise OSError(-2, "Name or service not known")
            return names[host]

        self.resolver = Resolver(lookup)
        gate = Gate(lambda: given, self.recorder, "session:t")
        self.keeper = Doorkeeper(lambda: given, gate, self.recorder, self.resolver, "session:t")

    async def admit(self, host: str, port: int = 443) -> Sequence[str]:
        admission = await self.keeper.admit(self.keeper.request(host, port, ORIGIN, None))
        return admission.request.addresses


def run(door: Callable[[], Door], test: Callable[[Door], Awaitable[None]]) -> None:
    async def body() -> None:
        made = door()
        try:
            await test(made)
        finally:
            made.resolver.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("good.test:443", None, ("good.test", 443)),
        ("GOOD.test.:443", None, ("good.test", 443)),
        ("good.test", 80, ("good.test", 80)),
        ("[::1]:443", None, ("::1", 443)),
        ("0x7f.1:80", None, ("127.0.0.1", 80)),
        ("good.test:00443", None, ("good.test", 443)),
    ],
)
def test_an_authority_is_a_host_and_a_port(text: str, default: int | None, expected: tuple[str, int]) -> None:
    assert parse_authority(text, default) == expected


@pytest.mark.parametrize(
    "text",
    [
        "good.test",
        "good.test:",
        "good.test:0",
        "good.test:65536",
        "good.test:4 43",
        "good.test:+443",
        "good.test:443:443",
        "evil.com:443.good.test",
        ":443",
        "[evil.test]:443",
        "[[evil.test]]:443",
        "::1:443",
        "user@good.test:443",
        "good.test:٤٤٣",
        "good.test:443\n",
    ],
)
def test_what_is_not_exactly_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(HostError):
        parse_authority(text)


@given(st.text(max_size=60))
def test_no_text_makes_the_authority_parser_fail_otherwise(text: str) -> None:
    try:
        host, port = parse_authority(text, 80)
    except HostError:
        return
    assert host
    assert 0 < port < 65536


def layers(*sections: EgressSection | None) -> Policy:
    return Policy(tuple(Layer(source=str(n), egress=section) for n, section in enumerate(sections)), "d" * 64)


def test_a_connect_is_asked_as_what_every_layer_s_rules_speak() -> None:
    tls, tcp = rule("a.test", 22), rule("a.test", 22, protocol=Protocol.TCP)
    both, only_tcp = EgressSection(allow=(tls, tcp)), EgressSection(allow=(tcp,))
    silent = EgressSection(allow=(), allow_given=False)
    assert spoken(layers(both), "a.test", 22) is Protocol.TLS
    assert spoken(layers(both, only_tcp), "a.test", 22) is Protocol.TCP
    assert spoken(layers(only_tcp, None, silent), "a.test", 22) is Protocol.TCP
    assert spoken(layers(only_tcp), "a.test", 23) is Protocol.TLS
    assert spoken(layers(only_tcp), "b.test", 22) is Protocol.TLS


def test_the_engine_is_needed_only_where_a_rule_looks_into_tls() -> None:
    assert not needs_engine(policy(rule("a.test"), rule("b.test", protocol=Protocol.HTTP, methods=("GET",))))
    assert needs_engine(policy(rule("a.test", methods=("GET",))))
    assert needs_engine(policy(rule("a.test"), deny=[rule("a.test", paths=("/x",))]))


def test_one_enforcing_layer_ends_observation() -> None:
    watch, stop = EgressSection(mode=Mode.OBSERVE), EgressSection(mode=Mode.ENFORCE)
    assert observing(layers(watch, watch, None))
    assert not observing(layers(watch, stop))
    assert not observing(layers(None))
    assert not observing(layers())


def test_a_denied_name_is_never_looked_up() -> None:
    async def check(door: Door) -> None:
        with pytest.raises(Refusal) as caught:
            await door.admit("evil.test")
        assert (caught.value.answer.status, caught.value.answer.rule) == (403, "egress-default")
        assert door.lookups == []
        assert [event.details["rule"] for event in door.recorder.events] == ["egress-default"]

    run(lambda: Door(ALLOWED, {"evil.test": ["8.8.8.8"]}), check)


PRIVATE = [
    (["127.0.0.1"], "loopback"),
    (["10.0.0.1"], "private"),
    (["169.254.169.254"], "metadata"),
    (["fd00:ec2::254"], "metadata"),
    (["64:ff9b::a9fe:a9fe"], "metadata"),
    (["2002:7f00:1::1"], "loopback"),
    (["::7f00:1"], "loopback"),
    (["::ffff:10.0.0.1"], "private"),
    (["100.64.0.1"], "cgnat"),
    (["8.8.8.8", "10.0.0.1"], "private"),
    (["8.8.8.8", "::1"], "loopback"),
]


@pytest.mark.parametrize(("addresses", "kind"), PRIVATE)
def test_a_name_with_any_forbidden_address_is_refused_whole_naming_the_class(addresses: list[str], kind: str) -> None:
    async def check(door: Door) -> None:
        with pytest.raises(Refusal) as caught:
            await door.admit("x.good.test")
        assert caught.value.answer.status == 403
        assert kind in caught.value.answer.reason
        assert [event.result for event in door.recorder.events] == ["denied"]

    run(lambda: Door(ALLOWED, {"x.good.test": addresses}), check)


@pytest.mark.parametrize("host", ["93.184.215.14", "127.0.0.1", "::1", "169.254.169.254"])
def test_an_address_that_no_rule_names_is_refused(host: str) -> None:
    async def check(door: Door) -> None:
        with pytest.raises(Refusal) as caught:
            await door.admit(host)
        assert caught.value.answer.status == 403
        assert door.lookups == []

    run(lambda: Door(ALLOWED, {}), check)


def test_public_addresses_are_admitted_exactly_as_resolved_and_recorded_once() -> None:
    async def check(door: Door) -> None:
        assert await door.admit("x.good.test") == ("8.8.8.8", "2606:4700:4700::1111")
        assert [(event.type, event.result) for event in door.recorder.events] == [("network.egress", "success")]

    run(lambda: Door(ALLOWED, {"x.good.test": ["8.8.8.8", "2606:4700:4700::1111"]}), check)


def test_an_unresolvable_name_is_a_bad_gateway() -> None:
    async def check(door: Door) -> None:
        with pytest.raises(Refusal) as caught:
            await door.admit("x.good.test")
        assert (caught.value.answer.status, caught.value.answer.rule) == (502, "")

    run(lambda: Door(ALLOWED, {}), check)


def test_this_machine_s_own_public_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.enforce.egress.resolve.is_own", lambda address: address == "8.8.8.8")

    async def check(door: Door) -> None:
        with pytest.raises(Refusal) as caught:
            await door.admit("x.good.test")
        assert caught.value.answer.rule == "own-address"
        assert door.recorder.events[0].details["rule"] == "own-address"

    run(lambda: Door(ALLOWED, {"x.good.test": ["8.8.8.8"]}), check)


def hello(sni: str | None, *, newest: int = 0x0304, encrypted: bool = False) -> ClientHello:
    return ClientHello(sni, newest, encrypted)


DISAGREE = [
    ("api.good.test", hello("evil.test"), "sni-mismatch", 421),
    ("api.good.test", hello("x.api.good.test"), "sni-mismatch", 421),
    ("api.good.test", hello("api.good.test\0"), "sni-mismatch", 421),
    ("api.good.test", hello("127.0.0.1"), "sni-mismatch", 421),
    ("api.good.test", hello(None), "sni-missing", 403),
    ("api.good.test", hello("api.good.test", encrypted=True), "ech-refused", 403),
    ("api.good.test", hello("api.good.test", newest=0x0302), "tls-too-old", 403),
    ("127.0.0.1", hello("evil.test"), "sni-mismatch", 421),
]


@pytest.mark.parametrize(("host", "shown", "rule_id", "status"), DISAGREE)
def test_a_hello_that_disagrees_is_refused_under_its_own_rule(
    host: str, shown: ClientHello, rule_id: str, status: int
) -> None:
    async def check(door: Door) -> None:
        request = door.keeper.request(host, 443, ORIGIN, None)
        with pytest.raises(Refusal) as caught:
            door.keeper.check_hello(request, shown)
        assert (caught.value.answer.rule, caught.value.answer.status) == (rule_id, status)
        [event] = door.recorder.events
        assert (event.type, event.result, event.details["rule"]) == ("network.egress_blocked", "denied", rule_id)

    run(lambda: Door(ALLOWED, {}), check)


@pytest.mark.parametrize(
    ("host", "sni"), [("api.good.test", "API.good.test"), ("api.good.test", "api.good.test."), ("127.0.0.1", None)]
)
def test_a_hello_that_names_the_same_host_agrees(host: str, sni: str | None) -> None:
    async def check(door: Door) -> None:
        door.keeper.check_hello(door.keeper.request(host, 443, ORIGIN, None), hello(sni))
        assert door.recorder.events == []

    run(lambda: Door(ALLOWED, {}), check)


def test_a_refusal_stands_when_it_cannot_be_recorded() -> None:
    async def check(door: Door) -> None:
        with pytest.raises(Refusal):
            door.keeper.refuse_hello(
                door.keeper.request("api.good.test", 443, ORIGIN, None), HelloError("tls-required", "not TLS")
            )

    run(lambda: Door(ALLOWED, {}, error="disk full"), check)


def test_an_allow_that_cannot_be_recorded_is_refused() -> None:
    async def check(door: Door) -> None:
        with pytest.raises(Refusal) as caught:
            await door.admit("x.good.test")
        assert caught.value.answer.rule == "audit-unavailable"

    run(lambda: Door(ALLOWED, {"x.good.test": ["8.8.8.8"]}, error="disk full"), check)


def test_observe_mode_records_what_it_would_have_refused() -> None:
    watched = policy(rule("api.good.test"), mode=Mode.OBSERVE)

    async def check(door: Door) -> None:
        request = door.keeper.request("api.good.test", 443, ORIGIN, None)
        door.keeper.check_hello(request, hello("evil.test"))
        door.keeper.check_host_header(request, "evil.test", 443)
        seen = [(event.result, event.details["rule"], event.details["enforced"]) for event in door.recorder.events]
        assert seen == [("success", "sni-mismatch", False), ("success", "host-mismatch", False)]
        assert list(await door.admit("evil.test")) == ["8.8.8.8"]

    run(lambda: Door(watched, {"evil.test": ["8.8.8.8"]}), check)


def test_observe_mode_records_a_name_that_cannot_be_looked_up_too() -> None:
    watched = policy(rule("api.good.test"), mode=Mode.OBSERVE)

    async def check(door: Door) -> None:
        for host in ("evil.test", "api.good.test"):
            with pytest.raises(Refusal) as caught:
                await door.admit(host)
            assert caught.value.answer.status == 502
        seen = [(event.type, event.resource, event.result, event.details["rule"]) for event in door.recorder.events]
        assert seen == [("network.egress_blocked", "evil.test:443", "success", "egress-default")]
        assert door.recorder.events[0].details["enforced"] is False

    run(lambda: Door(watched, {}), check)


def test_a_granted_range_admits_only_its_own_addresses() -> None:
    granted = policy(replace(rule("db.good.test"), addresses=(ip_network("10.20.0.0/16"),)))

    async def check(door: Door) -> None:
        assert list(await door.admit("db.good.test")) == ["10.20.0.7"]

    async def refuse(door: Door) -> None:
        with pytest.raises(Refusal) as caught:
            await door.admit("db.good.test")
        assert caught.value.answer.status == 403

    run(lambda: Door(granted, {"db.good.test": ["10.20.0.7"]}), check)
    run(lambda: Door(granted, {"db.good.test": ["10.20.0.7", "10.21.0.7"]}), refuse)


def test_the_stages_are_asked_in_order_with_what_is_known() -> None:
    async def check(door: Door) -> None:
        await door.admit("x.good.test")
        [event] = door.recorder.events
        assert (event.details["stage"], event.details["addresses"]) == (str(Stage.CONNECT), ["8.8.8.8"])

    run(lambda: Door(ALLOWED, {"x.good.test": ["8.8.8.8"]}), check)
