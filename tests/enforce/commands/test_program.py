"""The first line of a script, read as the kernel reads it (fs/binfmt_script.c), against the kernel itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.enforce.commands.program import script_line


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (b"#!/bin/sh\n", (b"/bin/sh", None)),
        (b"#! \t/bin/sh \t \n", (b"/bin/sh", None)),
        (b"#!/usr/bin/env  python3 -u \nrest", (b"/usr/bin/env", b"python3 -u")),
        (b"#!/bin/sh", (b"/bin/sh", None)),
        (b"#!/bin/sh -e", (b"/bin/sh", b"-e")),
        (b"#!/bin/sh ", (b"/bin/sh", b"")),
        (b"#!/bin/sh -e ", (b"/bin/sh", b"-e ")),
        (b"#!/bin/sh " + b"x" * 300, (b"/bin/sh", b"x" * 245)),
        (b"#!/bin/sh\0-e\n", (b"/bin/sh", None)),
        (b"#!/bin/sh\r\n", (b"/bin/sh\r", None)),
        (b"\x7fELF", None),
        (b"", None),
        (b"#", None),
        (b" #!/bin/sh\n", None),
    ],
)
def test_a_first_line_names(head: bytes, line: tuple[bytes, bytes | None] | None) -> None:
    assert script_line(head) == line


@pytest.mark.parametrize("head", [b"#!", b"#!\n", b"#!  \t\n/bin/sh", b"#!/" + b"x" * 254])
def test_a_line_that_names_nothing_is_refused_as_the_kernel_does(head: bytes) -> None:
    with pytest.raises(OSError, match=r"interpreter"):
        script_line(head)


OPTION = st.text(alphabet="ab -\t", max_size=12).map(str.encode)


@given(blank=st.sampled_from([b"", b" ", b"\t "]), option=OPTION, end=st.sampled_from([b"\n", b"\nmore\n", b""]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_kernel_hands_over_the_same_words(tmp_path: Path, blank: bytes, option: bytes, end: bytes) -> None:
    """`echo` as a script's interpreter says what it was called with."""
    script = tmp_path / "script"
    script.write_bytes(b"#!" + blank + b"/bin/echo " + option + end)
    script.chmod(0o755)
    read = script_line(script.read_bytes()[:256])
    assert read is not None
    interpreter, word = read
    assert interpreter == b"/bin/echo"
    said = subprocess.run([script], stdout=subprocess.PIPE, check=True).stdout
    direct = subprocess.run(
        [interpreter, *([] if word is None else [word]), os.fsencode(script)], stdout=subprocess.PIPE, check=True
    ).stdout
    assert said == direct
