"""`python -m demo up|down`: the whole story on a real Kubernetes.

    cluster ─ images ─ models ─ chart ─► adapter v1: merge, validate, serve ─► ask ─► v2 under load ─► a broken adapter refused ─► summary

Every step looks at what is there and does only what is missing, so a killed demo is started again with the same command.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import httpx
import typer
from rich.markup import escape

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
STOPPERS = (KubectlFailed, NotReached, NotReady, MissingPrerequisite, httpx.HTTPError, OSError, ValueError)


@app.command()
def up(
    context: Context = "", gateway_url: GatewayUrl = "", operator_image: OperatorImage = "", job_image: JobImage = ""
) -> None:
    """Set up everything, tell the story, print a summary."""
    story = Story()
    images = {"operator": operator_image, "job": job_image}
    with _told(story, what="The demo"):
        run_story(_place(context, gateway_url=gateway_url, images=images, story=story), story=story)


@app.command()
def down(context: Context = "") -> None:
    """Remove what `up` made (caches stay)."""
    story = Story()
    with _told(story, what="Cleaning up"):
        place = ExistingPlace(context=context, story=story) if context else DevclusterPlace(story=story)
        place.remove()


@contextmanager
def _told(story: Story, *, what: str) -> Iterator[None]:
    """What went wrong, or a Ctrl-C, as a sentence."""
    try:
        yield
    except STOPPERS as error:
        story.console.print(f"\n[bold red]{what} stopped:[/] {escape(str(error))}")
    except KeyboardInterrupt:
        story.console.print(f"\n[bold yellow]{what} was stopped.[/]")
    else:
        return
    story.console.print("Run it again: it goes on from what is there.")
    sys.exit(1)


def _place(context: str, *, gateway_url: str, images: dict[str, str], story: Story) -> Place:
    if context:
        if not gateway_url or not all(images.values()):
            raise ValueError(
                "a cluster of your own needs GATEWAY_URL, OPERATOR_IMAGE and JOB_IMAGE (images it can pull); "
                "docs/install.md shows the command"
            )
        return ExistingPlace(context=context, gateway_url=gateway_url, images=images, story=story)
    return DevclusterPlace(story=story)


if __name__ == "__main__":
    app()
