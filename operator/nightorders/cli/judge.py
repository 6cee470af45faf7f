"""`nightorders judge`: a human's judgement, as the annotation that kubectl could write as well."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from ..api.meta import JUDGE_PREFIX
from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import Incident
from ..domain import opinions
from ..ports import ConflictError, ForbiddenError, PortError
from .answer import key_of
from .errors import explained, refused, usage, words
from .session import Session

CAUSE = re.compile(r"[A-Z][A-Za-z0-9]*(/[A-Za-z0-9][A-Za-z0-9.:_-]*){1,2}")


def text_of(incident: Incident, *, right: bool, cause: str, category: str, because: str) -> str:
    """The annotation's text. Raises CommandError for anything that says nothing, or two things at once.

    `--right` is written out as what stands first, so that it stays true if another explanation comes first before it is recorded.
    """
    name = incident.metadata.name
    if right == bool(cause or category):
        raise usage(f"write one of: nightorders judge {name} --right, or: nightorders judge {name} --cause Kind/name --category C")
    top = opinions.first(incident.status)
    if top is None:
        raise refused(f"nothing to judge yet: Incident {name} is not diagnosed")
    if right and top.category is Category.UNKNOWN:
        raise refused(f"no origin is shown on Incident {name}, so there is nothing to be right about; say --cause Kind/name --category C")
    if right:
        if not CAUSE.fullmatch(top.object):  # a name that no annotation can carry
            return opinions.text("", "", because)
        cause, category = top.object, top.category.value
    if not cause or not category:
        raise usage(
            f"{'--category' if cause else '--cause'} is missing: the cause is an object and a mechanism, --cause Kind/name --category C"
        )
    if not CAUSE.fullmatch(cause):
        raise usage(f"--cause {cause!r} is no object: write Kind/name, or Kind/namespace/name for one elsewhere")
    if category not in set(Category):
        near = get_close_matches(category, [str(c) for c in Category], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise usage(f"there is no category {category!r}{hint}; known: {', '.join(Category)}")
    if len(because) > opinions.BECAUSE_LIMIT:
        raise usage(f"--because has {len(because)} characters; at most {opinions.BECAUSE_LIMIT} are kept")
    return opinions.text(cause, category, because)


def verdict(incident: Incident, text: str, username: str) -> str:
    """What it comes to, in words."""
    said = opinions.read(f"{text}|{username}")
    top = opinions.first(incident.status)
    assert isinstance(said, opinions.Said), "text_of writes what can be read"
    assert top is not None, "text_of asks for it"
    right = not said.cause or (said.category is top.category and opinions.same_object(said.cause, top.object, incident.metadata.namespace))
    return f"right: {top.title}" if right else f"wrong: it was {said.category} {said.cause}, not {top.title} (grade {top.grade})"


def free_key(annotations: Mapping[str, str], username: str) -> str:
    """The user's own key behind the slash, or one that nobody has."""
    base = key_of(username)
    for n in range(100):
        key = base if n == 0 else f"{base[:58].rstrip('-._')}-{n + 1}"
        held = annotations.get(JUDGE_PREFIX + key)
        if held is None or held.partition("|")[2] == username:
            return key
    raise refused("a hundred keys with your name hold somebody else's judgements; look at: kubectl get incident -o yaml")


async def judge(session: Session, incident: Incident, text: str, username: str) -> dict[str, str | None]:
    """Writes it. Returns the annotation."""
    values: dict[str, str | None] = {JUDGE_PREFIX + free_key(incident.metadata.annotations, username): f"{text}|{username}"}
    name, namespace = incident.metadata.name, incident.metadata.namespace
    try:
        await session.person.annotate(incident, values)
    except ConflictError:
        raise refused(f"not judged: Incident {name} was deleted and made anew since it was read") from None
    except ForbiddenError as error:
        said = words(error)
        if error.policy:
            said = said.removeprefix(f"ValidatingAdmissionPolicy {error.policy}: ")
            raise refused(f"not judged: the admission policy {error.policy} refuses: {said}") from None
        raise refused(
            f"not judged: {said}. A RoleBinding of {username} to ClusterRole nightorders-approver or nightorders-incident-author in "
            f"namespace {namespace} would allow it; who may grant it: a cluster admin"
        ) from None
    except PortError as error:
        raise explained(error, "write the judgement (it is not known to be written)") from None
    return values
