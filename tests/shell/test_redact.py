"""Credentials leave the text; ordinary text stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.shell.redact import REDACTED, redact, redact_argv

GITHUB = "ghp_" + "a1B2" * 9
ANTHROPIC = "sk-ant-api03-" + "x_Y-9" * 8
AWS = "AKIA" + "QWERTYUIOPASDFGH"
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"git clone https://x:{GITHUB}@github.com/a/b", f"git clone https://x:{REDACTED}@github.com/a/b"),
        ("curl https://bob:hunter2@db.example/", f"curl https://bob:{REDACTED}@db.example/"),
        (f"export K={ANTHROPIC}", f"export K={REDACTED}"),
        (f"aws configure set aws_access_key_id {AWS}", f"aws configure set aws_access_key_id {REDACTED}"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUt/K7 aws s3 ls", f"AWS_SECRET_ACCESS_KEY={REDACTED} aws s3 ls"),
        ("mysql --password=hunter2 db", f"mysql --password={REDACTED} db"),
        ("mysql --password hunter2 db", f"mysql --password {REDACTED} db"),
        ("login --token 'a b' x", f"login --token '{REDACTED}' x"),
        ("curl -H 'Authorization: Bearer abc.def' u", f"curl -H 'Authorization: Bearer {REDACTED}' u"),
        ("curl -H 'x-api-key: abc' u", f"curl -H 'x-api-key: {REDACTED}' u"),
        ("curl -u bob:hunter2 u", f"curl -u bob:{REDACTED} u"),
        ('{"password": "hunter2", "a": 1}', f'{{"password": "{REDACTED}", "a": 1}}'),
        ("sshpass -p hunter2 ssh h", f"sshpass -p {REDACTED} ssh h"),
        ("t hvs." + "a1" * 14, f"t {REDACTED}"),
        ("t dckr_pat_" + "a1" * 14, f"t {REDACTED}"),
        ("t shpat_" + "a1" * 16, f"t {REDACTED}"),
        ("t sk_test_" + "a1" * 10, f"t {REDACTED}"),
        ("sshpass -phunter2 ssh h", f"sshpass -p{REDACTED} ssh h"),
        ("curl -ubob:hunter2 u", f"curl -ubob:{REDACTED} u"),
        ("curl --user='bob:hunter two' u", f"curl --user=bob:{REDACTED} u"),
        ("curl --user 'bob:hunter two' u", f"curl --user 'bob:{REDACTED}' u"),
        ("curl -b session=abc u", f"curl -b {REDACTED} u"),
        ("a; sudo mysql -u root -phunter2 db | b", f"a; sudo mysql -u root -p{REDACTED} db | b"),
        ("mysqldump -p'hunter 2' db", f"mysqldump -p{REDACTED} db"),
        ("PGPASSWORD=hunter2 psql", f"PGPASSWORD={REDACTED} psql"),
        ("MYSQL_PWD=hunter2 mysql", f"MYSQL_PWD={REDACTED} mysql"),
        ("redis-cli -a hunter2 ping", f"redis-cli -a {REDACTED} ping"),
        ("docker login -u me -p hunter2 h", f"docker login -u me -p {REDACTED} h"),
        ("az login -u me -p hunter2", f"az login -u me -p {REDACTED}"),
        ("ldapsearch -x -w hunter2", f"ldapsearch -x -w {REDACTED}"),
        ("openssl enc -passin pass:hunter2", f"openssl enc -passin pass:{REDACTED}"),
        ("smbclient -U me%hunter2 //h/s", f"smbclient -U me%{REDACTED} //h/s"),
        ("unzip -P hunter2 a.zip", f"unzip -P {REDACTED} a.zip"),
        ("7z x -phunter2 a.7z", f"7z x -p{REDACTED} a.7z"),
        ("aws configure set aws_secret_access_key abc", f"aws configure set aws_secret_access_key {REDACTED}"),
        ("wget --http-password hunter2 u", f"wget --http-password {REDACTED} u"),
        ("vault login s.abcdefgh", f"vault login {REDACTED}"),
        (f"echo '{PEM}' > k", f"echo '{REDACTED}' > k"),
        ("x -----BEGIN RSA PRIVATE KEY-----\nabc", f"x {REDACTED}"),
        ("t eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig_n-ature end", f"t {REDACTED} end"),
    ],
)
def test_a_credential_is_replaced_and_its_surroundings_stay(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "rm -rf /",
        "git commit -m 'rotate the token: it expired'",
        "python train.py --max_tokens=100 --tokenizer=bert",
        "mysql --password=$DB_PASSWORD db",
        'mysql --password "$DB_PASSWORD" db',
        "docker run -u 1000:1000 img",
        "docker run -p 8080:80 -u 1000:1000 img",
        "mysql -p db",
        'mysql -p"$PW" db',
        "curl -u $ME:$PW u",
        "ssh -p 22 h; mkdir -p a; cp -p a b; tar -k x",
        "grep -w word; sort -k 2; git log -p -u a:b",
        "unzip -l a.zip; OLDPWD=/x PWD=/y ls",
        'curl -H "Authorization: Bearer $TOKEN" https://api.example/v1',
        "ssh://git@github.com/a/b.git",
        "https://pypi.org/simple/requests/",
        "grep -rn password src/",
        "cat --token-file=/run/x",
        "the password is in the vault",
        "sk-learn and risk-based and task-runner",
        "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
    ],
)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert redact(text) == text


def test_the_word_after_a_password_option_is_a_password() -> None:
    assert redact_argv(["mysql", "--password", "hunter2", "db"]) == ["mysql", "--password", REDACTED, "db"]
    assert redact_argv(["/usr/bin/mysql", "-phunter2"]) == ["/usr/bin/mysql", f"-p{REDACTED}"]
    assert redact_argv(["sudo", "curl", "-u", "a:b"]) == ["sudo", "curl", "-u", f"a:{REDACTED}"]
    assert redact_argv(["tool", "--token", "--verbose"]) == ["tool", "--token", "--verbose"]


@given(st.text(max_size=300))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80), st.sampled_from([GITHUB, ANTHROPIC, AWS]))
def test_a_token_between_spaces_never_survives(text: str, token: str) -> None:
    assert token not in redact(f"{text} {token} {text}")


@pytest.mark.parametrize(
    "unit",
    ["password=", 'password="', "eyJ", "://a:", "-----BEGIN RSA PRIVATE KEY-----", "--token ", "sk-ant-", "bearer "],
)
def test_long_repetitions_of_half_a_credential_come_to_an_end(unit: str) -> None:
    assert isinstance(redact(unit * 20_000), str)
