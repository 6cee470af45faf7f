"""`stop` and `resume`: the ConfigMap that is the stop, or `spec.suspend` of one Incident. What kubectl would do is printed with it."""

from __future__ import annotations

from collections.abc import Sequence

from ..api.meta import STOP_CONFIGMAP
from ..api.v1alpha1.incident import Incident
from ..ports import AlreadyExistsError, ConflictError, ForbiddenError, NotFoundError, PortError
from . import paste
from .errors import CommandError, explained, refused, words
from .session import Session

NO_UNDO = {"undo": "Deny"}
Argv = tuple[str, ...]


async def stop(session: Session, namespace: str, *, no_undo: bool) -> tuple[str, Argv]:
    """Stops that namespace (the operator's: everything). Returns what was done, and kubectl's way."""
    data = NO_UNDO if no_undo else {}
    literal = ("--from-literal=undo=Deny",) if no_undo else ()
    argv = ("kubectl", "create", "configmap", STOP_CONFIGMAP, "-n", namespace, *literal)
    try:
        await session.person.stop(namespace, data)
    except AlreadyExistsError:
        if not no_undo:
            return f"a stop was in force in namespace {namespace} already", argv
        patch = ("kubectl", "patch", "configmap", STOP_CONFIGMAP, "-n", namespace, "--type=merge", '--patch={"data":{"undo":"Deny"}}')
        try:
            await session.person.change_stop(namespace, data)
        except PortError as error:
            raise _explained(error, "forbid undos in the stop that is in force") from None
        return f"a stop was in force in namespace {namespace} already; from now on not even an undo passes", patch
    except PortError as error:
        raise _explained(error, f"stop namespace {namespace}") from None
    undo = "not even an undo passes" if no_undo else "a running execution may still be undone"
    return f"stopped in namespace {namespace}: nothing new starts, {undo}", argv


async def resume(session: Session, namespace: str) -> tuple[str, Argv]:
    """Lifts that stop."""
    argv = ("kubectl", "delete", "configmap", STOP_CONFIGMAP, "-n", namespace)
    try:
        await session.person.resume(namespace)
    except NotFoundError:
        raise refused(f"no stop is in force in namespace {namespace}") from None
    except PortError as error:
        raise _explained(error, f"lift the stop of namespace {namespace}") from None
    return f"resumed in namespace {namespace}", argv


async def suspend(session: Session, incident: Incident, *, suspended: bool) -> tuple[str, Argv]:
    """Suspends one Incident, or lets it go on."""
    name, namespace = incident.metadata.name, incident.metadata.namespace
    patch = f'--patch={{"spec":{{"suspend":{str(suspended).lower()}}}}}'
    argv = ("kubectl", "patch", "incident", name, "-n", namespace, "--type=merge", patch)
    if incident.spec.suspend is suspended:
        if suspended:
            return f"Incident {name} was suspended already", argv
        raise refused(f"Incident {name} is not suspended; a stop of the namespace is lifted with: nightorders resume -n {namespace}")
    try:
        await session.person.suspend(incident, suspended)
    except ConflictError:
        raise refused(f"nothing was done: Incident {name} was deleted and made anew since it was read; try again") from None
    except PortError as error:
        raise _explained(error, f"{'suspend' if suspended else 'resume'} Incident {name}") from None
    if suspended:
        return f"suspended Incident {name}: nothing new starts here; a running execution is still verified and, if needed, undone", argv
    return f"resumed Incident {name}", argv


def kubectl(argv: Argv, flags: Sequence[str]) -> str:
    """The command to paste; the patch is our own and gets quoted, every name must be plain."""
    own = tuple(a for a in argv if a.startswith("--patch="))
    return paste.command([a for a in argv if a not in own], (*own, *flags))


def annotated(incident: str, namespace: str, notes: Sequence[str], flags: Sequence[str]) -> str:
    """`kubectl annotate` with these annotations; usernames get quoted."""
    return paste.command(("kubectl", "annotate", "incident", incident, "-n", namespace), (*notes, *flags))


def _explained(error: PortError, doing: str) -> CommandError:
    if isinstance(error, ForbiddenError):
        said = words(error).removeprefix(f"ValidatingAdmissionPolicy {error.policy}: ") if error.policy else words(error)
        return refused(f"not done, cannot {doing}: {said}")
    return explained(error, doing)
