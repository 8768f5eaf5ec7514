"""Uploads searched for credentials: every encoding, any cut into pieces, and bounds. Pure."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from urllib.parse import quote_from_bytes

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.enforce.egress import scan
from agent.enforce.egress.scan import CREDENTIAL_IN_UPLOAD, UPLOAD_UNREADABLE, Spill, Upload, shapes
from agent.enforce.egress.unfold import unfolded
from agent.policy.model import Pattern

PATTERNS = (Pattern("test-key", "key of a test", rb"tstkey_[a-z0-9]{24}", (b"tstkey_",)),)
KEY = b"tstkey_" + b"a1b2c3d4" * 3
AROUND = b"some words before " + KEY + b" and some after"


def _raw_deflate(data: bytes) -> bytes:
    maker = zlib.compressobj(wbits=-15)
    return maker.compress(data) + maker.flush()


def _escaped(data: bytes) -> bytes:
    return "".join(f"\\u{byte:04x}" for byte in data).encode()


FOLDS = {
    "plain": lambda data: data,
    "base64": base64.b64encode,
    "base64, shifted by one": lambda data: base64.b64encode(b"x" + data),
    "base64, shifted by two": lambda data: base64.b64encode(b"xy" + data),
    "base64url without padding": lambda data: base64.urlsafe_b64encode(data + b"\xff\xfe").rstrip(b"="),
    "base64 in lines": base64.encodebytes,
    "hex": lambda data: data.hex().encode(),
    "HEX": lambda data: data.hex().upper().encode(),
    "percent": lambda data: "".join(f"%{byte:02X}" for byte in data).encode(),
    "percent, in part": lambda data: quote_from_bytes(data, safe="").encode().replace(b"_", b"%5f"),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "JSON escapes": _escaped,
    "gzip in base64": lambda data: base64.b64encode(gzip.compress(data)),
    "base64 in base64": lambda data: base64.b64encode(base64.b64encode(data)),
    "hex in percent": lambda data: quote_from_bytes(data.hex().encode()).encode().replace(b"7", b"%37"),
    "base64 in JSON": lambda data: json.dumps({"file": base64.b64encode(data).decode()}).encode(),
    "base64 in gzip in base64": lambda data: base64.b64encode(gzip.compress(base64.b64encode(data))),
}


def refused(upload: Upload, *pieces: bytes) -> str | None:
    """The rule that refuses, None where everything may go."""
    try:
        for piece in pieces:
            upload.body(piece)
        upload.end()
    except Spill as spill:
        assert KEY.decode() not in str(spill)
        return spill.rule
    return None


@pytest.mark.parametrize("fold", FOLDS.values(), ids=FOLDS)
def test_a_key_is_found_however_it_is_folded_up(fold: object) -> None:
    assert callable(fold)
    assert refused(Upload(shapes(PATTERNS)), b"before " + fold(AROUND) + b" after") == CREDENTIAL_IN_UPLOAD


@pytest.mark.parametrize("fold", FOLDS.values(), ids=FOLDS)
def test_what_only_resembles_a_key_goes_on(fold: object) -> None:
    assert callable(fold)
    near = AROUND.replace(b"tstkey_a", b"tstkey_A")
    assert refused(Upload(shapes(PATTERNS)), b"before " + fold(near) + b" after") is None


CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate ": _raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    "identity": lambda data: data,
}


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("encoding", "fold"), CODINGS.items(), ids=CODINGS)
def test_a_compressed_body_is_searched_as_it_flows(encoding: str, fold: object, size: int) -> None:
    assert callable(fold)
    body = fold(b"padding " * 1000 + AROUND)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert refused(Upload(shapes(PATTERNS), encoding), *pieces) == CREDENTIAL_IN_UPLOAD
    harmless = fold(b"padding " * 1000)
    assert refused(Upload(shapes(PATTERNS), encoding), harmless) is None


def test_gzip_members_one_after_the_other_are_all_searched() -> None:
    body = gzip.compress(b"nothing here") + gzip.compress(AROUND)
    assert refused(Upload(shapes(PATTERNS), "gzip"), body) == CREDENTIAL_IN_UPLOAD


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("compress", b"x"),
        ("gzip, secret", b"x"),
        ("gzip", b"no gzip at all"),
        ("br", b"\xff" * 20),
        ("zstd", b"no zstd"),
    ],
)
def test_a_body_that_cannot_be_searched_is_refused(encoding: str, body: bytes) -> None:
    assert refused(Upload(shapes(PATTERNS), encoding), body) == UPLOAD_UNREADABLE


PADDING = b"padding " * 1000
COMPRESSED = {
    "gzip": gzip.compress(PADDING),
    "deflate": zlib.compress(PADDING),
    "Deflate": _raw_deflate(PADDING),
    "br": brotli.compress(PADDING),
    "zstd": zstandard.compress(PADDING),
    "gzip, br": brotli.compress(gzip.compress(PADDING)[:-1]),
}


@pytest.mark.parametrize(("encoding", "body"), COMPRESSED.items(), ids=COMPRESSED)
def test_a_compressed_body_without_its_end_is_refused(encoding: str, body: bytes) -> None:
    cut = body if "," in encoding else body[:-1]
    assert refused(Upload(shapes(PATTERNS), encoding), cut) == UPLOAD_UNREADABLE
    assert refused(Upload(shapes(PATTERNS), encoding), cut[:1]) == UPLOAD_UNREADABLE
    assert refused(Upload(shapes(PATTERNS), encoding)) is None, "no body at all is no body that ends early"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_last_piece_of_an_announced_length_is_refused_with_the_missing_end(size: int) -> None:
    body = COMPRESSED["gzip"][:-4]
    upload, sent = Upload(shapes(PATTERNS), "gzip", len(body)), 0
    with pytest.raises(Spill, match="ends before"):
        for at in range(0, len(body), size):
            upload.body(body[at : at + size])
            sent += len(body[at : at + size])
    assert sent < len(body)


_NAMED = b"\x1f\x8b\x08\x08" + bytes(6) + AROUND + b"\0" + gzip.compress(PADDING)[10:]
_SKIPPED = b"\x50\x2a\x4d\x18" + len(AROUND).to_bytes(4, "little") + AROUND + zstandard.compress(PADDING)
BESIDE = {
    "the name in gzip's head": ("gzip", _NAMED),
    "a zstd frame that is skipped": ("zstd", _SKIPPED),
    "a second zstd frame": ("zstd", zstandard.compress(PADDING) + zstandard.compress(AROUND)),
    "a frame behind two that are skipped": ("zstd", _SKIPPED[:8] + b"x" * len(AROUND) + zstandard.compress(AROUND)),
}


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("encoding", "body"), BESIDE.values(), ids=BESIDE)
def test_what_a_compressed_body_holds_beside_its_content_is_searched(encoding: str, body: bytes, size: int) -> None:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert refused(Upload(shapes(PATTERNS), encoding), *pieces) == CREDENTIAL_IN_UPLOAD


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_compression_bomb_is_refused_and_held_by_nobody(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_EXPANSION", 1 << 20)
    body = CODINGS[encoding](b"\0" * (8 << 20))
    assert refused(Upload(shapes(PATTERNS), encoding), body) == UPLOAD_UNREADABLE


def test_a_bomb_inside_is_searched_only_so_far() -> None:
    inner = gzip.compress(b"\0" * (64 << 20))
    assert sum(len(text) for text in unfolded(inner)) < 20 << 20


@given(st.binary(max_size=300), st.binary(max_size=300), st.data())
@settings(max_examples=60, deadline=None)
def test_no_cut_hides_a_key_and_its_end_never_goes_on(before: bytes, after: bytes, data: st.DataObject) -> None:
    body = before + KEY + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    upload, sent = Upload(shapes(PATTERNS)), b""
    with pytest.raises(Spill):
        for piece in pieces:
            upload.body(piece)
            sent += piece
    assert KEY not in sent


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_unfolded_without_a_fault(data: bytes) -> None:
    assert next(iter(unfolded(data))) == data
    assert sum(len(text) for text in unfolded(data)) < 20 << 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_grows_out_of_all_proportion_is_refused_before_it_is_searched(encoding: str) -> None:
    makers = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}
    assert refused(Upload(shapes(PATTERNS), encoding), makers[encoding](bytes(32 << 20))) == UPLOAD_UNREADABLE
    words = b" ".join(b"%d bottles of beer" % number for number in range(100_000))
    assert refused(Upload(shapes(PATTERNS), encoding), makers[encoding](words)) is None
