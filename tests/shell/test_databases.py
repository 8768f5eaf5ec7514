"""What database clients are given: statements by option, operand, pipe and heredoc."""

from __future__ import annotations

import pytest

from tests.policy.given import command

DROPPED = ("<sql>", "drop", "table", "x")


def programs(text: str) -> list[tuple[str, ...]]:
    return [(found.program, *found.argv[1:]) for found in command(text).commands]


@pytest.mark.parametrize(
    "text",
    [
        "psql -h h -U u -c 'DROP TABLE x'",
        "psql --command='drop table x' shop",
        "psql postgres://u@h/shop -c 'select 1' -c 'drop table x'",
        "echo 'drop table x' | psql",
        "psql <<EOF\nselect 1;\ndrop table x;\nEOF",
        "psql <<< 'drop table x'",
        "sudo -u postgres psql -c 'drop table x'",
        "mysql -u root -e 'drop table x' shop",
        "mariadb --execute='drop table x'",
        "mysql shop <<EOF\ndrop table x\nEOF",
        "sqlite3 a.db 'drop table x'",
        "sqlite3 a.db <<< 'drop table x;'",
        "duckdb a.db -c 'drop table x'",
        "clickhouse-client --query 'drop table x'",
        "cqlsh -e 'drop table x'",
        "cockroach sql -e 'drop table x'",
        "bq query 'drop table x'",
        "docker exec db psql -c 'drop table x'",
        "kubectl exec -it db -- psql -c 'drop table x'",
        "ssh host \"psql -c 'drop table x'\"",
        "DROP TABLE x",
        "drop table x;",
    ],
)
def test_a_statement_is_found_wherever_a_client_reads_it(text: str) -> None:
    assert DROPPED in programs(text)


@pytest.mark.parametrize(
    "text",
    [
        "echo 'drop table x'",
        "git commit -m 'drop table x'",
        "grep 'drop table x' schema.sql",
        "psql -c \"select 'drop table x'\"",
        "cat > a.sql <<EOF\ndrop table x;\nEOF",
        "truncate -s 0 x",
        "delete --all x",
    ],
)
def test_data_is_no_statement(text: str) -> None:
    assert not [found for found in programs(text) if found[0] == "<sql>" and found[1] in ("drop", "truncate", "delete")]


@pytest.mark.parametrize("text", ['psql -c "$SQL"', 'mysql -e "$SQL"', 'sqlite3 a.db "$SQL"', 'cqlsh -e "$SQL"'])
def test_a_statement_that_is_not_known_is_said_to_be_so(text: str) -> None:
    assert command(text).unverifiable is not None


def test_the_mongodb_shell_and_redis_are_read_too() -> None:
    assert ("<mongo>", "drop", "--all-rows") in programs("mongosh shop --eval 'db.users.drop()'")
    assert ("<mongo>", "dropdatabase", "--all-rows") in programs("echo 'db.dropDatabase()' | mongosh")
    assert ("<redis>", "FLUSHALL") in programs("echo FLUSHALL | redis-cli -h h")
    assert ("redis-cli", "FLUSHALL") in programs("redis-cli FLUSHALL")


def test_a_clients_doors_to_a_shell_stay_open_to_the_analysis() -> None:
    assert ("rm", "-rf", "/") in programs(r"psql -c '\! rm -rf /'")
    assert ("rm", "-rf", "/") in programs("sqlite3 a.db '.shell rm -rf /'")
