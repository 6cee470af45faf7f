"""Planted secrets must not come through; what a diagnosis needs must."""

from __future__ import annotations

import time

import pytest

from nightorders.diagnosis.evidence import safe
from nightorders.domain.redaction import LINE_LIMIT, MARK, redact

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\nshort+tail\n-----END RSA PRIVATE KEY-----"

# (kind, text with the secret planted, the secret)
PLANTED = (
    ("key=value", "login with password=hunter2 now", "hunter2"),
    ("environment", "DB_PASSWORD=s3cr3t!x", "s3cr3t!x"),
    ("environment with punctuation", "POSTGRES_PASSWORD=a,b;c}d", "b;c}d"),
    ("export", "export MYSQL_PWD='p w'", "p w"),
    ("JSON", '{"user": "bob", "password": "hu\\"nter2", "x": 1}', "nter2"),
    ("JSON number", '{"pin": 4711, "x": 1}', "4711"),
    ("JSON in a JSON text", '{"body": "{\\"token\\":\\"abc-def\\"}"}', "abc-def"),
    ("YAML", "  password: correct horse battery staple", "battery"),
    ("YAML list", "- clientSecret: abc def", "def"),
    ("ini", "api_key = zzz-yyy-xxx", "zzz-yyy"),
    ("flag", "app --db-password hunter2 --verbose", "hunter2"),
    ("flag with =", "app --token=hunter2", "hunter2"),
    ("curl user", "curl -u admin:hunter2 https://x", "hunter2"),
    ("mysql -p", "mysql -h db -u root -phunter2 shop", "hunter2"),
    ("URL userinfo", "postgres://shop:hunter2@db:5432/shop", "hunter2"),
    ("URL password with a slash", "redis://:hun/ter2@redis:6379", "ter2"),
    ("URL token only", "https://abcdef123@git.example/x.git", "abcdef123"),
    ("URL query", "GET /x?access_token=hunter2&page=2", "hunter2"),
    ("presigned URL", "https://s3/x?X-Amz-Signature=deadbeef1234&y=1", "deadbeef1234"),
    ("MySQL DSN", "root:hunter2@tcp(db:3306)/shop", "hunter2"),
    ("ODBC connection string", "ConnectionString: Server=db;Database=x;Uid=a;Pwd=hunter2;", "hunter2"),
    ("bearer header", "Authorization: Bearer abcdef.ghijkl", "ghijkl"),
    ("basic header", "authorization: Basic YWRtaW46aHVudGVyMg==", "YWRtaW46"),
    ("bearer in prose", "sent bearer abcdefgh12345", "abcdefgh12345"),
    ("cookie", "Cookie: a=1; session=hunter2", "hunter2"),
    ("x-api-key header", "x-api-key: hunter2hunter2", "hunter2"),
    ("JWT", "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl ok", "eyJzdWIi"),
    ("JWT cut off", "got eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJz", "eyJhbGci"),
    ("AWS access key", "using AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    ("AWS secret key", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtn"),
    ("GCP API key", "key AIzaSyA1234567890abcdefghijklmnopqrstuv", "AIzaSyA123"),
    ("GCP token", "ya29.a0AfH6SMBx-abc_defghij", "AfH6SMBx"),
    ("GitHub token", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijkl"),
    ("GitHub fine-grained", "github_pat_11ABCDEFG0abcdefghijkl_mnop", "11ABCDEFG0"),
    ("GitLab token", "glpat-abcdefghijklmnopqrst", "abcdefghijkl"),
    ("Slack token", "xoxb-123456789-abcdefghij", "123456789"),
    ("Slack webhook", "https://hooks.slack.com/services/T000/B000/XXXXYYYY", "XXXXYYYY"),
    ("Stripe key", "sk_live_abcdefghijklmnop1234", "abcdefghijkl"),
    ("SendGrid key", "SG.abcdefghijklmnop.qrstuvwxyz0123", "qrstuvwxyz"),
    ("npm token", "npm_abcdefghijklmnopqrstuvwxyz012345", "abcdefghijkl"),
    ("Vault token", "hvs.CAESIabcdefghijklmnop", "CAESIabcdef"),
    ("bcrypt", "$2b$12$abcdefghijklmnopqrstuvABCDEFGHIJKLMNOPQRSTUVWXYZ01234", "ABCDEFGHIJ"),
    ("e-mail address", "mail to alice.smith+x@shop.example.com failed", "alice.smith"),
    ("private key block", f"before\n{PEM}\nafter", "short+tail"),
    ("private key on one line", PEM.replace("\n", "\\n"), "MIIEow"),
    ("private key that never ends", PEM.rpartition("\n")[0], "short+tail"),
    ("base64", "data: " + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2w=", "QUJDREVG"),
    ("base64url", "x=" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVl-YWVphYmNkZWZn_aGlqa2w", "QUJDREVG"),
    ("hex key", "seed 8f3a9b2c1d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8", "8f3a9b2c"),
    ("password is", "the password is hunter2", "hunter2"),
    ("login code", "your login code is 123456", "123456"),
    ("one-time password", "OTP: 987654", "987654"),
)

# What kubelet and runtimes say must stay readable, or there is nothing left to show.
KEPT = (
    'secret "db-creds" not found',
    "couldn't find key PASSWORD in Secret shop/db",
    'configmap "checkout-v2" not found',
    "dial tcp: lookup db.shop.svc.cluster.local: no such host",
    "connect ECONNREFUSED 10.0.0.1:5432",
    "image registry.example/shop/checkout@sha256:" + "ab12" * 16,
    "image ghcr.io/acme/checkout:" + "0a1b2c3d" * 5,
    "/usr/local/lib/python3.11/site-packages/checkout/database/connections/pool.py",
    "0/3 nodes are available: 3 Insufficient cpu.",
    "exit code 137 (OOMKilled)",
    'exec: "serve-fast": executable file not found in $PATH',
)


@pytest.mark.threat(23)
@pytest.mark.promise(7)
@pytest.mark.parametrize(("kind", "text", "secret"), PLANTED, ids=[p[0] for p in PLANTED])
def test_planted_secret_is_gone(kind: str, text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redact(text), kind
    assert MARK in redact(text)
    assert secret not in safe(f"prefix\n{text}")


@pytest.mark.parametrize("text", KEPT)
def test_what_a_diagnosis_needs_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", [p[1] for p in PLANTED] + list(KEPT))
def test_twice_is_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.threat(23)
@pytest.mark.promise(7)
def test_a_cut_leaves_no_half_secret() -> None:
    """The cut at 2,000 characters may leave 30 characters of a token, which no longer look like one."""
    for offset in range(60):
        line = "x " * ((LINE_LIMIT - offset) // 2) + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2w= " * 3
        assert "QUJD" not in redact(line)
    assert len(redact("word " * 10_000)) <= LINE_LIMIT


@pytest.mark.threat(24)
@pytest.mark.parametrize(
    "unit",
    [
        "a.a.",
        "password",
        "eyJ.",
        "://",
        "a@",
        "x-",
        "mysql ",
        "passpass=:'\"\\",
        'token: \\"',
        "A1",
        "[redacted]",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_hostile_megabytes_take_bounded_time(unit: str) -> None:
    one_line = unit * (10_000_000 // len(unit))
    lines = (unit * (1900 // len(unit)) + "\n") * 600
    for text in (one_line, lines):
        start = time.process_time()
        redact(text)
        assert time.process_time() - start < 10
