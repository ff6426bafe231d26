"""`lora-job fetch` on the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lora_job.digest import parse_digest
from lora_job.merge.recipe import OutputDtype, Quantization
from lora_job.outcome import Done, Refused
from lora_job.reasons import Reason

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(fetch)


def fetch(
    *,
    source: Annotated[list[str], typer.Option(help="JSON of one source; repeat it for several.")],
    output: Annotated[
        Path, typer.Option(help="The store: digests are remembered in it, the result will be written to it.")
    ],
    digest: Annotated[str, typer.Option(help="sha256:… that a single source must have.")] = "",
    claims: Annotated[Path, typer.Option(help="Where claims are mounted, by name.")] = Path("/claims"),
    report: Annotated[Path | None, typer.Option(help="Where to write what was found, as JSON.")] = None,
    dtype: Annotated[
        OutputDtype, typer.Option(help="What the merge will be asked for: how much room it needs.")
    ] = OutputDtype.AUTO,
    quantization: Annotated[Quantization, typer.Option(help="As for --dtype.")] = Quantization.NONE,
) -> Done:
    """Find and check the sources of a merge."""

    from lora_job.sources.fetch import fetch as fetch_all  # noqa: PLC0415
    from lora_job.sources.source import parse_source  # noqa: PLC0415

    sources = [parse_source(text) for text in source]
    if digest:
        if len(sources) != 1:
            raise Refused(
                Reason.INVALID_OPTION,
                "--digest: belongs to a single --source; give each of several its member 'digest'",
            )
        sources = [replace(sources[0], digest=parse_digest(digest, where="--digest"))]
    return fetch_all(sources, claims=claims, output=output, report=report, dtype=dtype, quantization=quantization)
