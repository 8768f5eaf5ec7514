"""The header before a forwarded connection: what is rendered is read back, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.session.preamble import SIGNATURE, Preamble, PreambleError, read, render

V4 = SIGNATURE + b"\x21\x11\x00\x0c" + b"\x7f\0\0\1" + b"\x08\x08\x08\x08" + b"\x9c\x40\x01\xbb"
ENDS = st.tuples(st.ip_addresses().map(str), st.integers(1, 65535))
TOKENS = st.just(b"") | st.binary(min_size=16, max_size=16)


@given(ENDS, ENDS, st.none() | st.integers(1, 2**22), TOKENS, st.binary(max_size=20))
def test_what_is_rendered_is_read_back_and_leaves_the_rest(
    source: tuple[str, int], destination: tuple[str, int], pid: int | None, token: bytes, rest: bytes
) -> None:
    data = render(Preamble(source, destination, pid, token))
    for end in range(len(data)):
        assert read(data[:end]) is None
    found = read(data + rest)
    assert found is not None
    preamble, size = found
    assert (size, preamble.pid, preamble.token) == (len(data), pid, token)
    for (address, port), (given_address, given_port) in (
        (preamble.source, source),
        (preamble.destination, destination),
    ):
        assert (address.removeprefix("::ffff:"), port) == (given_address, given_port) or (
            ":" in address and port == given_port
        )


def test_the_specification_s_own_form_is_read() -> None:
    assert read(V4) == (Preamble(("127.0.0.1", 40000), ("8.8.8.8", 443)), len(V4))


MALFORMED = [
    b"GET / HTTP/1.1\r\n",
    b"PROXY TCP4 127.0.0.1 8.8.8.8 1 2\r\n",
    SIGNATURE[:-1] + b"\r",
    V4.replace(b"\x21\x11", b"\x20\x11"),  # LOCAL
    V4.replace(b"\x21\x11", b"\x11\x11"),  # version 1
    V4.replace(b"\x21\x11", b"\x21\x12"),  # UDP
    V4.replace(b"\x21\x11", b"\x21\x31"),  # UNIX
    V4.replace(b"\x21\x11", b"\x21\x00"),  # unspecified
    V4.replace(b"\x00\x0c", b"\x00\x0b"),
    V4.replace(b"\x00\x0c", b"\xff\xff"),
    V4[:-2] + b"\0\0",
    V4.replace(b"\x00\x0c", b"\x00\x0d") + b"\xe0",
    V4.replace(b"\x00\x0c", b"\x00\x0f") + b"\xe0\x00\x00",
    V4.replace(b"\x00\x0c", b"\x00\x10") + b"\xe0\x00\x01x",
    V4.replace(b"\x00\x0c", b"\x00\x10") + b"\xe0\x00\x010",
    V4.replace(b"\x00\x0c", b"\x00\x10") + b"\xe0\x00\x021",
    V4.replace(b"\x00\x0c", b"\x00\x10") + b"\x04\x00\x011",
    V4.replace(b"\x00\x0c", b"\x00\x14") + b"\xe0\x00\x011" * 2,
    V4.replace(b"\x00\x0c", b"\x00\x1e") + b"\xe1\x00\x0f" + bytes(15),
    V4.replace(b"\x00\x0c", b"\x00\x20") + b"\xe1\x00\x11" + bytes(17),
    V4.replace(b"\x00\x0c", b"\x00\x32") + (b"\xe1\x00\x10" + bytes(16)) * 2,
]


@pytest.mark.parametrize("data", MALFORMED)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(PreambleError):
        read(data)


@given(st.binary(max_size=80), st.sampled_from([b"", SIGNATURE, V4[:14], V4]))
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes, start: bytes) -> None:
    try:
        found = read(start + data)
    except PreambleError:
        return
    assert found is None or found[1] <= len(start + data)


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match=r"good\.test"):
        render(Preamble(("127.0.0.1", 1), ("good.test", 443)))
