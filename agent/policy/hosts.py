"""Host names: one spelling for each, and what a pattern in a policy matches.

Rules kept here: everything that names the same host becomes the same text (case, one trailing dot, U- and A-labels, the
many spellings of an IPv4 address), so that matching is plain comparison of strings; everything odd is refused, never
repaired (NUL, white space, ``%``, ``@``, a port, empty or overlong labels, invalid punycode); a wildcard is one leading
``*.`` label in a policy and nothing anywhere else.

Sources: WHATWG URL Standard (host parsing, "ends in a number", IPv4 parser), RFC 1123 and 1035 (lengths), RFC 5890 and
UTS #46 (IDNA, by the `idna` library). Underscores are allowed, since such names exist in DNS and are served.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import idna

from agent.expressions import expression
from agent.policy.addresses import canonical_address

MAX_NAME: Final = 253
MAX_LABEL: Final = 63

_LABEL: Final = expression(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.ASCII)
_PLAIN: Final = expression(
    r"(?:(?!xn--)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?!xn--)[a-z](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII
)
_NUMBER: Final = expression(r"(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_JOINT_SCRIPTS: Final = (
    frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"}),
    frozenset({"CJK", "HANGUL"}),
    frozenset({"CJK", "BOPOMOFO"}),
)


class HostError(ValueError):
    """A host or pattern that is refused. `message` says what is wrong, `fix` what to write instead (may be empty)."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(f"{message}; {fix}" if fix else message)
        self.message = message
        self.fix = fix


def normalise_host(text: str) -> str:
    """The canonical text of a host: a lower-case A-label name without trailing dot, or a `canonical_address`.

    IPv6 addresses are taken with or without brackets. Raises HostError for everything that is not certainly one host.
    """
    if len(text) <= MAX_NAME and _PLAIN.fullmatch(plain := text.lower()):
        return plain  # what nearly every host looks like, and what the steps below would return
    if not text:
        raise HostError("the host is empty")
    if len(text) > 4 * MAX_NAME:
        raise HostError(f"the host is longer than {MAX_NAME} characters")
    _refuse_odd(text)
    if text.startswith("[") or text.endswith("]"):
        return _bracketed(text)
    if ":" in text:
        return _bare_ipv6(text)
    name = _map(text).lower()
    name = name.removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    name = ".".join(_label(label) for label in labels)
    if len(name) > MAX_NAME:
        raise HostError(f"the host is longer than {MAX_NAME} characters")
    return name


def host_and_port(host: str, port: int) -> str:
    """``host:port`` as it is written and read, an IPv6 address in brackets (RFC 3986 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def match_host(pattern: str, host: str) -> bool:
    """Does a parsed pattern match a normalised host? ``*.x`` is any depth below x and not x itself."""
    if pattern.startswith("*."):
        return len(host) >= len(pattern) and host.endswith(pattern[1:])
    return pattern == host


def is_wildcard(pattern: str) -> bool:
    """Does a normalised pattern stand for names below it, and not for one host?"""
    return pattern.startswith("*.")


def covers_pattern(wider: str, pattern: str) -> bool:
    """Does the parsed pattern `wider` match every host that `pattern` matches?"""
    if pattern.startswith("*."):
        return wider == pattern or (wider.startswith("*.") and pattern[1:].endswith(wider[1:]))
    return match_host(wider, pattern)


def parse_pattern(text: str) -> str:
    """The normalised form of a policy's host entry. Raises HostError with the fix.

    Stricter than `normalise_host`: an address must be written canonically, and a label that mixes scripts must be
    written as its A-label, so that what the policy's reader sees is what it says.
    """
    _refuse_shapes(text)
    wildcard = text.startswith("*.")
    rest = text[2:] if wildcard else text
    if "*" in rest:
        raise HostError(f"{text!r}: a wildcard is one leading '*.' and nothing else", _wildcard_fix(rest))
    _refuse_mixed_scripts(rest)
    host = normalise_host(rest)
    address = canonical_address(host)
    if address is None:
        return f"*.{host}" if wildcard else host
    if wildcard:
        raise HostError(f"{text!r}: an address has no names below it", f"write {address}")
    if rest.strip("[]").lower() != address:
        raise HostError(f"{text!r} is another spelling of an address", f"write {address}")
    return address


def _refuse_odd(text: str) -> None:
    for character in text:
        if character <= " " or character == "\x7f" or character.isspace() or unicodedata.category(character) == "Cc":
            raise HostError(f"the host contains a control or white-space character ({character!r})")
    for character, what in (("@", "a user name"), ("%", "a zone or percent escape"), ("*", "a wildcard")):
        if character in text:
            raise HostError(f"the host contains {what} ({character!r})")


def _bracketed(text: str) -> str:
    address = canonical_address(text[1:-1]) if text.startswith("[") and text.endswith("]") and ":" in text else None
    if address is None:
        raise HostError("brackets belong around an IPv6 address and nothing else")
    return address


def _bare_ipv6(text: str) -> str:
    address = canonical_address(text)
    if address is None:
        raise HostError("the host contains ':' and is no IPv6 address", "give the port separately")
    return address


def _map(text: str) -> str:
    """UTS #46 mapping (width, case, ideographic full stops) of a name that is not ASCII."""
    if text.isascii():
        return text
    try:
        return idna.uts46_remap(text, std3_rules=False, transitional=False)
    except (idna.IDNAError, UnicodeError, IndexError) as error:
        raise HostError("the host is no valid international name") from error


def _label(label: str) -> str:
    if not label:
        raise HostError("the host has an empty label")
    if not label.isascii():
        label = _to_a_label(label)
    elif label.startswith("xn--"):
        _check_a_label(label)
    if len(label) > MAX_LABEL:
        raise HostError(f"a label of the host is longer than {MAX_LABEL} characters")
    if not _LABEL.fullmatch(label):
        raise HostError(f"{label!r} is no valid host label")
    return label


def _to_a_label(label: str) -> str:
    try:
        return idna.alabel(label).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise HostError("the host is no valid international name") from error


def _check_a_label(label: str) -> None:
    """An A-label must be the encoding of what it decodes to; otherwise two spellings would be one host."""
    try:
        same = idna.alabel(idna.ulabel(label)).decode("ascii") == label
    except (idna.IDNAError, UnicodeError) as error:
        raise HostError(f"{label!r} is invalid punycode") from error
    if not same:
        raise HostError(f"{label!r} is invalid punycode")


def _ipv4(labels: list[str]) -> str:
    """WHATWG IPv4 parser: decimal, octal and hexadecimal parts; the last one fills the remaining bytes."""
    if len(labels) > 4 or not all(_NUMBER.fullmatch(label) for label in labels):
        raise HostError("the host ends in a number and is no IPv4 address")
    try:
        parts = [_ipv4_part(label) for label in labels]
    except ValueError as error:
        raise HostError("the host ends in a number and is no IPv4 address") from error
    *head, last = parts
    if any(part > 255 for part in head) or last >= 256 ** (5 - len(parts)):
        raise HostError("the host is an IPv4 address out of range")
    number = last + sum(part << 8 * (3 - index) for index, part in enumerate(head))
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def _ipv4_part(text: str) -> int:
    if len(text) > 40:
        raise ValueError("too long")
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    if len(text) > 1 and text.startswith("0"):
        return int(text, 8)
    return int(text, 10)


def _refuse_shapes(text: str) -> None:
    """The mistakes people make in policies, each with what they meant."""
    if not text:
        raise HostError("the host is empty")
    if any(character.isspace() for character in text) or "#" in text:
        raise HostError(
            f"{text!r}: a host contains neither white space nor '#'", "one host per entry, comments outside quotes"
        )
    if text in ("*", "*.") or set(text) <= set("*.[]"):
        raise HostError(f"{text!r} would match every host", "name the hosts, or '*.example.com' for those below one")
    if "://" in text:
        raise HostError(f"{text!r} is a URL", "write the host alone; paths go into 'paths:', ports into 'ports:'")
    if "/" in text:
        raise HostError(f"{text!r}: '/' does not belong in a host", "paths go into 'paths:', ranges into 'addresses:'")
    if re.fullmatch(r"[^:\[\]]+:[0-9]+|\[.*\]:[0-9]+", text):
        host, _, port = text.rpartition(":")
        raise HostError(f"{text!r}: a port does not belong in a host", f"write 'host: {host}' and 'ports: [{port}]'")
    if text.startswith("."):
        raise HostError(f"{text!r} has an empty label", f"write '*{text}' for the hosts below it")


def _wildcard_fix(rest: str) -> str:
    tail = rest.rpartition("*")[2].partition(".")[2]
    return f"write '*.{tail}' or the exact hosts" if "." in tail else "write the exact hosts"


def _refuse_mixed_scripts(text: str) -> None:
    for label in text.split("."):
        if label.isascii():
            continue
        scripts = {_script(character) for character in label if unicodedata.category(character).startswith("L")}
        if len(scripts) > 1 and not any(scripts <= joint for joint in _JOINT_SCRIPTS):
            a_label = normalise_host(label)
            mixed = " and ".join(sorted(scripts))
            raise HostError(f"{label!r} mixes {mixed} letters", f"if that host is meant, write its A-label {a_label}")


def _script(character: str) -> str:
    """The first word of a letter's Unicode name is its script (CYRILLIC SMALL LETTER A); fullwidth forms are Latin."""
    word = unicodedata.name(character, "UNKNOWN").split(" ", 1)[0]
    return "LATIN" if word == "FULLWIDTH" else word
