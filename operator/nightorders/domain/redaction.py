"""Takes secrets out of text before it is stored, shown, digested or sent anywhere.

Two kinds of rule: a *name* that promises a secret (password=…, "token": …, Authorization: …) and a *shape* that is one (a JWT, a
cloud key, a private key, long base64). Both err on the side of hiding: a needless "[redacted]" costs a look with kubectl, a leaked
password costs more. The run time is bounded: lines are cut to 2,000 characters and texts to 256 KiB first, every repetition in the
patterns has an upper bound, and none of them nests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

MARK = "[redacted]"
LINE_LIMIT = 2000
TOTAL_LIMIT = 1 << 18
_TAIL = 200

# What a name ends in or contains, with what may follow: DB_PASSWORD, x-api-key, "clientSecret", SECRET_KEY_BASE. What stands before
# it in the name is kept anyway, so it is not matched (that alone keeps the run time flat).
_NAME = (
    r"(?:pass(?:word|wd|phrase|code)|(?<![a-z])pass(?![a-z])|pwd|secret(?!s?[_-]?(?:name|ref|key[_-]?ref))|token|api[_-]?key|"
    r"access[_-]?key|(?:private|signing|encryption|account|shared|master|secret)[_-]?key|credential|(?<![a-z])auth(?![a-z])|"
    r"authorization|cookie|session[_-]?id|signature|(?<![a-z])dsn|connection[_-]?string|database[_-]?url|"
    r"(?<![a-z])(?:sig|otp|pin|sas)(?![a-z]))[\w.-]{0,32}"
)
# These carry several words, so everything up to the end of the line goes.
_REST = r"(?:authorization|cookie|connection[_-]?string|passphrase)"
_IS = r"\\?[\"']?\s{0,4}(?:=>|:=|[:=])\s{0,4}"
_DONE = r"(?!\s{0,4}\[redacted\])"

_Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_FIRST = r"\1" + MARK


def _long_run(match: re.Match[str]) -> str:
    """Base64 and hex of 40 characters or more, except what names an image: `sha256:<64 hex>`, `repo/name:<git commit>`."""
    before = match.string[max(0, match.start() - 160) : match.start()]
    run = match.group(0)
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", run) and re.search(r"sha256:$|[\w.-]{1,80}/[\w.-]{1,80}:$", before):
        return run
    return MARK if _looks_random(run) else run


def _after_flag(match: re.Match[str]) -> str:
    """`--db-password x`, but not `the password x`: what counts is how the word begins that ends in the name."""
    before = match.string[max(0, match.start() - 40) : match.start()]
    return match.group(1) + MARK if re.search(r"(?:^|\s)--?[\w-]*$", before) else match.group(0)


def _looks_random(run: str) -> bool:
    """A path or a long word has one case and no digit, or many slashes; encoded bytes have more than one class of character."""
    if run.count("/") * 12 > len(run):
        return False
    return sum(bool(re.search(c, run)) for c in ("[0-9]", "[a-z]", "[A-Z]")) >= 2 or len(set(run)) > 24


_RULES: tuple[_Rule, ...] = (
    # JSON Web Tokens and similar tokens of several parts (also with the signature cut off).
    (re.compile(r"\beyJ[\w-]{6,1900}(?:\.[\w-]{2,1900}){0,4}"), MARK),
    # Userinfo in URLs: postgres://user:pass@host, https://token@host. The host stays, it is often the point of the message.
    (re.compile(r"(://)[^\s/@:\"']{0,200}:[^\s\"']{1,500}@(?!sha256:)"), _FIRST + "@"),
    (re.compile(r"(://)" + _DONE + r"[^\s/@\"']{1,500}@"), _FIRST + "@"),
    # user:password@tcp(host:3306)/db, as Go's MySQL driver writes it.
    (re.compile(r"[\w.-]{1,64}:[^\s@\"']{1,200}@(?=(?:tcp|unix)\()"), MARK + "@"),
    (re.compile(rf"({_REST}{_IS}){_DONE}[^\r\n]{{1,1999}}", re.IGNORECASE), _FIRST),
    (re.compile(rf"(\b(?:bearer|basic|digest|negotiate)\s{{1,4}}){_DONE}[\w.~+/=:-]{{6,1999}}", re.IGNORECASE), _FIRST),
    # A line of YAML or of an ini file: password: correct horse battery staple
    (re.compile(rf"(^\s{{0,40}}(?:- )?[\w.-]{{0,64}}?{_NAME}\s{{0,4}}[:=]\s{{1,4}}){_DONE}[^\"'].{{0,1999}}$", re.IGNORECASE), _FIRST),
    # "password": "a \" b", password='…', PASSWORD=…, "pin": 1234
    (re.compile(rf'({_NAME}{_IS})\\?"{_DONE}(?:[^"\\]|\\.){{0,1900}}\\?"?', re.IGNORECASE), _FIRST),
    (re.compile(rf"({_NAME}{_IS})'{_DONE}[^']{{0,1999}}'?", re.IGNORECASE), _FIRST),
    (re.compile(rf"({_NAME}{_IS}){_DONE}[^\s\"'&][^\s&]{{0,1999}}", re.IGNORECASE), _FIRST),
    # --password x, -token x; curl -u user:pass; mysql -pSecret
    (re.compile(rf"({_NAME}\s{{1,4}}){_DONE}[^\s-][^\s]{{0,1999}}", re.IGNORECASE), _after_flag),
    (re.compile(rf"((?:^|\s)-u\s{{0,4}}){_DONE}[^\s:]{{1,100}}:[^\s]{{1,300}}"), _FIRST),
    (re.compile(rf"(\bmysql(?:dump|admin)?\b.{{0,200}}?\s-p){_DONE}[^\s]{{1,200}}"), _FIRST),
    # "the password is hunter2", "login code 123456": few digits, so that their digest would give them away (threats.md 23).
    (
        re.compile(
            rf"(\b(?:password|passphrase|passcode|secret|token)\s{{1,4}}(?:is|was)\s{{1,4}}){_DONE}"
            r"(?!not\b|required\b|missing\b|invalid\b|empty\b|too\b)[^\s,;]{1,300}",
            re.IGNORECASE,
        ),
        _FIRST,
    ),
    (
        re.compile(
            r"(\b(?:otp|pin|(?:one-time|verification|login|security|auth|access|reset|2fa|mfa)[ _-]{1,2}(?:code|pin|password|passcode))\b"
            r"[^\d\n]{0,20})\d{4,10}\b",
            re.IGNORECASE,
        ),
        _FIRST,
    ),
    # Keys that are known by their prefix.
    (re.compile(r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ABIA|ACCA)[A-Z0-9]{12,20}\b"), MARK),
    (re.compile(r"\bAIza[\w-]{30,45}"), MARK),
    (re.compile(r"\bya29\.[\w.-]{10,400}"), MARK),
    (re.compile(r"\b(?:gh[pousr]_\w{16,255}|github_pat_\w{16,255}|gl(?:pat|dt|rt|cbt|ptt|oas)-[\w-]{16,100})"), MARK),
    (re.compile(r"\bxox[a-z]-[\w-]{8,255}|\bxapp-[\w-]{8,255}"), MARK),
    (re.compile(r"(https://hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/+-]{8,255}"), _FIRST),
    (re.compile(r"\b(?:sk|pk|rk|whsec)[_-][\w-]{16,255}"), MARK),
    (re.compile(r"\bSG\.[\w-]{10,64}\.[\w-]{10,100}"), MARK),
    (re.compile(r"\b(?:npm_|pypi-|dckr_pat_|hvs\.|hvb\.|shpat_|dop_v1_|AGE-SECRET-KEY-1)[\w-]{16,400}"), MARK),
    (re.compile(r"\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{40,60}|\$(?:argon2\w{1,3}|scrypt|[156y])\$[^\s\"']{10,300}"), MARK),
    # People.
    (re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[a-zA-Z0-9-]{1,63}\.){1,8}[a-zA-Z]{2,24}\b"), MARK),
    # Encoded bytes of 40 characters or more, in both alphabets.
    (re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{40,1999}={0,2}"), _long_run),
    (re.compile(r"(?<![\w-])(?=[\w-]{0,60}[A-Z])(?=[\w-]{0,60}[0-9])[\w-]{40,1999}={0,2}"), MARK),
)

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


def redact(text: str) -> str:
    """`text` without secrets. Lines end up at most 2,000 characters long. Redacting twice changes nothing more."""
    return "\n".join(_line(line) for line in _without_private_keys(_cut(line) for line in _cut_total(text).split("\n")))


def _cut_total(text: str) -> str:
    return text if len(text) <= TOTAL_LIMIT else text[:TOTAL_LIMIT].rpartition("\n")[0] or text[: LINE_LIMIT + 1]


def _cut(line: str) -> str:
    """A cut may fall inside a secret and leave too little of it to be recognised, so the last unfinished word goes too."""
    if len(line) <= LINE_LIMIT:
        return line
    kept = line[: LINE_LIMIT - 1]
    head, tail = kept[:-_TAIL], kept[-_TAIL:]
    return head + (tail.rpartition(" ")[0] if " " in tail else "") + "…"


def _without_private_keys(lines: Iterator[str]) -> Iterator[str]:
    """Key blocks become one mark, on one line or over many; a block that never ends hides the rest."""
    inside = False
    for line in lines:
        out = ""
        while line or not out:
            mark = (_KEY_END if inside else _KEY_BEGIN).search(line)
            if mark is None:
                out += "" if inside else line
                break
            out += "" if inside else line[: mark.start()] + MARK
            line, inside = line[mark.end() :], not inside
        if out or not inside:
            yield out


@lru_cache(maxsize=4096)  # the same Events and messages come in every look, and this is most of what a diagnosis costs
def _line(line: str) -> str:
    if len(line) < 4:
        return line
    for pattern, replacement in _RULES:
        line = pattern.sub(replacement, line)
    return line
