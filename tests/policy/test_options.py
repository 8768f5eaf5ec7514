"""Options as programs read them: values, abbreviations, subcommands, what takes an option back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.options import GENERIC, GRAMMARS, Words, says, sort_words, values_of
from agent.policy.request import UNKNOWN


def read(line: str) -> Words:
    argv = line.split()
    return sort_words(tuple(argv), GRAMMARS.get(argv[0], GENERIC))


def operands(line: str) -> list[str]:
    return [word for _, word in read(line).operands]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("git -C d -c a.b=c --git-dir g push origin main", "push origin main"),
        ("git --no-pager --work-tree=w checkout -qbfeature origin/main", "checkout origin/main"),
        ("git checkout -b feature origin/main", "checkout origin/main"),
        ("git checkout --pathspec-from-f paths.txt HEAD", "checkout HEAD"),
        ("git restore -sHEAD file", "restore file"),
        ("git restore -s HEAD file", "restore file"),
        ("git stash push -m drop", "stash push"),
        ("git commit -m push", "commit"),
        ("git config --global Core.HooksPath /x", "config core.hookspath /x"),
        ("git -- push x", "push x"),
        ("aws --profile prod s3 rm s3://b/k", "s3 rm s3://b/k"),
        ("aws ec2 terminate-instances --instance-ids i-1", "ec2 terminate-instances i-1"),
        ("gcloud --project p compute instances delete vm", "compute instances delete vm"),
        ("gcloud compute --project=p instances delete vm --zone z", "compute instances delete vm"),
        ("gcloud beta compute instances delete vm", "compute instances delete vm"),
        ("az group delete -n g --yes", "group delete"),
        ("az -o json vm delete -g g", "vm delete"),
        ("kubectl -n x delete ns y", "delete ns y"),
        ("kubectl --context=c delete -l a=b pods", "delete pods"),
        ("kubectl exec -it pod -c c -- rm -rf /", "exec pod -c c -- rm -rf /"),
        ("oc --as admin delete project x", "delete project x"),
        ("helm --kube-context c -n x uninstall r", "uninstall r"),
        ("terraform -chdir=d destroy -target a.b", "destroy"),
        ("terraform state -x rm a.b", "state rm a.b"),
        ("tofu workspace delete -force x", "workspace delete x"),
        ("pulumi -C d stack rm -s dev dev", "stack rm dev"),
        ("docker --context c -H tcp://h run -v /:/host --rm alpine rm -rf /host", "run alpine rm -rf /host"),
        ("docker container rm -f x", "rm x"),
        ("podman --root r rmi -f x", "rmi x"),
        ("docker-compose -f a.yml down -v", "compose down"),
        ("docker compose -f a.yml down -v", "compose down"),
        ("psql -h h -U u -d d -c x file", "file"),
        ("mysql -u root -e x db", "db"),
        ("redis-cli -h h -n 1 FlushAll ASYNC", "flushall async"),
        ("redis-cli SET -x FLUSHALL", "set -x flushall"),
        ("npm --prefix d publish --tag next", "publish"),
        ("cargo +nightly publish", "publish"),
        ("python -m twine upload dist", "upload dist"),
        ("python -c x --flag", ""),
        ("unheard -n x delete", "x delete"),
    ],
)
def test_values_and_what_says_nothing_are_stepped_over(line: str, expected: str) -> None:
    assert operands(line) == expected.split()


@pytest.mark.parametrize(
    ("line", "option", "there"),
    [
        ("git push --forc origin", "force", True),
        ("git push --force-with-lease", "force", False),
        ("git push --force-w", "force-with-lease", True),
        ("git push -uf origin", "force", True),
        ("git push --force --no-force", "force", False),
        ("git push --no-force --force", "force", True),
        ("git push -n --no-dry-r", "dry-run", False),
        ("git push --force=true", "force", True),
        ("git clean -e f", "force", False),
        ("git clean -fdx", "force", True),
        ("git branch -D x", "force", True),
        ("git branch -d x", "force", False),
        ("git switch --discard-ch main", "force", True),
        ("git restore -SW f", "worktree", True),
        ("git restore --no-staged f", "staged", False),
        ("git restore -- --staged", "staged", False),
        ("git restore -- --staged", "double-dash", True),
        ("git checkout -- f", "double-dash", True),
        ("git checkout main --", "double-dash", False),
        ("git commit -n", "no-verify", True),
        ("git push -n", "no-verify", False),
        ("kubectl delete ns x --force=false", "force", False),
        ("kubectl delete ns x --dry-run=none", "dry-run", False),
        ("kubectl delete ns x --dry-run=client", "dry-run", True),
        ("terraform apply -auto-approve=true", "auto-approve", True),
        ("terraform apply --auto-approve", "auto-approve", True),
        ("terraform apply -auto-approve=false", "auto-approve", False),
        ("aws s3 rm s3://b --recurs", "recursive", True),
        ("docker rm -vf c", "force", True),
        ("docker run alpine rm -f x", "f", False),
        ("unheard --x=false", "x", True),
    ],
)
def test_an_option_is_there_however_it_is_spelled(line: str, option: str, there: bool) -> None:
    words = read(line)
    assert says(words.options, option, words.grammar) is there


@pytest.mark.parametrize(
    ("line", "option", "expected"),
    [
        ("docker run -v /:/host alpine", "volume", ["/:/host"]),
        ("docker run --volume=/a:/a -v=/b:/b -v/c:/c alpine", "v", ["/a:/a", "/b:/b", "/c:/c"]),
        ("kubectl scale deploy/x --replicas 0", "replicas", ["0"]),
        ("kubectl scale deploy/x --replicas=0", "replicas", ["0"]),
        ("git gc --prune=now", "prune", ["now"]),
        ("git restore --source=x --no-source f", "source", []),
        ("terraform apply -lock=false", "lock", ["false"]),
        ("unheard --x=y", "x", ["y"]),
    ],
)
def test_an_options_values(line: str, option: str, expected: list[str]) -> None:
    assert list(values_of(read(line), option)) == expected


@pytest.mark.parametrize("word", [UNKNOWN, f"-{UNKNOWN}", f"--{UNKNOWN}=x", f"-q{UNKNOWN}"])
def test_a_word_that_is_not_known_may_be_any_option(word: str) -> None:
    assert sort_words(
        (
            "git",
            "push",
            word,
        ),
        GRAMMARS["git"],
    ).uncertain


@pytest.mark.parametrize("words", [["-o", f"x{UNKNOWN}"], [f"--repo={UNKNOWN}"], [f"-ox{UNKNOWN}"]])
def test_a_value_that_is_not_known_is_no_option(words: list[str]) -> None:
    assert not sort_words(
        (
            "git",
            "push",
            *words,
        ),
        GRAMMARS["git"],
    ).uncertain


def test_a_value_may_be_no_word_or_several() -> None:
    assert sort_words(
        (
            "git",
            "push",
            "-o",
            UNKNOWN,
        ),
        GRAMMARS["git"],
    ).uncertain


_LINES = {
    "git": (["push"], [["--force"], ["-d"], ["-o", "x"], ["--repo=r"], ["origin"]]),
    "kubectl": (["delete"], [["-n", "x"], ["--all"], ["--context=c"], ["-l", "a=b"], ["pods"]]),
    "docker": (["rm"], [["-f"], ["-v"], ["--filter", "x"], ["c"]]),
    "aws": (["s3", "rm"], [["--profile", "p"], ["--recursive"], ["--region=r"], ["s3://b"]]),
    "terraform": (["destroy"], [["-auto-approve"], ["-target", "a"], ["-var-file=f"]]),
    "gcloud": (["compute", "instances", "delete"], [["-q"], ["--project", "p"], ["--zone=z"], ["vm"]]),
    "helm": (["uninstall"], [["-n", "x"], ["--kube-context=c"], ["--force"], ["r"]]),
}


@given(st.sampled_from(sorted(_LINES)).flatmap(lambda name: st.tuples(st.just(name), st.permutations(_LINES[name][1]))))
def test_the_order_of_options_behind_the_subcommand_changes_nothing(case: tuple[str, list[list[str]]]) -> None:
    program, order = case
    subcommand, given_order = _LINES[program]
    plain, shuffled = (
        sort_words(
            (
                program,
                *subcommand,
                *(word for group in groups for word in group),
            ),
            GRAMMARS[program],
        )
        for groups in (given_order, order)
    )
    assert plain.options == shuffled.options
    assert sorted(plain.values) == sorted(shuffled.values)
    assert [word for _, word in plain.operands] == [word for _, word in shuffled.operands]


@given(
    st.sampled_from(sorted(GRAMMARS)),
    st.lists(st.text("-=ab fn\0+:/", max_size=6) | st.sampled_from(["push", "rm", "--", "run", "delete"]), max_size=8),
)
def test_every_word_is_an_option_a_value_or_an_operand_and_none_is_invented(program: str, words: list[str]) -> None:
    sorted_out = sort_words(
        (
            program,
            *words,
        ),
        GRAMMARS[program],
    )
    for position, word in sorted_out.operands:
        if position:
            assert word in (words[position - 1], words[position - 1].lower())
    assert all(any(value in word for word in words) for _, value in sorted_out.values)
