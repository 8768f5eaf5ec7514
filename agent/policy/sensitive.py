"""The files whose denied reads are put on record where a policy asks for it (`paths.audit: reads`): their names.

Rules kept here: names that are known beforehand, whether or not there is such a file, so that what is shown in their
place tells nothing; a name that ends in ``/`` is a directory.

Sources: as of the class ``<secret-file>`` (agent.policy.path_classes); shadow(5), gshadow(5), sudoers(5), sshd(8),
kubeadm's and Kubernetes' own documentation for what lies below /etc/kubernetes and /var/run/secrets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MACHINE: Final = (
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d/"),
    *(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519")),
    *("/etc/ssl/private/", "/etc/krb5.keytab", "/etc/kubernetes/admin.conf", "/etc/kubernetes/pki/"),
    *("/run/secrets/", "/run/secrets/kubernetes.io/serviceaccount/token"),
)
"""Of the machine."""

IN_HOMES: Final = (
    *(f".ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ed25519", "dsa")),
    *(".ssh/config", ".ssh/known_hosts", ".ssh/authorized_keys", ".gnupg/private-keys-v1.d/"),
    *(".aws/credentials", ".aws/config", ".azure/msal_token_cache.json", ".kube/config", ".docker/config.json"),
    *(".config/gcloud/credentials.db", ".config/gcloud/application_default_credentials.json"),
    *(".config/gh/hosts.yml", ".netrc", ".git-credentials", ".npmrc", ".pypirc", ".pgpass", ".my.cnf"),
    *(".vault-token", ".env", ".bash_history", ".claude/.credentials.json", ".codex/auth.json"),
)
"""In the home of every account but the session's."""


def sensitive(homes: Iterable[str]) -> tuple[str, ...]:
    """All of them; `homes`: those of the other accounts."""
    return (*MACHINE, *(f"{home}/{name}" for home in homes for name in IN_HOMES))
