"""SQL text to statements: nothing hides in comments or quotes, and data stays data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.request import UNKNOWN
from agent.shell.sql import mongo_calls, statements


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DROP TABLE x", ["drop table x"]),
        ("drop/**/table x;", ["drop table x"]),
        ("DROP -- x\nTABLE x", ["drop table x"]),
        ("/* /* */ DROP TABLE x; -- */", ["drop table x"]),
        ('DROP TABLE "A b"', ["drop table a b"]),
        ("select 'drop table x; delete from y'", ["select 'drop table x; delete from y"]),
        ("select 'it''s'; truncate t", ["select 'it's", "truncate t"]),
        ("-- drop table x\nselect 1", ["select 1"]),
        ("delete from t", ["delete from t --all-rows"]),
        ("delete from t where id = 1", ["delete from t where id = 1"]),
        ("delete from t where 1=1", ["delete from t where 1 = 1 --all-rows"]),
        ("delete from t where (true)", ["delete from t where ( true ) --all-rows"]),
        ("update t set a=1", ["update t set a = 1 --all-rows"]),
        ("select * from t for update", ["select * from t for update"]),
        ("explain delete from t", []),
        ("explain analyze delete from t", ["explain analyze delete from t", "delete from t --all-rows"]),
        (
            "with d as (delete from t) select 1 where 2=3",
            ["with d as ( delete from t ) select 1 where 2 = 3", "delete from t --all-rows"],
        ),
        ("do $$ begin execute 'drop table x'; end $$", None),
        ("prepare p as drop table x", ["prepare p as drop table x", "drop table x"]),
        ("create trigger x after delete on t do notify", ["create trigger x after delete on t do notify"]),
        ("", []),
        (" ; ;", []),
    ],
)
def test_statements(text: str, expected: list[str] | None) -> None:
    found = [" ".join(words) for words in statements(text)]
    if expected is None:
        assert "drop table x" in found
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/*!50000 DROP*/ TABLE x", ["drop table x"]),
        ("select 'a\\'; drop table z'", ["select 'a\\'; drop table z"]),
        ('select "a\\"; drop table z"', ["select 'a\\\"; drop table z"]),
        ("# drop table x\ntruncate t", ["truncate t"]),
        ("truncate t # ; drop table x", ["truncate t"]),
    ],
)
def test_statements_as_mysql_reads_them(text: str, expected: list[str]) -> None:
    assert [" ".join(words) for words in statements(text, mysql=True)] == expected


def test_a_hash_hides_nothing_from_other_engines() -> None:
    assert ("drop", "table", "x") in list(statements("select 1 # 2; drop table x"))


def test_what_follows_an_unknown_part_may_be_a_condition() -> None:
    assert list(statements(f"delete from t {UNKNOWN}")) == [("delete", "from", "t", UNKNOWN)]


@given(st.text("drop table x'\"`$;-/*!#\\()\n", max_size=60), st.booleans())
def test_any_text_is_read_and_no_statement_is_empty(text: str, mysql: bool) -> None:
    assert all(words and all(words) for words in statements(text, mysql=mysql))


_BLANKS = st.sampled_from([" ", "\n", "/**/", "/* x */", " -- x\n", "\t"])


@given(_BLANKS, _BLANKS, st.sampled_from(["", "select 1;", "begin;", "select 'a;b';"]), st.booleans())
def test_a_drop_is_found_whatever_stands_between_its_words(first: str, second: str, before: str, upper: bool) -> None:
    text = f"drop{first}table{second}x"
    assert ("drop", "table", "x") in list(statements(before + (text.upper() if upper else text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db.dropDatabase()", [("dropdatabase", "--all-rows")]),
        ("db['users'].drop( )", [("drop", "--all-rows")]),
        ("db.users.deleteMany({})", [("deletemany", "--all-rows")]),
        ("db.users.deleteMany({a: 1})", [("deletemany",)]),
        ('db["dropDatabase"]()', [("dropdatabase", "--all-rows")]),
        ("db.users.find()", []),
    ],
)
def test_calls_of_the_mongodb_shell(text: str, expected: list[tuple[str, ...]]) -> None:
    assert list(mongo_calls(text)) == expected
