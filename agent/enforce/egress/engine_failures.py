"""What the engine says by itself, where a request or an answer can't be understood or an upstream failed.

Rules kept here: the words are the front's own (`agent.enforce.egress.answer`); what an upstream sent is never quoted.
"""

from __future__ import annotations

from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError

from agent.enforce.egress.answer import Answer, render_answer

NO_ANSWER = "no answer from"
OURS = "parhelia: "


def failure(status: int, event: ResponseProtocolError) -> Answer:
    """The answer where mitmproxy found the request malformed (4xx) or the upstream failed.

    mitmproxy quotes what the upstream sent, which can hold an injected secret: its words are passed on only where
    nothing had been sent yet, or where they are ours.
    """
    if status < 500:
        return Answer(400, event.message, rule="malformed-request")
    if event.code is ErrorCode.CONNECT_FAILED or event.message.startswith(OURS):
        return Answer(504 if NO_ANSWER in event.message else 502, event.message.removeprefix(OURS))
    return Answer(502, "the upstream's answer is malformed, or did not come")


def answer_fields(answer: Answer) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """An answer for HTTP/2: its fields and its body."""
    head, _, body = render_answer(answer).partition(b"\r\n\r\n")
    fields = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    return [(name.lower(), value) for name, value in fields if name.lower() != b"connection"], body
