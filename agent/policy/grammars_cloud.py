"""How the command lines of clouds, clusters and infrastructure as code read their words.

Rules: what takes a value is listed where it may stand in front of a subcommand or be mistaken for an operand; options
of these tools are accepted anywhere on the line.

Sources: ``aws help`` (global options), ``gcloud help`` and ``gcloud topic command-conventions``, ``az`` reference
(global parameters), ``kubectl options``, ``helm help``, ``oc options``, the commands pages of Terraform, OpenTofu,
Terragrunt, Pulumi and the AWS CDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.policy.grammar import Grammar, family, level, means, names, sub
from agent.values import replace

_AWS = family(
    sub(
        "profile region output query endpoint-url color ca-bundle cli-read-timeout cli-connect-timeout "
        "cli-binary-format exclude include acl storage-class sse sse-kms-key-id",
        recursive="recursive",
        force="force",
        delete="delete",
        dry_run="dry-run dryrun",
    ),
    {},
)
_GCLOUD = family(
    sub(
        "project account configuration format filter limit page-size sort-by verbosity billing-project flags-file "
        "impersonate-service-account access-token-file trace-token log-http-file zone region location instance member "
        "role condition cluster policy-file data-file topic network keyring key",
        skipped="alpha beta preview",
        quiet="q quiet",
        recursive="r R recursive",
    ),
    {},
)
_GSUTIL = family(
    sub("o h i u", recursive="r R recursive", force="f force", delete="d"),
    {"rsync": sub("x y i j", recursive="r R recursive", delete="d"), "mb": sub("b c l p s")},
)
_BQ = family(sub("project_id location format dataset_id job_id", recursive="r recursive", force="f force"), {})
_AZ = family(
    sub(
        "o output query subscription g resource-group n name l location ids tags account-name account-key vault-name "
        "server s registry r image t role assignee scope container-name c source sku d destination",
        yes="y yes",
    ),
    {},
)

_RCLONE = sub(
    "config filter include exclude filter-from files-from transfers checkers bwlimit max-age min-age max-size min-size "
    "retries log-file log-level backup-dir suffix max-delete drive-root-folder-id s3-provider s3-region cache-dir",
    dry_run="n dry-run",
)

_KUBE_GLOBAL = (
    "n namespace s server context cluster user kubeconfig token as as-group as-uid request-timeout "
    "client-certificate client-key certificate-authority cache-dir tls-server-name profile profile-output v vmodule"
)
_KUBE_SUBCOMMANDS: Mapping[str, Grammar] = {
    "delete replace apply create patch edit get describe label annotate set expose autoscale rollout wait": sub(
        "f filename k kustomize l selector o output field-selector grace-period timeout cascade p patch type "
        "patch-file subresource raw from-literal from-file template for revision to-revision field-manager "
        "from-env-file clusterrole role serviceaccount verb resource image",
        all="all",
        all_namespaces="A all-namespaces",
        filename="f filename R",
        kustomize="k kustomize",
        force="force",
        now="now",
        output="o output",
        recursive="R recursive",
    ),
    "drain cordon uncordon taint": sub("l selector grace-period timeout pod-selector", force="force"),
    "scale": sub("f filename l selector replicas current-replicas resource-version timeout", all="all"),
    "exec attach": Grammar(names("c container f filename pod-running-timeout"), first=True),
    "cp": sub("c container retries"),
    "run": Grammar(
        names("image env l labels overrides override-type port restart o output f filename image-pull-policy"),
        means=means(filename="f filename"),
    ),
    "debug": sub("image c container profile target copy-to set-image env f filename custom"),
    "port-forward proxy": sub("address p port accept-hosts accept-paths reject-paths w www P www-prefix api-prefix"),
    "logs": sub("c container since since-time tail l selector max-log-requests"),
    "config": sub(),
    "auth certificate top": sub(),
}


def _kube(more: str, under: Mapping[str, Grammar]) -> Grammar:
    """kubectl and its like, which take a subcommand's options in front of it, too."""
    tool = family(sub(f"{_KUBE_GLOBAL} {more}", recursive="r R recursive", force="force"), under)
    return replace(tool, valued=tool.valued | names("o output l selector f filename k kustomize c container replicas"))


_KUBECTL = _kube("", _KUBE_SUBCOMMANDS)
_OC = _kube(
    "config loglevel",
    {**_KUBE_SUBCOMMANDS, "adm": level({"policy prune drain taint cordon": sub("l selector z serviceaccount")})},
)
_HELM = family(
    sub(
        "n namespace kube-context kubeconfig kube-apiserver kube-token kube-as-user kube-as-group kube-ca-file "
        "registry-config repository-cache repository-config burst-limit qps",
        force="force",
    ),
    {
        "install upgrade template": sub(
            "f values set set-string set-file set-json version repo timeout description username password "
            "post-renderer history-max ca-file cert-file key-file keyring",
            install="i install",
        ),
        "uninstall delete del un rollback test": sub("timeout description cascade history-max"),
        "push": sub("ca-file cert-file key-file username password"),
    },
)

_TERRAFORM = Grammar(
    valued=names(
        "var var-file target replace state state-out backup lock-timeout parallelism out config from-module "
        "backend-config plugin-dir excluded-target exclude chdir terragrunt-working-dir terragrunt-config working-dir "
        "terragrunt-source queue-include-dir queue-exclude-dir"
    ),
    means=means(auto_approve="auto-approve", json="json"),
    single_dash=True,
)
_TERRAFORM = family(
    _TERRAFORM,
    {
        "state workspace": level({"rm remove mv push pull list show replace-provider new select delete": sub()}),
    },
)
_PULUMI = family(
    sub(
        "C cwd s stack color v verbose tracing profiling t target r replace m message c config p parallel "
        "target-replace exclude plan save-plan policy-pack policy-pack-config exec-kind",
        yes="y yes",
        force="f force",
        skip_preview="f skip-preview",
        target_dependents="target-dependents",
    ),
    {"stack state config": level({"rm delete unprotect export import ls select init rename get set": sub("s stack")})},
)
_CDK = sub(
    "a app c context p plugin profile o output r role-arn i ca-bundle-path require-approval t tags", force="f force"
)

CLOUD: Mapping[str, Grammar] = MappingProxyType(
    {
        "aws": _AWS,
        "gcloud": _GCLOUD,
        "gsutil": _GSUTIL,
        "bq": _BQ,
        "az": _AZ,
        "rclone": _RCLONE,
        "azcopy": sub("from-to include-pattern exclude-pattern log-level output-type", dry_run="dry-run"),
        "kubectl": _KUBECTL,
        "oc": _OC,
        "helm": _HELM,
        "terraform": _TERRAFORM,
        "tofu": _TERRAFORM,
        "terragrunt": _TERRAFORM,
        "pulumi": _PULUMI,
        "cdk": _CDK,
    }
)
