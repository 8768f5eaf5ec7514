"""What the literal text of a credential looks like, where its issuer gave it a shape of its own.

Sources: AWS IAM unique identifiers, GitHub "token formats", Anthropic ``sk-ant-``, OpenAI ``sk-``, Stripe ``sk_live_``,
GitLab ``glpat-``, Slack ``xox?-``, npm, PyPI and Hugging Face tokens, Google ``AIza``, JWT (RFC 7519), and the shapes
of ``policies/patterns/credentials.yaml``.
"""

from __future__ import annotations

from typing import Final

from agent.expressions import expression

CREDENTIAL_WORD: Final = "<secret>"
"""What a rule writes for a word that holds one."""

TOKENS: Final = expression(
    r"(?<![A-Za-z0-9_])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|gh[pousr]_[A-Za-z0-9]{20,255}"
    r"|github_pat_[A-Za-z0-9_]{22,255}"
    r"|sk-ant-[A-Za-z0-9_-]{8,512}"
    r"|sk-(?:proj-|svcacct-)?[A-Za-z0-9_]{20,255}"
    r"|(?:sk|rk)_live_[A-Za-z0-9]{10,255}"
    r"|glpat-[A-Za-z0-9_-]{20,255}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,255}"
    r"|npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"
    r"|pypi-[A-Za-z0-9_-]{32,512}"
    r"|hf_[A-Za-z0-9]{30,255}"
    r"|[sr]k_test_[A-Za-z0-9]{16,255}"
    r"|gl(?:dt|rt|ptt|ft|agent|soat|cbt|imt)-[A-Za-z0-9_-]{20,255}"
    r"|xapp-[0-9]-[A-Z0-9]{8,14}-[A-Za-z0-9-]{10,255}"
    r"|whsec_[A-Za-z0-9+/]{32,64}"
    r"|GOCSPX-[A-Za-z0-9_-]{28}"
    r"|ya29\.[A-Za-z0-9_-]{30,2000}"
    r"|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
    r"|(?:SK|key-|dapi)[0-9a-f]{32}(?![A-Za-z0-9])"
    r"|AGE-SECRET-KEY-1[0-9A-Z]{58}"
    r"|do[opr]_v1_[0-9a-f]{64}"
    r"|dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,40}"
    r"|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"
    r"|hv[sbr]\.[A-Za-z0-9_-]{24,300}"
    r"|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,100}"
    r"|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"
    r"|AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9])"
    r"|eyJ[A-Za-z0-9_-]{10,4096}\.eyJ[A-Za-z0-9_-]{10,8192}\.[A-Za-z0-9_-]{0,2048}"
    r")"
)
"""Found anywhere in a text; linear in its length (every repetition is bounded)."""


def holds_credential(word: str) -> bool:
    """Does `word` hold the literal text of a credential?"""
    return TOKENS.search(word) is not None
