"""DNS answers, made by dnspython from a question that was read strictly before (`agent.enforce.egress.question`).

Rules kept here: the answer repeats the question byte for byte (clients compare it, 0x20 included); it never claims
authority or validation; it fits what the client takes, or says that it does not and holds nothing (TC); why a name is
refused is told only to a client that speaks EDNS (RFC 8914), in few words. Everything of the library that is loaded at
first use is loaded here: later it may not be readable.
"""

from __future__ import annotations

from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.OPT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rrset

from agent.enforce.egress.question import FORMERR, Question, QuestionError, bare_answer
from agent.policy.words import shown
from agent.values import dataclass

_OUR_SIZE: Final = 1232
_MAX_STREAM: Final = 65535
_LONGEST_TEXT: Final = 160


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: addresses of the family that was asked for with the seconds they are good, or a code and why.

    `info` is an INFO-CODE of RFC 8914 4, None where there is nothing to add.
    """

    rcode: int
    addresses: tuple[str, ...] = ()
    seconds: int = 0
    info: dns.edns.EDECode | None = None
    reason: str = ""


def parse(data: bytes) -> dns.message.Message:
    """The library's view of a message that `read_question` has taken. Raises QuestionError."""
    try:
        return dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError) as error:
        reason = f"the DNS message cannot be read ({type(error).__name__})"
        raise QuestionError(reason, bare_answer(data, FORMERR)) from error


def render(asked: dns.message.Message, question: Question, reply: Reply, *, tcp: bool) -> bytes:
    """The answer's bytes."""
    response = dns.message.make_response(asked, recursion_available=True)
    response.set_rcode(dns.rcode.Rcode(reply.rcode))
    if question.edns:
        options: list[dns.edns.Option] = (
            [] if reply.info is None else [dns.edns.EDEOption(reply.info, _text(reply.reason))]
        )
        response.use_edns(0, 0, _OUR_SIZE, options=options)
    rdtype = dns.rdatatype.RdataType.make(question.rdtype)
    for address in reply.addresses:  # each a set of its own: the library would shuffle the members of one
        owner = asked.question[0].name
        response.answer.append(dns.rrset.from_text(owner, reply.seconds, dns.rdataclass.IN, rdtype, address))
    try:
        return response.to_wire(max_size=_MAX_STREAM if tcp else question.size)
    except dns.exception.TooBig:
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=_MAX_STREAM)


def type_name(rdtype: int) -> str:
    """``TXT`` for 16; ``TYPE65000`` where it has no name."""
    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rdtype))


def _text(reason: str) -> str:
    text = shown(reason)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"
