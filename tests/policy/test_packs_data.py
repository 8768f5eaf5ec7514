"""The packs databases and package-publishing: which rule refuses what, and what stays free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.policy.shipped import said

DATABASES = {
    "sql-drop": [
        "psql -c 'DROP DATABASE shop'",
        "psql -h h -U u -d d --command='drop table if exists users cascade'",
        "sudo -u postgres psql -c 'Drop Schema public Cascade;'",
        "mysql -uroot -e 'DROP DATABASE shop'",
        "mysql -u root shop <<EOF\nselect 1;\ndrop table users;\nEOF",
        "echo 'drop table users' | mysql shop",
        "sqlite3 app.db 'DROP TABLE users;'",
        "psql <<< 'drop table users'",
        "psql -c 'begin; drop table users; commit'",
        "psql -c 'DROP/* x */TABLE users'",
        'mysql -e "/*!40000 DROP TABLE users */"',
        "psql -c \"do \\$\\$ begin execute 'drop table users'; end \\$\\$\"",
        "docker compose exec db psql -U u -c 'drop table users'",
        "kubectl exec db-0 -- mysql -e 'drop database shop'",
        "printf 'drop table %s;' users | psql",
        "DROP TABLE users;",
        "drop database shop",
    ],
    "sql-truncate": ["psql -c 'truncate users'", "mysql -e 'TRUNCATE TABLE a'", "TRUNCATE users;"],
    "sql-all-rows": [
        "psql -c 'DELETE FROM users'",
        "psql -c 'delete from users where true'",
        "psql -c 'delete from users where 1 = 1'",
        "mysql -e 'update users set admin = 1'",
        "psql -c 'with d as (delete from users returning *) select * from d where id = 1'",
        "DELETE FROM users;",
    ],
    "sql-alter-drop": ["psql -c 'alter table t drop column c'", "mysql -e 'ALTER TABLE t DROP c'"],
    "sql-privilege": [
        "mysql -e \"GRANT ALL PRIVILEGES ON *.* TO 'a'@'%'\"",
        "psql -c 'alter role a superuser'",
        "psql -c \"create user x password 'y'\"",
        "psql -c 'ALTER SYSTEM SET x = 1'",
        "GRANT ALL ON *.* TO 'user'@'host';",
    ],
    "sql-files-and-programs": [
        "mysql -e \"select 1 into outfile '/tmp/x'\"",
        "psql -c \"select pg_read_file('/etc/passwd')\"",
        "psql -c \"COPY t FROM PROGRAM 'id'\"",
    ],
    "sql-server": ["mysql -e 'kill 7'", "mysql -e 'reset master'"],
    "sql-stop-others": ["psql -c 'select pg_terminate_backend(pid) from pg_stat_activity'"],
    "database-drop-tool": ["dropdb shop", "sudo -u postgres dropdb -h h --if-exists shop", "dropuser a"],
    "mysqladmin-drop": [
        "mysqladmin drop shop",
        "mysqladmin -u root -psecret drop shop",
        "mysqladmin --force DROP shop",
    ],
    "database-restore-clean": ["pg_restore -c -d d f", "pg_restore --clean f", "mongorestore --drop d"],
    "mongo-drop": [
        "mongosh --eval 'db.dropDatabase()'",
        "mongo shop --quiet --eval 'db.users.drop()'",
        "mongosh <<EOF\nuse shop\ndb.users.drop()\nEOF",
        'mongosh --eval \'db["users"]["drop"]()\'',
    ],
    "mongo-all": ["mongosh --eval 'db.users.deleteMany({})'", "mongosh --eval 'db.u.remove( { } )'"],
    "redis-flush": [
        "redis-cli FLUSHALL",
        "redis-cli -h h -p 1 -n 2 flushdb",
        "redis-cli -a x SHUTDOWN",
        "echo flushall | redis-cli",
    ],
    "redis-configuration": ["redis-cli config set dir /", "redis-cli CONFIG REWRITE", "redis-cli ACL SETUSER x"],
    "redis-flush-by-script": ["redis-cli eval \"redis.call('flushdb')\" 0"],
    "redis-cluster": ["redis-cli --cluster call h:1 flushall", "redis-cli -a p --cluster reshard h:1"],
    "redis-keys": ["redis-cli keys 'a*' | xargs redis-cli del"],
    "migration-reset": [
        "rails db:drop",
        "RAILS_ENV=production bundle exec rails db:reset",
        "mix ecto.reset",
        "rake db:schema:load",
    ],
    "migration-reset-command": ["npx prisma migrate reset -f", "flyway clean", "alembic downgrade base", "dbmate drop"],
    "migration-push-loss": ["npx prisma db push --accept-data-loss"],
    "migration-script-reset": [
        "python manage.py flush",
        "python3.12 ./manage.py reset_db",
        "php artisan migrate:fresh",
    ],
}
DATABASES_FREE = [
    "psql -c 'select * from users'",
    "psql -c 'DELETE FROM users WHERE id = 1'",
    "psql -c \"insert into log values ('drop table users')\"",
    "psql -c 'create table t (id int references u on delete cascade)'",
    "psql -c 'explain delete from users'",
    "psql -c '-- drop table users'",
    "psql -c 'drop index i'",
    "psql -c 'GRANT SELECT ON t TO r'",
    "psql -f schema.sql",
    "mysql -e 'show tables'",
    "sqlite3 app.db .tables",
    "redis-cli get flushall",
    "redis-cli del a",
    "mongosh --eval 'db.users.find({})'",
    "mongosh --eval 'db.users.deleteMany({a: 1})'",
    "createdb x",
    "pg_dump shop",
    "rails db:migrate",
    "npx prisma migrate deploy",
    "python manage.py migrate",
    "truncate -s 0 log",
    "git commit -m 'drop table users'",
    "grep -r 'DROP TABLE' migrations",
]

PUBLISHING = {
    "npm-publish": [
        "npm publish",
        "npm publish --access public ./pkg",
        "cd pkg && npm publish",
        "pnpm -r publish --no-git-checks",
        "bun publish",
        "npm publish --dry-run=false",
        "npm_config_x=y sudo npm --prefix a publish",
    ],
    "yarn-publish": ["yarn publish", "yarn publish --dry-run", "npx changeset publish"],
    "yarn-berry-publish": ["yarn npm publish", "yarn npm tag add a@1 latest"],
    "npm-unpublish": ["npm unpublish a --force", "npm deprecate a@1 x"],
    "npm-access": ["npm owner add a b", "npm dist-tag add a@1 latest", "npm access grant read-write a:b c"],
    "npm-credentials": ["npm login", "npm token create --read-only", "npm adduser"],
    "npm-registry-setting": ["npm config set registry https://r.test", "npm config set //r.test/:_authToken x"],
    "release-tools": ["npx lerna publish", "goreleaser release", "vsce publish"],
    "release-tools-alone": ["npx semantic-release", "release-it minor"],
    "np-publish": ["npx np minor", "np --dry-run"],
    "python-publish": [
        "twine upload dist/*",
        "poetry publish -u x -p y",
        "uv publish",
        "uvx twine upload dist/a",
        "flit publish",
        "hatch publish -r test",
        "uv run twine upload x",
    ],
    "python-publish-module": ["python -m twine upload dist/a", "python3.12 -m flit publish"],
    "python-publish-setup": ["python setup.py sdist upload", "python setup.py register"],
    "python-registry-setting": ["poetry config pypi-token.pypi x", "pip config set global.index-url u"],
    "cargo-publish": [
        "cargo publish",
        "cargo +stable publish --allow-dirty",
        "cargo yank --vers 1 a",
    ],
    "cargo-owner": ["cargo owner --add a", "cargo owner --list --remove a b"],
    "gem-publish": ["gem push a.gem", "gem yank a -v 1", "gem owner a --add b"],
    "gem-release-task": ["bundle exec rake release"],
    "maven-publish": [
        "mvn deploy",
        "mvn -B clean deploy -DskipTests",
        "./mvnw release:perform",
        "mvn deploy:deploy-file",
    ],
    "gradle-publish": [
        "gradle publish",
        "./gradlew :a:publish",
        "./gradlew publishMavenPublicationToCentralRepository",
    ],
    "jvm-publish": ["sbt +publishSigned", "lein deploy clojars", "sbt publish --dry-run"],
    "nuget-publish": ["dotnet nuget push a.nupkg", "nuget push a.nupkg", "dotnet nuget delete a 1"],
    "other-publish": ["mix hex.publish", "pod trunk push a.podspec", "helm push a oci://r", "cabal upload a"],
    "host-release": ["gh release create v1", "gh -R a/b release upload v1 f"],
}
PUBLISHING_FREE = [
    "npm publish --dry-run",
    "npm pack",
    "npm ci",
    "npm run publish-docs",
    "npm install publish",
    "npm config get registry",
    "yarn install",
    "twine check dist/a",
    "poetry publish --dry-run",
    "poetry build",
    "python -m build",
    "python -m pytest",
    "pip install -r requirements.txt",
    "cargo publish --dry-run",
    "cargo package",
    "gem build a.gemspec",
    "rake test",
    "mvn install",
    "mvn -P deploy verify",
    "gradle build",
    "./gradlew publishToMavenLocal",
    "dotnet pack",
    "dart pub get",
    "helm package a",
    "gh release list",
    "echo npm publish",
]

CASES = {"databases": (DATABASES, DATABASES_FREE), "package-publishing": (PUBLISHING, PUBLISHING_FREE)}


_FLAGS = st.lists(st.sampled_from(["-h h", "-U u", "-q", "-X", "--port=1", "-v a=b"]), max_size=3)


@given(_FLAGS, st.sampled_from(["-c", "--command", "-qc", "-Xqc"]), _FLAGS, st.sampled_from(["DROP", "drop", "dRoP"]))
def test_a_drop_is_found_among_any_options(before: list[str], option: str, behind: list[str], verb: str) -> None:
    text = " ".join(["psql", *before, option, f"'{verb} table x'", *behind])
    assert said("databases", text) == "sql-drop"
