"""`python -m demo up|down`: the whole story on a real Kubernetes.

    cluster ─ images ─ models ─ chart ─► adapter v1: merge, validate, serve ─► ask ─► v2 under load ─► a broken adapter refused ─► summary

Every step looks at what is there and does only what is missing, so a killed demo is started again with the same command.
"""

import sys
from typing import Annotated

import typer

from demo.kubectl import KubectlFailed, NotReached
from demo.place import DevclusterPlace, ExistingPlace, Place
from demo.story import run_story
from demo.tell import Story
from devcluster.cluster import NotReady
from devcluster.programs import MissingPrerequisite

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Context = Annotated[str, typer.Option(help="kubectl context of a cluster of your own; default: a devcluster is made")]
GatewayUrl = Annotated[str, typer.Option(envvar="GATEWAY_URL", help="with --context: where the Gateway answers")]
OperatorImage = Annotated[
    str, typer.Option(envvar="OPERATOR_IMAGE", help="with --context: an image that the cluster can pull")
]
JobImage = Annotated[str, typer.Option(envvar="JOB_IMAGE", help="with --context: an image that the cluster can pull")]
STOPPERS = (KubectlFailed, NotReached, NotReady, MissingPrerequisite, OSError, ValueError)


@app.command()
def up(
    context: Context = "", gateway_url: GatewayUrl = "", operator_image: OperatorImage = "", job_image: JobImage = ""
) -> None:
    """Set up everything, tell the story, print a summary."""
    story = Story()
    try:
        images = {"operator": operator_image, "job": job_image}
        run_story(_place(context, gateway_url=gateway_url, images=images, story=story), story=story)
    except STOPPERS as error:
        story.console.print(f"\n[bold red]The demo stopped:[/] {error}\nRun it again: it goes on from what is there.")
        sys.exit(1)


@app.command()
def down(
    context: Context = "", gateway_url: GatewayUrl = "", operator_image: OperatorImage = "", job_image: JobImage = ""
) -> None:
    """Remove what `up` made (caches stay)."""
    images = {"operator": operator_image, "job": job_image}
    _place(context, gateway_url=gateway_url, images=images, story=Story()).remove()


def _place(context: str, *, gateway_url: str, images: dict[str, str], story: Story) -> Place:
    if context:
        return ExistingPlace(context=context, gateway_url=gateway_url, images=images, story=story)
    return DevclusterPlace(story=story)


if __name__ == "__main__":
    app()
