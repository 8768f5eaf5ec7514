"""How container engines and their clients read their words.

Rules: options of ``run``, ``exec`` and ``create`` end at the image or container: what follows is the container's own
command. Docker and podman are read alike; ``docker container rm`` is ``docker rm``, and ``docker-compose`` is
``docker compose``.

Sources: ``docker help`` and the reference of its commands, podman(1), buildah(1), nerdctl's command reference,
``crictl help``, Compose's reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.policy.grammar import Grammar, family, level, means, names, sub
from agent.values import replace

_RUN = Grammar(
    names(
        "a attach add-host annotation blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile "
        "c cpu-shares cpu-period cpu-quota cpus cpuset-cpus cpuset-mems d-keys detach-keys device device-cgroup-rule "
        "dns dns-option dns-search domainname entrypoint e env env-file expose gpus group-add health-cmd "
        "health-interval health-retries health-timeout h hostname ip ip6 ipc isolation l label label-file link "
        "log-driver log-opt mac-address m memory memory-reservation memory-swap mount name network net network-alias "
        "oom-score-adj pid pids-limit platform p publish pull restart runtime security-opt shm-size stop-signal "
        "stop-timeout storage-opt sysctl tmpfs ulimit u user userns uts v volume volume-driver volumes-from w workdir "
        "pod secret requires chrootdirs arch os"
    ),
    means=means(volume="v volume", network="network net", environment="e env", user="u user"),
    first=True,
)
_EXEC = Grammar(
    names("detach-keys e env env-file u user w workdir c container f file index"),
    means=means(user="u user"),
    first=True,
)
_REMOVE = sub("t time filter cidfile", force="f force", volumes="v volumes", all="a all", link="l link")
_PRUNE = sub("filter keep-storage", force="f force", all="a all", volumes="volumes")
_BUILD = sub(
    "f file t tag build-arg target platform o output cache-from cache-to label network secret ssh progress builder "
    "add-host allow build-context shm-size iidfile metadata-file attest v volume cap-add security-opt device",
    volume="v volume",
    network="network net",
)

_CONTAINER: Mapping[str, Grammar] = {
    "run create": _RUN,
    "exec": _EXEC,
    "rm": _REMOVE,
    "rmi": _REMOVE,
    "prune": _PRUNE,
    "stop kill restart pause wait": sub("s signal t time timeout", all="a all"),
    "update": _RUN,
}
_COMPOSE = family(
    sub("f file p project-name profile project-directory env-file ansi parallel progress"),
    {
        "down": sub("rmi t timeout", volumes="v volumes"),
        "rm": sub(force="f force", volumes="v volumes", stop="s stop"),
        "run": Grammar(
            names("e env entrypoint name p publish u user v volume w workdir l label cap-add cap-drop pull"),
            means=means(volume="v volume"),
            first=True,
        ),
        "exec": _EXEC,
        "up": sub("scale t timeout exit-code-from attach pull", volumes="V renew-anon-volumes"),
        "push build pull": sub("build-arg m memory ssh builder"),
    },
)
_GLOBAL = (
    "H host c context config l log-level tlscacert tlscert tlskey url connection identity root runroot storage-driver "
    "cgroup-manager network-cmd-path volumepath data-root"
)
_COMMANDS: Mapping[str, Grammar] = {
    **_CONTAINER,
    "image": level({"rm remove": _REMOVE, "prune": _PRUNE, "build": _BUILD, "push pull tag ls": sub("platform")}),
    "volume network pod builder buildx system machine": level(
        {
            "prune": _PRUNE,
            "rm remove": _REMOVE,
            "build": _BUILD,
            "create": _RUN,
            "reset df info ls inspect du connect disconnect": sub("filter", force="f force"),
        }
    ),
    "build": _BUILD,
    "push": sub("platform authfile creds cert-dir format", all_tags="a all-tags"),
    "compose": _COMPOSE,
    "swarm stack service node secret config plugin context": level(
        {"leave rm remove down install enable init join update create deploy": sub("c compose-file alias")}
    ),
    "login": sub("u username p password"),
}


def _engine(more: str = "") -> Grammar:
    flags = sub(f"{_GLOBAL} {more}", skipped="container", recursive="r R recursive", host="H host url", force="f force")
    return family(flags, _COMMANDS)


_ENGINE = _engine()
_CRICTL = family(
    sub("c config r runtime-endpoint i image-endpoint t timeout", force="f force", all="a all", prune="q prune"),
    {"rm rmp stop stopp": sub(force="f force", all="a all"), "rmi": sub(all="a all", prune="q prune")},
)
_SKOPEO = sub(
    "authfile creds src-creds dest-creds src-tls-verify dest-tls-verify f format override-arch override-os policy"
)

CONTAINERS: Mapping[str, Grammar] = MappingProxyType(
    {
        "docker": _ENGINE,
        "podman": _ENGINE,
        "nerdctl": _engine("a address n namespace"),
        "buildah": family(
            sub("root runroot storage-driver authfile creds"),
            {"run": _RUN, "from": _RUN, "bud build": _BUILD, "rm rmi": _REMOVE, "prune": _PRUNE},
        ),
        "docker-compose": replace(_COMPOSE, stands_for=("compose",)),
        "podman-compose": replace(_COMPOSE, stands_for=("compose",)),
        "crictl": _CRICTL,
        "skopeo": _SKOPEO,
    }
)
