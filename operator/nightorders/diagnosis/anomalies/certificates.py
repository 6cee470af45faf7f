"""Certificates that are not accepted: over, too early, of another name, or of an authority that nobody trusts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject, Point, Vector
from ..evidence import Observation, measured, seen
from ..graph import Link, series_name
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, listed, mapping, objects, when, word
from ..references import references
from ..scene import Workload
from ..specialists.logs import Clue, Sign
from ..world import World
from .common import behind, callers, edited, found, introduced, made, pod_spec, released, saw_change, signal_about

_TLS = re.compile(r"tls|cert|ssl|pki|x509|https", re.IGNORECASE)
_TRUST = re.compile(r"(?:^|[-_./])(?:ca|cacert|truststore|trust|bundle|roots?)(?:$|[-_./])|ca-(?:cert|bundle)", re.IGNORECASE)
_EXPIRED = re.compile(
    r"expired|no longer valid|validity check failed|certificate has expired|notafter|CERT_HAS_EXPIRED|CertificateExpired", re.IGNORECASE
)
_EARLY = re.compile(r"not yet valid|notbefore|CertificateNotYetValid", re.IGNORECASE)
_NAME = re.compile(
    r"not (?:valid )?for|is valid for .{1,200}, not|doesn'?t match|does not match|hostname mismatch|no alternative|ALTNAME|IP SANs|no subject alternative",
    re.IGNORECASE,
)
_AUTHORITY = re.compile(
    r"unknown authority|self[- ]signed|unable to (?:get local issuer|verify)|unable to find valid certification path|untrusted|unknown ca|"
    r"UNABLE_TO_VERIFY|PKIX",
    re.IGNORECASE,
)
# Series whose value is the time at which a certificate ends, in seconds since 1970, and the labels that name its Secret.
_ENDS = (
    "certmanager_certificate_expiration_timestamp_seconds",
    "x509_cert_not_after",
    "probe_ssl_earliest_cert_expiry",
    "probe_ssl_last_chain_expiry_timestamp_seconds",
    "kube_secret_tls_not_after",
    "nginx_ingress_controller_ssl_expire_time_seconds",
    "ssl_cert_not_after",
)
_LATEST = 4_102_444_800.0


def certificates(world: World) -> Iterator[Candidate]:
    """By what cert-manager says, by series, and by what programs log; in this order of trust, each Secret once."""
    over = _known_ends(world)
    done: set[str] = set()
    complaints = _complaints(world)
    for end in over:
        if end.at <= world.scene.now and end.title not in done:
            done.add(end.title)
            yield _ended(world, end, complaints)
    for clue, w in complaints:
        for candidate in _from_log(world, clue, w, over):
            if candidate.object not in done:
                done.add(candidate.object)
                yield candidate


# -- what is known of a certificate's end ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    """When a certificate ends, by whose word; `title` is the object that holds it."""

    title: str
    at: datetime
    proof: Observation
    host: str = ""


def _known_ends(world: World) -> list[_End]:
    ends = [e for obj in world.scene.all("Certificate") if (e := _of_manager(world, obj)) is not None]
    vector = world.metric("series")
    if vector is not None and not vector.because:
        ends += [e for p in vector.points if (e := _of_series(world, vector, p)) is not None]
    return ends


def _of_manager(world: World, obj: KubeObject) -> _End | None:
    """A cert-manager Certificate with the end that its status tells."""
    at = when(mapping(obj.raw.get("status")).get("notAfter"))
    secret = word(mapping(obj.raw.get("spec")).get("secretName"))
    if at is None or not secret:
        return None
    condition = next((c for c in objects(mapping(obj.raw.get("status")).get("conditions")) if word(c.get("type")) == "Ready"), {})
    told = f"{obj.title} (Secret/{secret}) ends {clock(at)[3:]}; Ready {word(condition.get('status'))} {word(condition.get('reason'))}"
    return _End(f"Secret/{secret}", at, seen(world.scene.listing("Certificate"), told))


def _of_series(world: World, vector: Vector, point: Point) -> _End | None:
    name, labels = series_name(point), point.labels
    if name not in _ENDS or not 0 < point.value < _LATEST:
        return None
    namespace = labels.get("exported_namespace") or labels.get("secret_namespace") or labels.get("namespace", "")
    if namespace not in ("", world.scene.snapshot.namespace):
        return None
    at = datetime.fromtimestamp(point.value, UTC)
    secret = labels.get("secret_name") or labels.get("secret") or _secret_of(world, labels.get("exported_name") or labels.get("name", ""))
    host = (
        (labels.get("host") or labels.get("instance") or labels.get("target", "")).rpartition("://")[2].partition("/")[0].partition(":")[0]
    )
    if not secret and host:
        secret = _serving_secret(world, host)
    if not secret:
        return None
    told = f"{name}{{{listed([f'{k}={v}' for k, v in sorted(labels.items()) if k not in ('__name__', 'series')], 5)}}} = {clock(at)[3:]}"
    return _End(f"Secret/{secret}", at, measured(vector, told), host)


def _secret_of(world: World, certificate: str) -> str:
    """The Secret of a cert-manager Certificate by name; the name itself, if something here uses a Secret of that name."""
    obj = found(world.scene, "Certificate", certificate)
    if obj is not None:
        return word(mapping(obj.raw.get("spec")).get("secretName"))
    return certificate if certificate and world.graph.into.get(f"Secret/{certificate}") else ""


def _users(world: World, title: str) -> list[str]:
    """Everything that a Secret's certificate serves: what mounts it, its Services, the Ingresses that name it and their Services."""
    found_: list[str] = []
    for edge in world.graph.into.get(title, ()):
        if edge.link in (Link.READS, Link.USES):
            found_.append(edge.source)
            found_ += world.graph.sources(edge.source, Link.FRONTS)
            found_ += world.graph.targets(edge.source, Link.ROUTES)
    return list(dict.fromkeys(found_))


def _ended(world: World, end: _End, complaints: list[tuple[Clue, Workload]]) -> Candidate:
    users = _users(world, end.title)
    near = {t.rpartition("/")[2] for t in users} | ({end.host} if end.host else set())
    lines = tuple(
        c.seen for c, w in complaints if w.title in users or c.subject.lower().partition(".")[0] in near or c.subject.lower() in near
    )
    names = listed([u for u in users if not u.startswith("Service/")]) or "nothing that was looked at"
    return made(
        world,
        Category.CERTIFICATE,
        end.title,
        f"The certificate in {end.title} ended {clock(end.at)[3:]}; it serves {names}.",
        marks=(Mark("mechanism named", (end.proof,)), *((Mark("log says so", lines[:2]),) if lines else ())),
        inferred=0 if lines and users else 1,
        counterfactual=True,
        change=ChangeRef(kind="Expiry", at=end.at),
        caps=() if lines or signal_about(world, r"cert|tls|ssl|x509") else (Cap("C", "nothing that uses it complains"),),
        hits=(end.title, *users, *(w.title for c, w in complaints if c.seen in lines)),
    )


# -- what programs say ----------------------------------------------------------------------------------------------------------------------


def _complaints(world: World) -> list[tuple[Clue, Workload]]:
    return [(c, w) for w in world.workloads for c in world.clues(w.pods) if c.sign is Sign.CERTIFICATE]


def _kind(text: str) -> str:
    """What a line says is wrong with a certificate; the most telling first."""
    for kind, pattern in (
        ("expired", _EXPIRED),
        ("not yet valid", _EARLY),
        ("of another name", _NAME),
        ("of an unknown authority", _AUTHORITY),
    ):
        if pattern.search(text):
            return kind
    return "not accepted"


def _from_log(world: World, clue: Clue, w: Workload, over: list[_End]) -> Iterator[Candidate]:
    kind, host = _kind(clue.seen.text), clue.subject.lower()
    service = found(world.scene, "Service", host.partition(".")[0])
    if kind == "of an unknown authority" and (trust := _trusts(world, w, clue)) is not None:
        yield trust
        return
    secret, holder = _holder(world, w, host, service)
    hits = (w.title, *(_users(world, f"Secret/{secret}") if secret else ()), *((service.title,) if service is not None else ()))
    known = next((e for e in over if e.title == f"Secret/{secret}"), None)
    if known is not None and kind == "expired" and known.at > world.scene.now:
        return  # its end is known, and lies ahead: another certificate is meant
    who = f"the certificate of {service.title}" if service is not None else f"the certificate of {host}" if host else "a certificate"
    told = Mark("log says so", (clue.seen,))
    if secret:
        change = ChangeRef(kind="Expiry") if kind == "expired" else None
        yield made(
            world,
            Category.CERTIFICATE,
            f"Secret/{secret}",
            f"{w.title} finds {who} {kind}; {holder} has it from Secret/{secret}.",
            marks=(Mark("mechanism likely", (clue.seen,)), told, Mark("state fits", (_saw_use(world, holder, secret),))),
            inferred=1,
            change=change,
            hits=hits,
        )
        return
    fronted = behind(world, service) if service is not None else ()
    if fronted:
        yield made(
            world,
            Category.CERTIFICATE,
            fronted[0].title,
            f"{w.title} finds {who} {kind}; where {fronted[0].title} has it from is not shown.",
            marks=(told,),
            inferred=2,
            caps=(Cap("C", "which object holds the certificate is not shown"),),
            hits=hits,
        )


def _saw_use(world: World, holder: str, secret: str) -> Observation:
    return seen(world.scene.listing(holder.partition("/")[0]), f"{holder} refers to Secret/{secret}")


def _holder(world: World, w: Workload, host: str, service: KubeObject | None) -> tuple[str, str]:
    """The Secret that holds the certificate which a host shows, and who refers to it; the program's own where no host is named."""
    if service is not None:
        for owner in behind(world, service):
            if secret := _mounted(owner):
                return secret, owner.title
    for ingress in world.scene.all("Ingress"):
        for tls in objects(mapping(ingress.raw.get("spec")).get("tls")):
            given = tls.get("hosts")
            if host and isinstance(given, list) and any(isinstance(h, str) and _covers(h, host) for h in given):
                return word(tls.get("secretName")), ingress.title
    own = _mounted(w)
    if own and (not host or not callers_of(world, w, host)):
        return own, w.title
    return "", ""


def callers_of(world: World, w: Workload, host: str) -> bool:
    """Whether the workload calls a Service of that name: then the other side's certificate is meant."""
    name = host.partition(".")[0]
    return any(c.workload.title == w.title for c in callers(world, f"Service/{name}"))


def _covers(pattern: str, host: str) -> bool:
    pattern = pattern.lower()
    return pattern == host or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])


def _serving_secret(world: World, host: str) -> str:
    """The Secret behind a host that a probe asks: by an Ingress, or by the Service's workload."""
    for ingress in world.scene.all("Ingress"):
        for tls in objects(mapping(ingress.raw.get("spec")).get("tls")):
            given = tls.get("hosts")
            if isinstance(given, list) and any(isinstance(h, str) and _covers(h, host.lower()) for h in given):
                return word(tls.get("secretName"))
    parts = host.lower().split(".")
    if len(parts) > 1 and parts[1] != world.scene.snapshot.namespace:
        return ""
    service = found(world.scene, "Service", parts[0])
    return next((s for w in behind(world, service) if (s := _mounted(w))), "") if service is not None else ""


def _mounted(w: Workload) -> str:
    """The one Secret of a workload that looks like a certificate of its own; empty when none does, or several do."""
    spec = pod_spec(w)
    mounts = {
        word(m.get("name")): word(m.get("mountPath")) for c in objects(spec.get("containers")) for m in objects(c.get("volumeMounts"))
    }
    named: dict[str, bool] = {}
    for ref in references(spec):
        if ref.kind != "Secret":
            continue
        volume = ref.path.partition("volumes[")[2].partition("]")[0]
        where = f"{ref.name} {mounts.get(volume, '')} {volume} {ref.key}"
        if _TLS.search(where) and not _TRUST.search(ref.name):
            named[ref.name] = True
    return next(iter(named)) if len(named) == 1 else ""


def _trusts(world: World, w: Workload, clue: Clue) -> Candidate | None:
    """The bundle of authorities that the complaining workload reads, if it was changed."""
    for ref in references(pod_spec(w)):
        if ref.kind != "ConfigMap" or not (_TRUST.search(ref.name) or _TRUST.search(ref.key)):
            continue
        obj = found(world.scene, "ConfigMap", ref.name)
        change = edited(obj, "data") if obj is not None else None
        if obj is not None and change is not None:
            return made(
                world,
                Category.CERTIFICATE,
                obj.title,
                f"{w.title} trusts the authorities in {obj.title}, which was written {clock(change.at)}; now it refuses {clue.subject or 'a certificate'}.",
                marks=(Mark("log says so", (clue.seen,)), saw_change(world.scene, obj, change, "its data")),
                inferred=1,
                change=change,
                hits=(w.title,),
            )
        hit = introduced(world, w, lambda t, r=ref: any(x.title == r.title for x in references(mapping(t.get("spec")))))  # type: ignore[misc]
        if hit is not None:
            release, mark = released(*hit, f"{ref.path} refers to {ref.title}")
            return made(
                world,
                Category.CERTIFICATE,
                w.title,
                f"{hit[1].revision.label} of {w.title} takes its authorities from {ref.title}; now it refuses {clue.subject or 'a certificate'}.",
                marks=(Mark("log says so", (clue.seen,)), mark),
                inferred=1,
                change=release,
                hits=(w.title,),
            )
    return None
