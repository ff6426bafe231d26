"""promote, promote-full, pause, resume, abort, retry, rollback: one-shot requests, and the operator's answer."""

from typing import Annotated, Any

import typer

from lora_client.errors import NotFound, Refused
from lora_client.names import ADAPTER, Verb
from loractl.commands.look import follow_pair
from loractl.completion import complete_revisions
from loractl.parameters import DeploymentName, EitherName, WatchOption, find_pair, split_name
from loractl.session import Session, cluster_command
from loractl.verdict import BAD_INPUT, OK

__all__ = ["register"]

PANEL = "Rollout"
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the operator's answer.")]
Revision = Annotated[str, typer.Option("--revision", help="Default: the candidate's.")]
HELP = {
    Verb.PROMOTE: "End the current pause: the rollout takes its next step.",
    Verb.PROMOTE_FULL: "Skip the remaining steps: the candidate takes all requests.",
    Verb.PAUSE: "Let the rollout stand where it is.",
    Verb.RESUME: "Let a paused rollout go on.",
    Verb.ABORT: "Give the candidate up: the version before takes everything back.",
}

WANTED = {Verb.PAUSE: "Paused", Verb.ABORT: "Aborted"}
"""Phases in which following ends well, because they are what was asked for."""


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb, text in HELP.items():
        body = _body(verb)
        body.__doc__ = text
        cluster_command(app, name=str(verb), panel=PANEL)(body)
    cluster_command(app, panel=PANEL)(retry)
    cluster_command(app, panel=PANEL)(rollback)


def _body(verb: Verb) -> Any:
    async def request(
        session: Session,
        name: DeploymentName,
        *,
        revision: Revision = "",
        wait: Wait = True,
        watch: WatchOption = False,
    ) -> int:
        return await _ask(session, split_name(name)[1], verb, revision=revision, wait=wait, watch=watch)

    return request


async def retry(session: Session, name: EitherName, *, wait: Wait = True, watch: WatchOption = False) -> int:
    """Try again what failed: an adapter's Job, or a revision that was given up or is held."""
    kind, plain = split_name(name)
    deployment, adapter = await find_pair(session.client, name)
    if deployment is not None and (deployment.abort or deployment.held_revision):
        return await _ask(session, deployment.name, Verb.RETRY, revision="", wait=wait, watch=watch)
    if adapter is None:
        raise NotFound(
            f"LoRADeployment {plain} names LoRAAdapter {getattr(deployment, 'adapter', '')}, which is not there; apply it"
        )
    if adapter.phase not in {"Failed", "Rejected"} and kind is not ADAPTER and deployment is not None:
        raise Refused(
            f"nothing to retry: LoRADeployment {plain} is {deployment.phase}, LoRAAdapter {adapter.name} is {adapter.phase}"
        )
    await session.client.retry_adapter(adapter.name)
    session.out.line(f"LoRAAdapter {adapter.name}: one more attempt was asked for")
    return await follow_pair(session, name=f"lora/{adapter.name}") if watch else OK


async def rollback(
    session: Session,
    name: DeploymentName,
    *,
    to: Annotated[
        str,
        typer.Option("--to", help="A stored revision. Default: what served before.", autocompletion=complete_revisions),
    ] = "",
    wait: Wait = True,
    watch: WatchOption = False,
) -> int:
    """Go back to an older revision; the one that is left does not start again by itself."""
    return await _ask(session, split_name(name)[1], Verb.ROLLBACK_TO, revision=to, wait=wait, watch=watch)


async def _ask(session: Session, name: str, verb: Verb, *, revision: str, wait: bool, watch: bool) -> int:
    session.resume = f"the request stays; see what became of it with: loractl status{session.place.options} {name}"
    answer = await session.client.request(
        name, verb, revision=revision or None, answer_seconds=10.0 if wait or watch else None
    )
    asked = answer.value.partition("/")[0]
    if answer.ignored:
        session.out.say(
            f"LoRADeployment {name}: {verb} of revision {asked} was not done: {answer.result.removeprefix('Ignored: ')}"
        )
        return BAD_INPUT
    said = answer.result.lower() if answer.result else "asked for"
    session.out.line(f"LoRADeployment {name}: {verb} of revision {asked} {said}")
    return await follow_pair(session, name=f"lorad/{name}", wanted=WANTED.get(verb, "")) if watch else OK
