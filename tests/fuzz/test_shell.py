"""The shell analysis against bash, some hundred questions a kind; `python -m tests.fuzz shell` asks for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import require
from tests.fuzz.shell import Place, accepts, analysis, parsed, skipped
from tests.fuzz.shell_texts import MARK, Writer, mutated

_SEEDS = st.integers(0, 2**32)


@settings(max_examples=150, deadline=None)
@given(seed=_SEEDS)
def test_a_command_that_bash_accepts_is_never_skipped_in_silence(seed: int) -> None:
    require(Path("/bin/bash").exists(), "no bash")
    assert parsed(seed) is None


@settings(max_examples=60, deadline=None)
@given(seed=_SEEDS)
def test_every_command_that_bash_starts_was_foreseen(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = Place(tmp_path_factory.mktemp("place"))
    text = Writer(seed).program()
    assert place.unforeseen(text) == [], text


@settings(max_examples=300, deadline=None)
@given(seed=_SEEDS)
def test_the_same_text_is_always_understood_the_same_and_within_bounds(seed: int) -> None:
    text = mutated(Writer(seed).program(), seed)
    found = analysis(text)
    assert found == analysis(text)
    assert len(found.commands) <= 2000
    assert len(found.understood) <= 510


def test_the_oracles_can_disagree(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.ran(f"{MARK} a 'b c'; echo {MARK}") == [("a", "b c")]
    assert accepts(f"echo {MARK}")
    assert not accepts("fi")
    assert not accepts("echo $(fi)")
    assert not skipped(f"echo '{MARK}'", 6)
