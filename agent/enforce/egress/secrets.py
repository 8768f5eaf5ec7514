"""The secrets of a session as the egress side holds them: values, placeholders, and where each may go.

Rules kept here: a value is never shown (no repr, no message, no log); a value goes to the hosts and into the header
fields that the policy in force names for it, and nowhere else; values come from the guard over its channel, never from
files, arguments or the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from agent.enforce.egress.needles import Leak, Mask, Needles, Watch
from agent.policy.hosts import match_host
from agent.policy.model import Policy, Secret
from agent.record.event import Event, Json
from agent.values import dataclass

SECRET_LEAK: Final = "secret-leak"  # noqa: S105 - a rule id
LEAK_INSTEAD: Final = (
    "send the placeholder only to the hosts, and only in the header fields, that the policy names for it"
)


@dataclass(frozen=True, slots=True, repr=False)
class HeldSecret:
    """One secret at run time: its name in the policy, what the session sees, what the upstream gets."""

    name: str
    placeholder: str
    value: str

    def __repr__(self) -> str:
        return f"HeldSecret({self.name!r})"

    def dump(self) -> dict[str, str]:
        """For the channel to a process of the agent's own."""
        return {"name": self.name, "placeholder": self.placeholder, "value": self.value}

    @staticmethod
    def parse(data: Mapping[str, Any]) -> HeldSecret:
        """The inverse of `dump`. Raises KeyError."""
        return HeldSecret(str(data["name"]), str(data["placeholder"]), str(data["value"]))


class Secrets:
    """All secrets of the session. Falsy where there are none."""

    def __init__(self, held: Iterable[HeldSecret] = ()) -> None:
        self.held = {secret.name: secret for secret in held}
        self._all = Needles(
            (secret.name, text) for secret in self.held.values() for text in (secret.placeholder, secret.value)
        )
        self._values = Needles((secret.name, secret.value) for secret in self.held.values())

    def __bool__(self) -> bool:
        return bool(self.held)

    def __getitem__(self, name: str) -> HeldSecret:
        return self.held[name]

    def __contains__(self, name: str) -> bool:
        return name in self.held

    @staticmethod
    def parse(data: Iterable[Mapping[str, Any]]) -> Secrets:
        """From the start message. Raises KeyError, ValueError."""
        return Secrets(HeldSecret.parse(each) for each in data)

    def dump(self) -> list[dict[str, str]]:
        """For the start message."""
        return [secret.dump() for secret in self.held.values()]

    def find(self, data: bytes) -> str | None:
        """The name of a secret whose placeholder or value is in `data`."""
        return self._all.find(data) if self.held else None

    def find_in_host(self, host: str) -> str | None:
        """The same for a host name, whose labels can cut a text in pieces of 63 characters."""
        data = host.encode("utf-8", "backslashreplace")
        return self.find(data) or self.find(data.replace(b".", b""))

    def value_in(self, data: bytes) -> str | None:
        """The name of a secret whose value is in `data`."""
        return self._values.find(data) if self.held else None

    def redact(self, text: str) -> str:
        """`text` for a log."""
        return self._all.redact(text) if self.held else text

    def mask(self, data: bytes) -> bytes:
        """`data` with every value overwritten in its own length. Raises Leak where that can't be done."""
        return self._values.mask(data) if self._values.find(data) is not None else data

    def watch(self) -> Watch:
        """For a stream on its way out."""
        return Watch(self._all)

    def masked(self) -> Mask:
        """For a stream on its way in, after an injection."""
        return Mask(self._values)

    def redact_event(self, event: Event) -> Event:
        """The event without any secret in its texts."""
        if not self.held:
            return event
        redacted = _redact_json(dict(event.details), self)
        details = redacted if isinstance(redacted, dict) else {}
        return Event(
            type=event.type,
            actor=event.actor,
            action=event.action,
            resource=self.redact(event.resource),
            resource_type=event.resource_type,
            result=event.result,
            source_ip=event.source_ip,
            details=details,
        )


def leak_reason(secret: str, where: str) -> str:
    """Why a secret in the wrong place is refused; never quotes it."""
    return f"the secret {secret} (its placeholder or its value) is in {where}, where it may not go"


def injectable(policy: Policy, secrets: Secrets, host: str) -> tuple[Secret, ...]:
    """The entries of the policy in force whose secret may go to `host`."""
    if not secrets:
        return ()
    return tuple(
        entry
        for layer in policy.layers
        for entry in layer.secrets
        if entry.name in secrets and any(match_host(pattern, host) for pattern in entry.hosts)
    )


def _redact_json(value: Json, secrets: Secrets) -> Json:
    match value:
        case str():
            return secrets.redact(value)
        case list():
            return [_redact_json(item, secrets) for item in value]
        case dict():
            return {secrets.redact(key): _redact_json(item, secrets) for key, item in value.items()}
        case _:
            return value


__all__ = ["LEAK_INSTEAD", "SECRET_LEAK", "HeldSecret", "Leak", "Secrets", "injectable", "leak_reason"]
