"""How database clients and package publishers read their words.

Sources: psql(1), mysql(1), mysqladmin(1), sqlite3(1), ``redis-cli --help``, mongosh's and the database tools' option
pages, dropdb(1), pg_restore(1); the command pages of npm, Yarn, pnpm, Cargo, RubyGems, twine, Poetry, uv, Hatch, Flit,
PDM, Maven, Gradle and NuGet.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.policy.grammar import Grammar, family, level, names, sub

_POSTGRES = "h host p port U username d dbname c command f file o output v set variable F R P pset T maintenance-db"
_TWINE = "r repository repository-url u username p password i identity c comment config-file"
_MAVEN = Grammar(names("f file P activate-profiles s settings pl projects T threads D gs rf l t"))
_GRADLE = sub("p project-dir b build-file I init-script P D x exclude-task g c", dry_run="m dry-run")
_PIP = sub("r requirement c constraint i index-url extra-index-url t target proxy cert python")
_MYSQL = (
    "h host P port u user D database e execute S socket protocol default-character-set defaults-file init-command "
    "defaults-extra-file defaults-group-suffix login-path ssl-ca ssl-cert ssl-key ssl-mode plugin-dir connect-timeout"
)
_MONGO = "host port u username p password authenticationDatabase authenticationMechanism eval f file uri db d c"
_REDIS = Grammar(names("h p s a u n r i d D t user pass cacert cert key sni rdb eval"), lower=True, first=True)

DATABASES: Mapping[str, Grammar] = MappingProxyType(
    {
        "psql": sub(_POSTGRES, command="c command"),
        "dropdb": sub(_POSTGRES, force="f force"),
        "dropuser": sub(_POSTGRES),
        "pg_restore": sub(
            "h host p port U username d dbname f file j jobs n schema t table L use-list", clean="c clean"
        ),
        "mysql": sub(_MYSQL, execute="e execute", force="f force"),
        "mariadb": sub(_MYSQL, execute="e execute", force="f force"),
        "mysqladmin": sub(_MYSQL, lower=True, force="f force"),
        "mariadb-admin": sub(_MYSQL, lower=True, force="f force"),
        "sqlite3": Grammar(names("cmd init separator newline nullvalue maxsize mmap vfs"), single_dash=True),
        "redis-cli": _REDIS,
        "<redis>": _REDIS,
        "<sql>": Grammar(names("")),
        "valkey-cli": _REDIS,
        "mongo": sub(_MONGO),
        "mongosh": sub(_MONGO),
        "mongorestore": sub(_MONGO),
    }
)

_NPM = family(
    sub(
        "registry tag access otp w workspace prefix C cache userconfig globalconfig loglevel scope F filter dir cwd "
        "location auth-type publish-branch",
        dry_run="dry-run",
    ),
    {
        "owner access token dist-tag team hook": level(
            {"add rm ls set grant revoke create list public restricted": sub()}
        )
    },
)
_TOOL = sub("r repository repository-url username u p password index-url publish-url token manifest-path index config")

PUBLISHING: Mapping[str, Grammar] = MappingProxyType(
    {
        "npm": _NPM,
        "pnpm": _NPM,
        "yarn": _NPM,
        "bun": _NPM,
        "npx": Grammar(names("p package c call registry"), first=True),
        "bunx": Grammar(names("p package"), first=True),
        "cargo": family(
            sub("color config Z C manifest-path p package index registry token", skipped="+*", dry_run="n dry-run"),
            {"publish": sub("j jobs target F features"), "yank owner": sub("vers version a add r remove")},
        ),
        "gem": sub("k key host otp p http-proxy i install-dir", dry_run="dry-run"),
        "twine": family(sub(), {"upload register": sub(_TWINE)}),
        "poetry": family(sub("C directory P project"), {"publish": sub("r repository u username p password cert")}),
        "uv": family(sub("directory project config-file cache-dir color"), {"publish": sub("publish-url t token")}),
        "hatch": family(sub("e env p project data-dir cache-dir config"), {"publish": sub("r repo u user a auth")}),
        "flit": family(sub("f ini-file repository pypirc"), {}),
        "pdm": family(sub("c config p project"), {"publish": sub("r repository u username P password i identity")}),
        "maturin": family(_TOOL, {}),
        "mvn": _MAVEN,
        "mvnw": _MAVEN,
        "gradle": _GRADLE,
        "gradlew": _GRADLE,
        "dotnet": level({"nuget": level({"push delete": sub("s source k api-key")})}),
        "pip": _PIP,
        "pip3": _PIP,
    }
)
