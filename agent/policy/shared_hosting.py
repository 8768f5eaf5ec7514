"""Where anybody can publish or listen: domains below which a wildcard allows strangers.

Facts of public sources: the providers' own documentation of the names they hand out, and the private section of the
Public Suffix List (publicsuffix.org), which lists most of them for the same reason. Not complete, and cannot be.

Rules kept here: a wildcard at, above or below such a domain counts; an exact host only where its paths are handed out
to anybody (`DROPS`).
"""

from __future__ import annotations

from typing import Final

from agent.policy.globs import match_segment
from agent.policy.hosts import covers_pattern
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Shared:
    """`suffix`: the domain below which names are handed out. `what`: what anybody can do there."""

    suffix: str
    what: str


_PAGES: Final = "anybody can publish a site there"
_APPS: Final = "anybody can run a server there that listens"
_BUCKETS: Final = "anybody can have a bucket there and read what is uploaded to it"
_TUNNELS: Final = "anybody can tunnel it to a machine of their own"
_EDGE: Final = "anybody can put it in front of a server of their own"
_USERS: Final = "anybody can publish files there"

_TABLE: Final = {
    _PAGES: (
        "blogspot.com",
        "bitbucket.io",
        "gitbook.io",
        "github.io",
        "gitlab.io",
        "neocities.org",
        "netlify.app",
        "netlify.com",
        "notion.site",
        "pages.dev",
        "readthedocs.io",
        "sourceforge.io",
        "surge.sh",
        "tumblr.com",
        "webflow.io",
        "wixsite.com",
        "wordpress.com",
    ),
    _APPS: (
        "app.cloud.gov",
        "appspot.com",
        "azurecontainerapps.io",
        "azurewebsites.net",
        "cloudapp.azure.com",
        "cloudapp.net",
        "cloudfunctions.net",
        "csb.app",
        "deno.dev",
        "elasticbeanstalk.com",
        "execute-api.amazonaws.com",
        "firebaseapp.com",
        "firebaseio.com",
        "fly.dev",
        "gitpod.io",
        "glitch.me",
        "hasura.app",
        "herokuapp.com",
        "hf.space",
        "lambda-url.on.aws",
        "modal.run",
        "now.sh",
        "on.aws",
        "ondigitalocean.app",
        "onrender.com",
        "pipedream.net",
        "railway.app",
        "repl.co",
        "replit.app",
        "replit.dev",
        "run.app",
        "stackblitz.io",
        "streamlit.app",
        "supabase.co",
        "up.railway.app",
        "vercel.app",
        "web.app",
        "webcontainer.io",
        "workers.dev",
    ),
    _BUCKETS: (
        "amazonaws.com",
        "aliyuncs.com",
        "backblazeb2.com",
        "blob.core.windows.net",
        "digitaloceanspaces.com",
        "linodeobjects.com",
        "myqcloud.com",
        "r2.cloudflarestorage.com",
        "r2.dev",
        "scw.cloud",
        "storage.googleapis.com",
        "core.windows.net",
        "wasabisys.com",
        "web.core.windows.net",
    ),
    _TUNNELS: (
        "app.github.dev",
        "devtunnels.ms",
        "github.dev",
        "localhost.run",
        "localtunnel.me",
        "loca.lt",
        "ngrok-free.app",
        "ngrok-free.dev",
        "ngrok.app",
        "ngrok.dev",
        "ngrok.io",
        "serveo.net",
        "trycloudflare.com",
        "ts.net",
        "tunnelmole.net",
    ),
    _EDGE: (
        "akamaized.net",
        "azureedge.net",
        "azurefd.net",
        "cloudfront.net",
        "edgekey.net",
        "fastly.net",
        "fastlylb.net",
        "global.ssl.fastly.net",
        "trafficmanager.net",
        "b-cdn.net",
    ),
    _USERS: ("githubusercontent.com", "googleusercontent.com", "usercontent.goog"),
}

SHARED: Final = tuple(Shared(suffix, what) for what, suffixes in _TABLE.items() for suffix in sorted(suffixes))


_PATHS: Final = {
    "anybody can have a bucket in its paths and read what is uploaded to it": (
        "s3.amazonaws.com",
        "s3.*.amazonaws.com",
        "s3-*.amazonaws.com",
        "storage.cloud.google.com",
        "storage.googleapis.com",
    ),
    "anybody can publish and receive texts and files there": (
        "0x0.st",
        "bashupload.com",
        "dpaste.com",
        "file.io",
        "gist.github.com",
        "hastebin.com",
        "paste.rs",
        "pastebin.com",
        "rentry.co",
        "termbin.com",
        "transfer.sh",
    ),
    "anybody can have a mailbox in its paths and read what is sent to it": (
        "api.telegram.org",
        "discord.com",
        "discordapp.com",
        "hooks.slack.com",
        "hooks.zapier.com",
        "maker.ifttt.com",
        "ntfy.sh",
        "requestbin.com",
        "webhook.site",
    ),
}

DROPS: Final = tuple(Shared(glob, what) for what, globs in _PATHS.items() for glob in globs)
"""Exact hosts (globs) whose paths belong to whoever asks for one."""


def shared_host(pattern: str) -> Shared | None:
    """The entry for an exact host whose paths are handed out to anybody."""
    return next((entry for entry in DROPS if "*" not in pattern and match_segment(entry.suffix, pattern)), None)


def shared_suffix(pattern: str) -> Shared | None:
    """The most telling shared domain that a wildcard takes in, None for exact hosts and other domains."""
    if not pattern.startswith("*."):
        return None
    taken = [entry for entry in SHARED if covers_pattern(pattern, f"*.{entry.suffix}")]
    inside = [entry for entry in SHARED if covers_pattern(f"*.{entry.suffix}", pattern)]
    return max((*taken, *inside), key=lambda entry: len(entry.suffix), default=None)
