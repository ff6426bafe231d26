"""A command that talks to a cluster: the options that all of them share, and the connection that its body gets.

    @cluster_command(app, panel="Rollout")
    async def pause(session: Session, name: DeploymentName, ...) -> int: ...

The options are those of kubectl and may stand before or behind the verb. Nothing of the cluster is imported before a body needs it.
"""

import asyncio
import inspect
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from loractl.completion import complete_contexts, complete_namespaces
from loractl.output import Format, Output
from loractl.place import Place

if TYPE_CHECKING:
    from lora_client.client import LoRAClient

__all__ = ["Interrupted", "Session", "cluster_command"]

P = ParamSpec("P")
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig.", autocompletion=complete_contexts)]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="File instead of $KUBECONFIG or ~/.kube/config.")]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Default: the context's.", autocompletion=complete_namespaces)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="Form of the result.")]
SHARED = {"context": Context, "kubeconfig": Kubeconfig, "namespace": Namespace, "debug": Debug}


class Interrupted(Exception):
    """Ctrl-C; the message says what goes on without us and how to come back."""


@dataclass
class Session:
    """What a body works with."""

    place: Place
    client: "LoRAClient"
    out: Output = field(default_factory=Output)
    resume: str = ""  # what goes on in the cluster after Ctrl-C, and how to see it again

    @property
    def namespace(self) -> str:
        """The namespace in force."""
        return self.client.namespace

    def move_to(self, namespace: str) -> None:
        """Works in another namespace from now on: that of a manifest which names its own."""
        self.client.api.move_to(namespace)
        self.place = replace(self.place, namespace=namespace)


Body = Callable[Concatenate[Session, P], Coroutine[Any, Any, int | None]]


def cluster_command(
    app: typer.Typer, *, name: str | None = None, panel: str, forms: bool = False
) -> Callable[[Body[P]], Body[P]]:
    """Registers an async body as a command with the shared options; `forms` gives it -o, which its session's Output obeys."""

    def register(body: Body[P]) -> Body[P]:
        def command(ctx: typer.Context, **given: Any) -> int:
            said = Place(**{key: given.pop(key) for key in SHARED})
            place = said.over(ctx.obj) if isinstance(ctx.obj, Place) else said
            form = given.pop("output", Format.TABLE)
            return run_in(place, lambda session: body(session, **given), form=form)  # type: ignore[call-arg]

        _dress(command, body, forms=forms)
        app.command(name=name, rich_help_panel=panel)(command)
        return body

    return register


def run_in(place: Place, body: Callable[[Session], Awaitable[int | None]], *, form: Format) -> int:
    """Connects, runs the body, closes. Ctrl-C becomes a sentence."""
    resume: list[str] = []

    async def whole() -> int:
        _cancel_on_termination()
        out = Output(form)
        async with AsyncExitStack() as stack:
            with out.passing("connecting …"):
                client = await stack.enter_async_context(_connect(place))
            session = Session(place=place, client=client, out=out)
            try:
                return await body(session) or 0
            finally:
                resume.append(session.resume)

    try:
        return asyncio.run(whole())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted("; ".join(filter(None, resume)) or "nothing in the cluster was stopped") from None


def _cancel_on_termination() -> None:
    """SIGTERM ends a command as Ctrl-C does, so that a helper pod is removed when a pipeline gives up."""
    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _connect(place: Place) -> "AbstractAsyncContextManager[LoRAClient]":
    from lora_client.client import LoRAClient  # noqa: PLC0415 - aiohttp is slow to import

    return LoRAClient.connect(
        kubeconfig=place.kubeconfig or None,
        context=place.context or None,
        namespace=place.namespace or None,
        field_manager="loractl",
    )


def _dress(command: Callable[..., int], body: Callable[..., Any], *, forms: bool) -> None:
    """Gives the wrapper the body's parameters and the shared ones, which is what typer reads."""
    own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(key, keyword, default=False if key == "debug" else "", annotation=annotation)
        for key, annotation in SHARED.items()
    ]
    context = inspect.Parameter("ctx", keyword, annotation=typer.Context)
    form = inspect.Parameter("output", keyword, default=Format.TABLE, annotation=OutputOption)
    parameters = [context, *(one.replace(kind=keyword) for one in own), *([form] if forms else []), *shared]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__name__, command.__doc__ = body.__name__, body.__doc__
