"""The command `devcluster`: a real Kubernetes on this machine, up and down."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from devcluster.cluster import Cluster, NotReady
from devcluster.programs import MissingPrerequisite

__all__ = ["main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
console = Console(stderr=True, highlight=False)
Instance = Annotated[str, typer.Option(envvar="DEVCLUSTER_INSTANCE", help="several can live side by side")]
_started = time.monotonic()


def _say(line: str) -> None:
    console.print(f"[dim]{time.monotonic() - _started:6.1f} s[/] {line}")


def _sentences(command: Callable[..., None]) -> Callable[..., None]:
    """Turns known failures into one sentence and exit code 1."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (MissingPrerequisite, NotReady, OSError) as error:
            console.print(f"[red]devcluster:[/] {error}")
            sys.exit(1)

    return run


@app.command()
@_sentences
def up(
    instance: Instance = "lora",
    nodes: Annotated[int, typer.Option(min=1, max=2)] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="simulated nvidia.com/gpu per node")] = 4,
) -> None:
    """Bring it up, or what is missing of it."""
    cluster = Cluster(instance=instance, say=_say)
    cluster.up(nodes=nodes, gpus=gpus)
    console.print(f"Ready. export KUBECONFIG={cluster.kubeconfig}   Gateway: {cluster.gateway_url}")


@app.command()
@_sentences
def down(instance: Instance = "lora") -> None:
    """Remove processes, mounts, network and data; caches stay."""
    Cluster(instance=instance, say=_say).down()


@app.command()
@_sentences
def reset(instance: Instance = "lora", nodes: int = 1, gpus: int = 4) -> None:
    """Down, then up: an empty cluster."""
    cluster = Cluster(instance=instance, say=_say)
    cluster.down()
    cluster.up(nodes=nodes, gpus=gpus)


@app.command()
@_sentences
def status(instance: Instance = "lora") -> None:
    """The parts and how they are; exit code 1 unless all run."""
    cluster = Cluster(instance=instance)
    rows = cluster.status()
    table = Table("part", "state", "detail")
    for part, state, detail in rows:
        table.add_row(part, f"[{'green' if state == 'running' else 'red'}]{state}[/]", detail)
    Console().print(table if rows else f"instance {instance} is down; start it with: devcluster up")
    if not rows or any(state != "running" for _, state, _ in rows):
        sys.exit(1)


@app.command()
@_sentences
def kubeconfig(instance: Instance = "lora") -> None:
    """Print the path of the administrator's kubeconfig."""
    sys.stdout.write(f"{Cluster(instance=instance).kubeconfig}\n")


@app.command()
@_sentences
def logs(part: str, instance: Instance = "lora", lines: int = 100) -> None:
    """The end of a part's log."""
    cluster = Cluster(instance=instance)
    log = cluster.processes.log(part)
    if not log.exists():
        raise MissingPrerequisite(f"no part {part!r}; there are: {', '.join(cluster.processes.names()) or 'none'}")
    subprocess.run(["tail", "-n", str(lines), str(log)], check=True)


@app.command("build-image")
@_sentences
def build_image(
    name: str,
    dockerfile: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    context: Annotated[Path, typer.Argument(exists=True, file_okay=False)] = Path(),
    instance: Instance = "lora",
) -> None:
    """Build localhost/NAME:<hash of its inputs> unless it is there; prints the reference."""
    reference = Cluster(instance=instance, say=_say).images.build(
        name=name, dockerfile=dockerfile, context=context.resolve()
    )
    sys.stdout.write(f"{reference}\n")


@app.command("load-image")
@_sentences
def load_image(reference: str, instance: Instance = "lora", node: int = 1) -> None:
    """Import an image that build-image made into a node."""
    Cluster(instance=instance, say=_say).images.load(reference, node=node)


def main() -> None:
    """Entry point."""
    app()
