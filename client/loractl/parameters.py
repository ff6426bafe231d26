"""Parameters that several verbs share, and what people may type for a kind or a name."""

from typing import TYPE_CHECKING, Annotated

import typer

from lora_client.errors import Invalid, NotFound, not_found
from lora_client.names import ADAPTER, LORA_DEPLOYMENT, Kind
from loractl.completion import complete_adapters, complete_deployments, complete_either

if TYPE_CHECKING:
    from lora_client.adapter import Adapter
    from lora_client.client import LoRAClient
    from lora_client.deployment import Deployment

__all__ = [
    "AdapterName", "AllNamespaces", "DeploymentName", "EitherName", "Pair", "Timeout", "WatchOption", "find_pair", "kind_named",
    "split_name",
]  # fmt: skip

AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace.")]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Follow it with live progress until it is over.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds after which following ends with 1; the work goes on.")
]
AdapterName = Annotated[str, typer.Argument(help="A LoRAAdapter.", autocompletion=complete_adapters)]
DeploymentName = Annotated[str, typer.Argument(help="A LoRADeployment.", autocompletion=complete_deployments)]
EitherName = Annotated[
    str, typer.Argument(metavar="NAME", help="NAME, lora/NAME or lorad/NAME.", autocompletion=complete_either)
]
_WORDS = {
    **dict.fromkeys(("lora", "loraadapter", "loraadapters", "adapter", "adapters"), ADAPTER),
    **dict.fromkeys(("lorad", "loradeployment", "loradeployments", "deployment", "deployments"), LORA_DEPLOYMENT),
}
Pair = tuple["Deployment | None", "Adapter | None"]


def kind_named(text: str) -> Kind | None:
    """The kind that a word means; None when it is no such word."""
    return _WORDS.get(text.lower().removesuffix(".loraops.dev"))


def split_name(text: str) -> tuple[Kind | None, str]:
    """`NAME`, or `KIND/NAME` as kubectl writes it; kind None: not said."""
    word, slash, name = text.partition("/")
    if not slash:
        return None, text
    kind = kind_named(word)
    if kind is None or not name:
        raise Invalid(f"{text}: expected NAME, lora/NAME or lorad/NAME")
    return kind, name


async def find_pair(client: "LoRAClient", text: str) -> Pair:
    """A LoRADeployment of that name with the adapter it names, or the LoRAAdapter of that name.

    Raises:
        NotFound: neither is there; with the nearest names of both kinds.
    """
    kind, name = split_name(text)
    deployment = None if kind is ADAPTER else await _deployment(client, name)
    if deployment is not None:
        return deployment, await _adapter(client, deployment.adapter)
    adapter = None if kind is LORA_DEPLOYMENT else await _adapter(client, name)
    if adapter is not None:
        return None, adapter
    raise await _nobody(client, name, kind)


async def _nobody(client: "LoRAClient", name: str, kind: Kind | None) -> NotFound:
    known: list[str] = []
    if kind is not LORA_DEPLOYMENT:
        known += [one.name for one in await client.list_adapters()]
    if kind is not ADAPTER:
        known += [one.name for one in await client.list_deployments()]
    what = kind.kind if kind is not None else "LoRAAdapter or LoRADeployment"
    return not_found(what, name, known=set(known), where=f"namespace {client.namespace}")


async def _deployment(client: "LoRAClient", name: str) -> "Deployment | None":
    try:
        return await client.get_deployment(name)
    except NotFound:
        return None


async def _adapter(client: "LoRAClient", name: str) -> "Adapter | None":
    try:
        return await client.get_adapter(name)
    except NotFound:
        return None
