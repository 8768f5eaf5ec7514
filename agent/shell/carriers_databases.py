"""The rows of database clients (a part of `agent.shell.carriers_table`, in its words).

Sources: psql(1), mysql(1), sqlite3(1), mongosh's and redis-cli's ``--help``, and those of the other clients.
"""

from __future__ import annotations

from typing import Final

DATABASES: Final = r"""
psql:
    valued dFhLpPRTUvo
    -c --command    says:psql
    -f --file    file:psql
    -o --output    text    \|
    stdin    says:psql
mysql mariadb:
    valued DhPSu --host --user --database --port
    -e --execute    says:mysql
    --pager    text
    stdin    says:mysql
sqlite3 sqlite duckdb:
    -cmd    says:sqlite
    operand    says:sqlite
    -c -s    says:sqlite
    stdin    says:sqlite
sqlplus sqlcl isql:
    stdin    says:bang
    stdin    says:sql
sqlcmd:
    -Q -q    says:bang
    -Q -q    says:sql
    stdin    says:bang
mongo mongosh:
    valued up --host --port --username --password --authenticationDatabase --authenticationMechanism
    --eval    says:mongo
    -f --file    file:mongo
    alone    says:mongo
redis-cli valkey-cli:
    valued hpsaunridDt --user --pass --cacert --cert --key --sni
    --eval    reads
    alone    says:redis
clickhouse-client clickhouse cockroach cqlsh usql trino presto spark-sql hive beeline snowsql ysqlsh vsql dolt:
    valued hupPdU --host --port --user --password --database --url --keyspace
    -q -e -f --query --execute    says:sql
    alone    says:sql
bq:
    valued --project_id --location --format --dataset_id
    operand    says:sql
"""
