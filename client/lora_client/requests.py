"""One-shot requests to a LoRADeployment: which revision a request is about when nobody says, or why it makes no sense. Pure.

promote, promote-full, pause, resume, abort ─► the candidate's
retry                                       ─► the revision that was given up, or is held
rollback-to                                 ─► what served before; during a rollout what serves now
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_client.deployment import Deployment, Revision, Version
from lora_client.errors import Refused, not_found
from lora_client.names import Verb

__all__ = ["default_revision", "parse_revisions", "request_patch"]


def request_patch(verb: Verb, *, revision: str, nonce: str) -> dict[str, Any]:
    """The merge patch that makes a request. The nonce makes a second one new, the revision makes a replay harmless."""
    return {"metadata": {"annotations": {verb.annotation: f"{revision}/{nonce}"}}}


def default_revision(verb: Verb, deployment: Deployment, *, revisions: Sequence[Revision] = ()) -> str:
    """The revision that a person means.

    Raises:
        Refused: the request has no object now; says what the deployment is doing.
    """
    if verb is Verb.ROLLBACK_TO:
        return _earlier(deployment, revisions)
    if verb is Verb.RETRY:
        found = str(deployment.abort.get("revision") or "") or deployment.held_revision
        if not found:
            raise Refused(
                f"{_where(deployment)} has nothing to retry: no revision was given up or is held; it is {_now(deployment)}"
            )
        return found
    if deployment.running is None:
        raise Refused(
            f"{_where(deployment)} has nothing to {_words(verb)}: no rollout is running; it is {_now(deployment)}"
        )
    return deployment.running.revision


def check_revision(revision: str, deployment: Deployment, *, revisions: Sequence[Revision]) -> str:
    """A revision that can be gone back to; a beginning of its name is enough where it is unique.

    Raises:
        NotFound: no stored revision begins like that.
        Refused: several do.
    """
    known = [one.revision for one in revisions]
    matching = [one for one in known if one.startswith(revision)]
    if revision in known or len(matching) == 1:
        return revision if revision in known else matching[0]
    if matching:
        raise Refused(f"revision {revision} is not unique: {', '.join(sorted(matching))}; give more of it")
    raise not_found("revision", revision, known=known, where=_where(deployment))


def parse_revisions(objects: Sequence[Mapping[str, Any]]) -> list[Revision]:
    """Stored versions (ControllerRevisions of the operator), newest first."""
    found = [
        Revision(
            revision=str(data["revision"]),
            number=int(one.get("revision", 0)),
            adapter=str(data.get("adapter", "")),
            artifact_digest=str(data.get("artifactDigest", "")),
            created=str(one["metadata"].get("creationTimestamp", "")),
        )
        for one in objects
        if (data := one.get("data") or {}).get("revision")
    ]
    return sorted(found, key=lambda one: -one.number)


def _earlier(deployment: Deployment, revisions: Sequence[Revision]) -> str:
    if deployment.running is not None:
        if deployment.stable is None:
            raise Refused(
                f"{_where(deployment)} has no version to go back to: its first one is being rolled out; abort it instead"
            )
        return deployment.stable.revision
    # What serves, and what was given up: neither is what a person who says "back" means.
    other = {*_of(deployment.stable), *_of(deployment.candidate), str(deployment.abort.get("revision") or "")}
    served = [one.revision for one in deployment.history if one.result == "Succeeded"]
    ordered = [*_of(deployment.previous), *served, *(one.revision for one in revisions)]
    stored = {one.revision for one in revisions}
    found = next((one for one in ordered if one not in other and (not stored or one in stored)), None)
    if found is None:
        raise Refused(
            f"{_where(deployment)} has no older version to go back to; point adapterRef at another LoRAAdapter instead"
        )
    return found


def _of(version: Version | None) -> tuple[str, ...]:
    return () if version is None else (version.revision,)


def _where(deployment: Deployment) -> str:
    return f"LoRADeployment {deployment.namespace}/{deployment.name}"


def _now(deployment: Deployment) -> str:
    return f"{deployment.phase} ({deployment.message})" if deployment.message else deployment.phase


def _words(verb: Verb) -> str:
    return str(verb).replace("-", " ")
