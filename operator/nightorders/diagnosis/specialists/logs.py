"""The logs specialist: which logs are worth a query, and what their lines may mean.

A log line is text that anybody may have written. It can name a setting, an argument or a host; whether that means anything is judged
against what the snapshot holds. It never picks an object, and what it orders is ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from ...domain.snapshot import LogExcerpt, LogKey
from ..evidence import Observation, logged
from ..findings import CrashFinding, Finding, Trouble
from ..read import mapping, word
from ..views import Pod

MOST_LOGS = 8
MOST_FAILING = 4
MOST_CLUES = 40
_LINES = 500
_TEMPLATES = 120
_WIDTH = 500
_JSON_WIDTH = 8000


class Sign(Enum):
    """What a log line seems to say. `Clue.subject` is what it is about, as each line here says."""

    SETTING = "a setting is missing or wrong"  # its name
    ARGUMENT = "an argument is not understood"  # the argument, without dashes
    HOST = "a host cannot be reached"  # host name or address, without port
    NAME = "a name cannot be resolved"  # the host name
    CREDENTIALS = "a login is refused"  # the host or the user, where it is named
    FORBIDDEN = "an API call is forbidden"  # system:serviceaccount:NAMESPACE:NAME, else the resource
    CERTIFICATE = "a certificate is not accepted"  # the host, where it is named
    POOL = "connections are used up"  # the host or the pool, where it is named
    DISK = "a disk is full"  # the path, where it is named
    MEMORY = "memory is used up"  # empty
    UPSTREAM = "another service answers with errors"  # its host
    FILE = "a file is missing or cannot be read"  # the path
    EXCEPTION = "the program fails"  # empty


@dataclass(frozen=True)
class Clue:
    """One telling line. `subject` is the name in it: a setting, an argument, a host, a path; empty for a mere failure."""

    sign: Sign
    subject: str
    seen: Observation


@dataclass(frozen=True)
class LogReport:
    """Clues of one container's logs. `read`: lines were there to be read; `refused`: those that could not be had."""

    clues: tuple[Clue, ...]
    read: bool
    refused: tuple[LogExcerpt, ...]

    def named(self, *signs: Sign) -> tuple[Clue, ...]:
        return tuple(c for c in self.clues if c.sign in signs and c.subject)

    def of(self, *signs: Sign) -> tuple[Clue, ...]:
        """Clues of these signs, whether or not they name anything."""
        return tuple(c for c in self.clues if c.sign in signs)


# -- lines ----------------------------------------------------------------------------------------------------------------------------

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]{0,20}[ -/]?[@-~]|[@-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ufffd]+")
_SAYS = ("msg", "message", "log", "text", "event", "title")
_WHY = ("error", "err", "exception", "reason", "cause", "detail", "stack", "stack_trace", "exc_info")
_WHERE = ("url", "uri", "upstream", "host", "hostname", "addr", "address", "target", "peer", "server", "endpoint", "service_name")
_GRAVE = frozenset({"error", "fatal", "critical", "panic", "err", "severe", "50", "60"})
_MASKS = (
    (re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F-]{20,30}"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,\d]{0,12}(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b"), "<address>"),
    (re.compile(r"\b(?:0x)?(?=[0-9a-fA-F]{0,40}\d)[0-9a-fA-F]{7,64}\b"), "<id>"),
    (re.compile(r"\d+(?:\.\d+)?"), "<n>"),
)


def plain(line: str) -> str:
    """A line as one reads it: without colours and control characters; of a JSON line its message and its error. At most 500 characters."""
    cut = line[:_JSON_WIDTH]
    if cut.lstrip()[:1] == "{" and (told := _from_json(cut)):
        cut = told
    return " ".join(_CONTROL.sub(" ", _ANSI.sub("", cut[: 2 * _WIDTH])).split())[:_WIDTH]


def _from_json(line: str) -> str:
    """Message and error of a structured line; empty for what is none."""
    try:
        fields = mapping(json.loads(line))
    except (ValueError, RecursionError):
        return ""
    by_name = {k.lower().lstrip("@"): v for k, v in fields.items()}
    said = next((t for k in _SAYS if (t := word(by_name.get(k)))), "")
    why = [t for k in _WHY if (t := _reason(by_name.get(k)))]
    told = ": ".join(dict.fromkeys(t[:_WIDTH] for t in (said, *why) if t))
    grave = bool(why) or any(str(by_name.get(k)).lower() in _GRAVE for k in ("level", "severity", "loglevel", "lvl"))
    where = [f"{k}={t}" for k in _WHERE if grave and (t := word(by_name.get(k))[:120])]
    return " ".join((told, *where[:2])) if told else ""


def _reason(value: object) -> str:
    """An error's text: itself, or that of its message field."""
    return word(value) or next((t for k in ("message", "msg", "reason", "type") if (t := word(mapping(value).get(k)))), "")


def template(line: str) -> str:
    """The line with times, addresses, ids and numbers masked, so that repetitions look alike."""
    for pattern, mask in _MASKS:
        line = pattern.sub(mask, line)
    return line


def distinct(log: LogExcerpt) -> tuple[str, ...]:
    """The readable lines of a log, each template once, as it was written last, in the order of these last ones."""
    found: dict[str, str] = {}
    for raw in log.lines[-_LINES:]:
        if line := plain(raw):
            key = template(line)
            found.pop(key, None)
            found[key] = line
    return tuple(found.values())[-_TEMPLATES:]


# -- what lines may mean --------------------------------------------------------------------------------------------------------------

_NAME = r"['\"`]?([A-Za-z_][A-Za-z0-9_.-]{1,80})['\"`]?"
# A host has a letter: a bare number is a code, a port or a duration.
_H = r"(?=[a-z0-9.-]{0,120}[a-z])[a-z0-9](?:[a-z0-9.-]{0,119}[a-z0-9])?|\d{1,3}(?:\.\d{1,3}){3}"
_HOST = rf"['\"`(\[]{{0,2}}({_H})"
_PORT = r"(?::\d{1,5})?"
_URL = rf"(?:[a-z][a-z0-9+.]{{1,20}}:){{0,2}}//(?:[^\s/@'\"]{{0,100}}@)?({_H})"
_THING = r"(?:env(?:ironment)?(?:\s(?:variable|var))?|setting|config(?:uration)?(?:\s(?:key|value|option))?|key|property|parameter)s?"
_LACKS = r"(?:not\s(?:set|defined|found|specified|provided)|required|missing|undefined|unset|empty|be\sset)"
_WRONG = r"(?:unknown|unrecogni[sz]ed|invalid|undefined|bad)"
_FAILS = r"(?:refused|timed? ?out|unreachable|failed|no route|not be established|reset by peer)"
_REFUSES = r"(?:refused|timed? ?out|unreachable|cannot (?:reach|connect)|could not (?:reach|connect)|failed to connect|can't connect)"
_PATH = r"(/[\w./@+-]{1,120})"


@dataclass(frozen=True)
class _Rule:
    """A sign is there where `telling` matches; the subject is its group, else the first that one of `subjects` finds in the line."""

    sign: Sign
    telling: re.Pattern[str]
    subjects: tuple[re.Pattern[str], ...]

    def read(self, line: str) -> str | None:
        match = self.telling.search(line)
        if match is None:
            return None
        named = next((g for g in match.groups() if g), "")
        for pattern in self.subjects if not named else ():
            if found := pattern.search(line):
                named = next((g for g in found.groups() if g), "")
                break
        return named.strip(".")


def _sign(sign: Sign, telling: str, *subjects: str, case: int = re.IGNORECASE) -> _Rule:
    return _Rule(sign, re.compile(telling, case), tuple(re.compile(s, re.IGNORECASE) for s in subjects))


_HOSTS = (
    _URL,
    rf"host=['\"]{_HOST}['\"]",
    rf"(?:server|host|node|broker|addr(?:ess)?|endpoint)s?(?: (?:at|on|name)\s|[:=]\s?|\s(?=['\"])){_HOST}{_PORT}",
    rf"\b({_H}):\d{{2,5}}\b",
)

# The first that matches gives a line its meaning. Every repetition is bounded: a line may be as hostile as it likes.
_RULES: tuple[_Rule, ...] = (
    # Kubernetes and cloud APIs
    _sign(
        Sign.FORBIDDEN,
        r"user \\?\"?(system:serviceaccount:[a-z0-9.-]{1,63}:[a-z0-9.-]{1,253})\\?\"? cannot [a-z]{2,20} (?:resource|path)",
    ),
    _sign(
        Sign.FORBIDDEN,
        r"([a-z0-9.-]{2,80}) is forbidden: user|is not authorized to perform:? ([a-z0-9:*-]{3,80})|rbac: access denied|"
        r"requires? ['\"]?([a-z0-9.]{3,80})['\"]? permission",
    ),
    # Certificates
    _sign(
        Sign.CERTIFICATE,
        r"x509:|certificate (?:verify failed|has expired|is not (?:yet )?valid|is valid for|signed by unknown|required|unknown|chain)|"
        r"(?:expired|invalid|bad|self[- ]signed|untrusted) certificate|CERT_HAS_EXPIRED|SELF_SIGNED_CERT|UNABLE_TO_VERIFY_LEAF|"
        r"ERR_TLS_CERT_ALTNAME|PKIX path|SSLHandshakeException|certificate.{0,40}(?:expired|revoked|not trusted)|"
        r"remote certificate is invalid|RemoteCertificate(?:NameMismatch|ChainErrors)|UntrustedRoot|CertificateExpired|"
        r"(?:unable to verify|verify) the first certificate|hostname mismatch|tls: (?:bad certificate|failed to verify)",
        rf"certificate is valid for [^\n]{{1,200}}, not {_HOST}",
        rf"host: {_HOST}\. is not",
        *_HOSTS,
    ),
    # Connections used up, before logins: both speak of connections and of users.
    _sign(
        Sign.POOL,
        r"remaining connection slots|too many (?:clients|connections|open connections)|max(?:imum)? number of clients reached|"
        r"(HikariPool-\d{1,3}|[\w-]{1,40}Pool(?:-\d{1,3})?) - connection is not available|QueuePool limit|no more connections allowed|"
        r"(?:connection )?pool (?:is |was )?(?:probably )?(?:exhausted|full|timeout|timed out|depleted|closed by timeout)|"
        r"timed? ?out (?:while )?(?:waiting for|acquiring|getting|obtaining) (?:a |an )?(?:open |free |idle )?connection|"
        r"timeout (?:while )?(?:acquiring|waiting for|obtaining) (?:a |an )?(?:idle |free )?connection|"
        r"(?:could not (?:get|obtain)|unable to (?:get|acquire|obtain)|cannot get) (?:a |an )?(?:connection|resource) from (?:the )?pool|"
        r"obtaining a connection from the pool|ConnectionTimeoutError|max_connections|max_client_conn|ER_CON_COUNT_ERROR|"
        r"pool timed out while waiting|no (?:free|available|idle) connections?\b",
        *_HOSTS,
    ),
    _sign(
        Sign.CREDENTIALS,
        r"(?:password|sasl|scram|peer|ident|ldap|md5)? ?authentication failed|access denied for user|no pg_hba\.conf entry|"
        r"role ['\"]?[\w.-]{1,63}['\"]? does not exist|login failed for user|WRONGPASS|NOAUTH|ERR invalid (?:user)?name?-?password|"
        r"invalid (?:username|user name|user|credentials?|password|login|api[- ]?key|access key|token)\b|ORA-01017|ACCESS_REFUSED|"
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AuthenticationException|AuthenticationError|SaslAuthentication|"
        r"(?:status(?: code)?|returned|response|got|answered)[ :=]{1,3}\(?401\b|401 unauthorized|unauthenticated|"
        r"client sent AUTH, but no password|bad credentials|incorrect (?:user ?name|password)",
        r"user(?:name)?(?:[=:]\s?['\"`]?|\s['\"`\\]{1,2})([\w.-]{1,63})",
        r"role ['\"]?([\w.-]{1,63})['\"]? does not exist",
        *_HOSTS,
    ),
    # Room
    _sign(
        Sign.DISK,
        r"no space left on device|disk quota exceeded|ENOSPC|errno 28|(?:disk|filesystem|volume|partition) (?:is |usage )?(?:full|exceeded)|"
        r"could not extend file|not enough (?:free )?(?:disk )?space|flood[- ]stage (?:disk )?watermark|"
        r"MISCONF Redis is configured to save|insufficient disk space|out of disk space|database or disk is full",
        rf"(?:write|mkdir|open|create|file|extend|path|to|on|at|in)[ :'\"=]{{1,4}}{_PATH}",
        _PATH,
    ),
    _sign(
        Sign.MEMORY,
        r"OutOfMemory(?:Error|Exception)|heap out of memory|\bMemoryError\b|cannot allocate memory|out of memory|std::bad_alloc|"
        r"OOM command not allowed|GC overhead limit|NoMemoryError|memory (?:limit|exhausted)|failed to allocate \d|java heap space",
    ),
    # Names
    _sign(
        Sign.NAME,
        rf"\blookup {_HOST}(?: on [0-9a-f.:\[\]]{{3,60}})?: (?:no such host|server misbehaving|i/o timeout|temporary failure|"
        r"dial |read |no answer|unrecognized)",
    ),
    _sign(Sign.NAME, rf"(?:ENOTFOUND|EAI_AGAIN|EAI_NONAME|EAI_NODATA)\s{{1,2}}{_HOST}"),
    _sign(
        Sign.NAME,
        r"(?:could not|couldn't|can't|cannot|unable to|failed to) (?:resolve|translate|look ?up|find(?= [^\s:]{1,120}: NXDOMAIN))(?: the)?"
        rf"(?: (?:host ?name|host|name|address|server|domain|dns name))?(?: of)?:?\s{{0,2}}(?!placeholder\b|module\b|symbol\b){_HOST}",
    ),
    _sign(
        Sign.NAME,
        rf"(?:UnknownHostException|unknown host|bad address|host not found in upstream|nxdomain for|NXDOMAIN looking up):?\s{{0,2}}{_HOST}",
    ),
    _sign(
        Sign.NAME,
        rf"{_HOST} could not be (?:resolved|found)|{_HOST}['\"]?: (?:nxdomain|name or service not known|name does not resolve|"
        r"temporary failure in name resolution|unknown host)",
    ),
    _sign(
        Sign.NAME,
        r"no such host|name or service not known|nodename nor servname|temporary failure in name resolution|name resolution|NXDOMAIN|"
        r"getaddrinfo (?:failed|error)|gaierror|name does not resolve|dns (?:lookup|resolution) (?:failed|error|timeout)|host not found|"
        r"resolv(?:e|ing|ution).{0,30}(?:failed|timed out)|SERVFAIL",
        r"no such host is known\.? \(([a-z0-9.-]{2,120})",
        *_HOSTS,
    ),
    # A dead end of a connection
    _sign(Sign.HOST, rf"(?:ECONNREFUSED|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ECONNRESET)\s{_HOST}"),
    _sign(
        Sign.HOST,
        rf"(?:HTTPS?ConnectionPool\(host=){_HOST}['\"], port=\d{{1,5}}\).{{0,400}}(?:refused|timed? ?out|unreachable|max retries)",
    ),
    _sign(Sign.HOST, rf"server running on host {_HOST}"),
    _sign(Sign.HOST, rf"server selection (?:error|timeout|timed out)[^\n]{{0,200}}?addr: {_HOST}:\d"),
    _sign(
        Sign.UPSTREAM,
        r"no live upstreams|upstream prematurely closed|upstream (?:sent|returned|answered|responded)|no healthy upstream|"
        r"(?:502 bad gateway|503 service unavailable|504 gateway time-?out)|"
        r"(?:status(?: code)?|returned|answered|responded(?: with)?|got|received|http(?:/\d\.\d)?)[ :=]{1,3}['\"(]?(?:http )?5\d\d\b.{0,60}"
        r"\b(?:from|for|by|calling|at|on|to)\b|"
        r"\b(?:from|calling|call to|request to|upstream|downstream|by)\s['\"]?(?:https?://)?[a-z0-9.-]{2,80}[^\n]{0,60}?"
        r"(?:status(?: code)?|returned|answered|responded(?: with)?|failed with|got|error)[ :=]{1,3}['\"(]?(?:http )?5\d\d\b|"
        r"code = (?:unavailable|internal|unknown) desc = (?!connection error)(?!.{0,80}(?:dial|connect))",
        _URL,
        rf"(?:from|calling|call to|request to|for url|by|upstream[: ]{{1,2}})\s?['\"]?(?:[a-z]{{2,8}}://)?({_H})",
        *_HOSTS,
    ),
    _sign(
        Sign.UPSTREAM,
        rf"\b({_H}) (?:has )?(?:answered|answers|returned|returns|replied|responded)(?: with)?:? (?:http )?(?:status )?5\d\d\b",
    ),
    _sign(
        Sign.HOST,
        r"upstream connect error|connect\(\) failed \(\d{1,4}: .{3,60}\) while connecting to upstream|"
        r"upstream timed out \(\d{1,4}: .{3,60}\) while",
        rf"upstream: \"?{_URL}",
        *_HOSTS,
    ),
    _sign(
        Sign.HOST,
        rf"(?:connection )?to (?:the )?(?:\w{{1,12}} )?(?:server|host|broker|node|database)?\s?(?:-?\d{{1,6}} )?(?:at|on)?\s?['\"(]{{0,2}}({_H})"
        rf"(?:['\"/:),;][^\n]{{0,80}}?)?,? ?(?:port \d{{1,5}} )?(?:\([^)]{{1,40}}\) )?{_FAILS}",
    ),
    _sign(
        Sign.HOST,
        rf"(?:connect(?:ion|ing)?|dial tcp|dialing|reach)\s(?:to\s)?(?:server\s(?:at|on)\s)?{_HOST}{_PORT}[^\n]{{0,80}}?{_FAILS}",
    ),
    _sign(Sign.HOST, rf"{_REFUSES}[^\n]{{0,60}}?(?:://|\s|\(|['\"])(?:[\w.-]{{1,60}}@)?({_H}):\d{{1,5}}"),
    _sign(Sign.HOST, rf"{_REFUSES} (?:to |\w{{1,12}} )?(?:the )?(?:\w{{1,12}} )?(?:server|host|broker|database)? ?(?:at|on) {_HOST}"),
    _sign(
        Sign.HOST,
        rf"\b({_H}):\d{{2,5}}\b['\"]? ?(?:-|is|:)? ?(?:no response|not (?:yet )?(?:available|reachable|ready|up)|unreachable|unavailable)",
    ),
    _sign(
        Sign.HOST,
        rf"wait(?:ing|ed)? (?:\d{{1,5}} ?s(?:econds)? )?for (?:service |host |server |tcp |tcp://|http://)?({_H})(?::\d{{2,5}}|\.svc)",
    ),
    _sign(Sign.HOST, rf"wait(?:ing|ed)? for (?:service|host|server|database) ['\"]?({_H})"),
    _sign(
        Sign.HOST,
        r"connection (?:was )?(?:refused|reset|closed|lost|aborted|forcibly closed)|(?:lost|broken|dropped|stale) connection|ECONNRESET|"
        r"broken pipe|server has gone away|closed the connection unexpectedly|communications link failure|i/o timeout|no route to host|"
        r"network is unreachable|connect(?:ion)? timed out|MongoNetworkError|server selection (?:error|timed out)|"
        r"run out of available brokers|AMQPConnectionError|missed heartbeat|heartbeat timeout|channel (?:was |is )?closed|socket hang up",
        *_HOSTS,
    ),
    # What the program was told to do
    _sign(Sign.SETTING, r"KeyError: ['\"]([A-Za-z_][A-Za-z0-9_.-]{1,80})['\"]|key not found: ['\"]([A-Za-z_][A-Za-z0-9_.-]{1,80})['\"]"),
    _sign(Sign.SETTING, r"could not resolve placeholder ['\"]([A-Za-z_][A-Za-z0-9_.-]{1,80})(?::[^'\"]{0,60})?['\"]"),
    _sign(Sign.SETTING, rf"required key {_NAME} missing value|environ\[['\"]?([A-Za-z_]\w{{1,80}})|process\.env\.([A-Za-z_]\w{{1,80}})"),
    _sign(Sign.SETTING, rf"(?:required|missing|undefined|unset|empty|invalid)\s{{1,3}}(?:required\s)?{_THING}:?\s{{0,3}}{_NAME}"),
    _sign(
        Sign.SETTING,
        rf"{_THING}:?\s{{1,3}}{_NAME}\s{{1,3}}(?:is\s|was\s|must\s|has\s)?(?:not|required|missing|undefined|unset|empty|invalid|be\sset)",
    ),
    _sign(
        Sign.SETTING,
        r"\b([A-Z][A-Z0-9]{1,40}(?:_[A-Z0-9]{1,40}){0,6})['\"]?(?:\senv(?:ironment)?\s(?:variable|var))?\s(?:is\s|was\s|must\s)?" + _LACKS,
        case=0,
    ),
    _sign(
        Sign.SETTING, r"invalid (?:value|port|url|duration|number|boolean)[^\n]{0,80}?\b(?:for|of|in) ['\"]?([A-Za-z_][A-Za-z0-9_.-]{1,80})"
    ),
    _sign(
        Sign.SETTING,
        r"(?:cannot|can't|could not|failed to|unable to|error) (?:parse|pars(?:ing)|convert|bind|decode|read|load)(?:ing)? (?:the )?"
        r"(?:value (?:of|for) |env(?:ironment)? (?:variable )?|setting |property |config(?:uration)? (?:key )?)?['\"`]?"
        r"([A-Z][A-Z0-9]{1,40}(?:_[A-Z0-9]{1,40}){1,6}|[a-z][\w-]{1,40}(?:\.[\w-]{1,40}){1,6})['\"`]?(?![\w./])",
    ),
    _sign(
        Sign.SETTING,
        r"\b([A-Z][A-Z0-9]{1,40}(?:_[A-Z0-9]{1,40}){1,6})\s?[:=]\s?.{0,60}?(?:invalid|not a valid|unsupported|malformed|out of range)",
        case=0,
    ),
    _sign(
        Sign.ARGUMENT,
        rf"{_WRONG}\s(?:command(?:-line)?\s|shorthand\s|cli\s)?(?:flag|option|argument|command|subcommand)s?:?\s{{0,3}}"
        r"['\"`]?-{0,2}([A-Za-z0-9][\w.-]{0,80})",
    ),
    _sign(
        Sign.ARGUMENT,
        r"(?:flag provided but not defined|bad option|no such option|unexpected argument):\s{0,3}['\"`]?-{0,2}([A-Za-z0-9][\w.-]{0,80})",
    ),
    _sign(Sign.ARGUMENT, r"could not find or load main class ([\w.$]{1,120})|no module named ['\"]?([\w.]{1,120})"),
    _sign(Sign.ARGUMENT, r"(?:^|: |\s)([\w./-]{1,80}): (?:command not found|not found|executable file not found)"),
    _sign(Sign.FILE, rf"cannot find module ['\"]?{_PATH}|unable to access jarfile\s{{1,2}}['\"]?(\S{{1,120}})"),
    _sign(
        Sign.FILE, rf"(?:no such file or directory|FileNotFoundError|ENOENT|cannot open|can't open|permission denied)[^\n/]{{0,60}}{_PATH}"
    ),
    _sign(Sign.FILE, rf"{_PATH}['\"]?:? (?:no such file or directory|permission denied|not found|does not exist|cannot be read)"),
    _sign(
        Sign.FILE,
        r"(?:(?:error|failed|cannot|can't|could not|unable|invalid)[^\n/]{0,60}(?:pars|load|read|open|decod|config|syntax|json|yaml|toml)"
        rf"[^\n/]{{0,60}}|(?:unknown directive|unexpected|invalid (?:parameter|number|value))[^\n/]{{0,80}} in ){_PATH}",
    ),
    _sign(
        Sign.SETTING,
        r"(?:yaml: |json: |toml: )(?:line|unmarshal|invalid|cannot|did not)|invalid literal for int|strconv\.\w{3,12}: parsing|NumberFormatException|"
        r"time: (?:invalid|missing unit)|failed to bind properties|validation error for \w*settings|invalid (?:log ?level|configuration|config)\b|"
        r"configuration (?:error|is invalid)|(?:cannot|could not|failed to|unable to) (?:parse|load) (?:the )?config",
    ),
    # The program itself
    _sign(Sign.EXCEPTION, r"^(?:panic:|fatal|Traceback|Exception in thread|Unhandled|Segmentation fault|thread '.{0,40}' panicked)"),
    _sign(
        Sign.EXCEPTION,
        r"\b(?:segmentation fault|core dumped|uncaught exception|unhandled (?:exception|rejection|promise)|nil pointer dereference|panic:|"
        r"exec format error|stack overflow|index out of range|assertion failed|illegal instruction|deadlock (?:detected|found))\b",
    ),
    _sign(
        Sign.EXCEPTION,
        r"\b(?:NullPointerException|NullReferenceException|IllegalStateException|IllegalArgumentException|IndexOutOfBoundsException|"
        r"ClassCastException|ClassNotFoundException|NoSuchMethodError|NoClassDefFoundError|UnsatisfiedLinkError|TypeError|AttributeError|"
        r"IndexError|ValueError|ReferenceError|SyntaxError|ImportError|ZeroDivisionError|NoMethodError|NameError|ArgumentError|"
        r"InvalidOperationException|undefined method|is not a function|cannot read propert(?:y|ies) of (?:undefined|null)|"
        r"(?:column|relation|table) \S{1,80} does not exist|unknown column|no such (?:column|table))\b",
    ),
    _sign(
        Sign.EXCEPTION, r"\b500 internal server error\b|internal server error|handler (?:failed|crashed|panicked)|template: .{1,80} error"
    ),
)
# Of many clues, those that say most about an origin come first; a mere failure last.
_TELLING = {sign: i for i, sign in enumerate(Sign)}


# Every rule needs one of these (in lower case), or a status of 5xx: most lines of a healthy program have none and cost nothing.
_STEMS = (
    "error", "fail", "refus", "time", "unreach", "forbidden", "authoriz", "permission", "denied", "access", "cert", "x509", "pkix", "ssl",
    "tls:", "slots", "too many", "max", "pool", "connect", "password", "auth", "login", "role ", "noauth", "wrongpass", "invalid", "ora-",
    "signature", "credential", "401", "space", "quota", "enospc", "errno", "disk", "extend", "watermark", "misconf", "memory", "alloc",
    "heap", "oom", "lookup", "look up", "resol", "enotfound", "eai_", "translat", "can't", "cannot", "could not", "couldn't", "unable",
    "unknown", "bad ", "not ", "nxdomain", "no such", "name", "gaierror", "servfail", "econn", "ehost", "enet", "upstream", "unavailable",
    "wait", "lost", "broken", "gone", "closed", "brokers", "heartbeat", "hang up", "key", "placeholder", "environ", "process.env", "must",
    "required", "missing", "unde", "unset", "empty", "pars", "malformed", "unsupported", "out of range", "unrecogni", "unexpected", "option",
    "module", "main class", "jarfile", "enoent", "open", "exist", "yaml", "json", "toml", "strconv", "numberformat", "config", "panic",
    "fatal", "traceback", "exception", "unhandled", "segmentation", "dumped", "uncaught", "nil pointer", "exec ", "overflow", "index",
    "assert", "illegal", "deadlock", "column", "no response", "stale", "dropped", "addr: ", "healthy", "no live", "no free", "no idle",
    "code = ", "socket",
)  # fmt: skip
_STATUS = re.compile(r"5\d\d")


@lru_cache(maxsize=8192)
def clue_in(line: str) -> tuple[Sign, str] | None:
    """What one readable line seems to say: sign and subject; None for a line that says nothing of the kind."""
    lower = line.lower()
    if not any(stem in lower for stem in _STEMS) and not _STATUS.search(lower):
        return None
    for rule in _RULES:
        if (subject := rule.read(line)) is not None:
            return rule.sign, subject
    return None


def clues_of(logs: Mapping[LogKey, LogExcerpt], pods: frozenset[str]) -> tuple[Clue, ...]:
    """The clues in all logs of these pods, by name; each (sign, subject) once, as it was written last. At most 40."""
    mine = (x for k, x in sorted(logs.items(), key=lambda kv: (kv[0].pod, kv[0].container, not kv[0].previous)) if k.pod in pods)
    return _once(mine)


def read_logs(logs: Mapping[LogKey, LogExcerpt], finding: Finding) -> LogReport:
    """The logs of a finding's pods and container."""
    names = {p.name for p in finding.pods}
    mine = [
        x
        for k, x in sorted(logs.items(), key=lambda kv: (kv[0].pod, kv[0].container, kv[0].previous))
        if k.pod in names and k.container == finding.container
    ]
    return LogReport(
        clues=_once(mine),
        read=any(not x.because and any(text.strip() for text in x.lines) for x in mine),
        refused=tuple(x for x in mine if x.because),
    )


def _once(logs: Iterable[LogExcerpt]) -> tuple[Clue, ...]:
    """Each (sign, subject) once, named ones before unnamed ones of the same log; if there are too many, the most telling."""
    found = {(c.sign, c.subject): c for log in logs if not log.because for c in _clues(log)}
    if len(found) <= MOST_CLUES:
        return tuple(found.values())
    return tuple(sorted(found.values(), key=lambda c: (not c.subject, _TELLING[c.sign]))[:MOST_CLUES])


def _clues(log: LogExcerpt) -> Iterator[Clue]:
    for line in distinct(log):
        if (told := clue_in(line)) is not None:
            yield Clue(*told, logged(log, line))


def last_line(logs: Mapping[LogKey, LogExcerpt], finding: Finding) -> Observation | None:
    """The last line that the container wrote, for people."""
    names = {p.name for p in finding.pods}
    for key, log in sorted(logs.items(), key=lambda kv: (kv[0].pod, not kv[0].previous)):
        if key.pod in names and key.container == finding.container and not log.because:
            for text in reversed(log.lines):
                if line := plain(text):
                    return logged(log, line)
    return None


_LISTENS = re.compile(
    r"(?:listening|serving|server started|started|running|bound|accepting connections|now listening)"
    r"(?:\s(?:on|at|http|https|grpc|server|web|requests|tcp|port(?:\(s\))?|address|[a-z0-9+]{1,5}://|[\w.\[\]*]{0,40}:)){1,4}[\s:=(]{0,3}"
    r"(?:[\w.\[\]*:]{0,40}[: ])?(?:port )?(\d{2,5})\b(?!\.)",
    re.IGNORECASE,
)
_STARTED = re.compile(
    r"(?:started|ready|initiali[sz]ed|up)\b[^\n]{0,60}?\b(?:in|after|took)\s(\d{1,5}(?:\.\d{1,6})?)\s?(ms|s\b|sec|m\b|min)", re.IGNORECASE
)


def listening(logs: Iterable[LogExcerpt]) -> dict[int, Observation]:
    """Ports that the program says it opened, with the line that says so."""
    found: dict[int, Observation] = {}
    for log in logs:
        for line in distinct(log) if not log.because else ():
            if match := _LISTENS.search(line):
                found[int(match.group(1))] = logged(log, line)
    return found


def start_time(logs: Iterable[LogExcerpt]) -> tuple[float, Observation] | None:
    """How many seconds the program says its start took, with the line: the longest; None where it does not say."""
    best: tuple[float, Observation] | None = None
    for log in logs:
        for line in distinct(log) if not log.because else ():
            if match := _STARTED.search(line):
                seconds = float(match.group(1)) * {"ms": 0.001, "m": 60.0, "min": 60.0}.get(match.group(2).lower(), 1.0)
                if best is None or seconds > best[0]:
                    best = (seconds, logged(log, line))
    return best


# -- which logs -----------------------------------------------------------------------------------------------------------------------

# Those whose log says why, the gravest first. (An image or an object that is missing leaves no log.)
_ORDER = (Trouble.CRASH, Trouble.PROBE, Trouble.NOT_READY, Trouble.STARTING)


def wanted(findings: Iterable[Finding], ready: Iterable[Pod] = ()) -> tuple[LogKey, ...]:
    """One pod per (revision, node, reason); its present and its previous run; crashes before what merely is not ready.

    `ready`: pods that serve, of workloads that the signal is about though nothing of them fails: of each owner one, every container that
    ran. At most four of the failing, eight in all.
    """
    groups: dict[tuple[str, str, str, str], tuple[Finding, Pod]] = {}
    told = [f for f in findings if f.trouble in _ORDER and f.container]
    for finding in sorted(told, key=lambda f: _ORDER.index(f.trouble)):
        for pod in sorted(finding.pods, key=lambda p: p.name):
            groups.setdefault((finding.revision.uid, pod.node, finding.reason, finding.container), (finding, pod))
    # First the present run of different groups' pods, then what is left: previous runs. Both of the first group always.
    keys = list(dict.fromkeys(key for finding, pod in groups.values() for key in _keys(finding, pod)))[:MOST_FAILING]
    serving: dict[str, Pod] = {}
    for pod in sorted(ready, key=lambda p: p.name):
        if pod.ready and not pod.done:
            serving.setdefault(pod.owner_uid or pod.uid, pod)
    keys += [LogKey(p.name, c.name) for p in serving.values() for c in p.containers if not c.init and c.ever_ran]
    return tuple(dict.fromkeys(keys))[:MOST_LOGS]


def _keys(finding: Finding, pod: Pod) -> tuple[LogKey, ...]:
    container = next((c for c in pod.containers if c.name == finding.container), None)
    if container is None or not (container.ever_ran or finding.trouble in (Trouble.CRASH, Trouble.PROBE)):
        return ()
    if isinstance(finding, CrashFinding) and finding.run is not None and finding.run.never_started:
        return ()
    present, previous = LogKey(pod.name, container.name), LogKey(pod.name, container.name, previous=True)
    if container.restarts == 0:
        return (present,)
    return (previous, present) if container.running else (present, previous)
