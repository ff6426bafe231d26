"""The command `lora-job`: what the Jobs run, and what works on a workstation without any cluster.

Command modules are imported when they are called: `lora-job verify` runs in an image without torch and must start at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from lora_job.outcome import run

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fetch, merge, validate and verify LoRA models.",
)
Directory = Annotated[Path, typer.Option(help="a directory")]
Report = Annotated[Path | None, typer.Option(help="write the report here")]
Config = Annotated[Path | None, typer.Option(help="settings.yaml; unknown keys are refused")]


@app.command()
def fetch(
    source: Annotated[
        list[str], typer.Option(help="a source as JSON, optionally with name, role and digest; repeatable")
    ],
    output: Annotated[Path, typer.Option(help="the store: remote sources and the digest cache live below .sources")],
    digest: Annotated[str, typer.Option(help="expected digest of a single source")] = "",
    claims: Annotated[Path, typer.Option(help="where claims are mounted")] = Path("/claims"),
    report: Report = None,
    config: Config = None,
) -> None:
    """Resolve sources, check digests and free space."""

    def command() -> dict[str, object]:
        from lora_job.settings import check_settings  # noqa: PLC0415
        from lora_job.sources.fetch import fetch_sources  # noqa: PLC0415

        check_settings(config)
        return fetch_sources(source, digest=digest, claims=claims, store=output, report=report)

    run(command)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="a published model")],
    digest: Annotated[str, typer.Option(help="expected digest; default: what its merge.json says")] = "",
    config: Config = None,
) -> None:
    """Check a model directory against its digest. Needs no torch."""

    def command() -> dict[str, object]:
        from lora_job.settings import check_settings  # noqa: PLC0415
        from lora_job.verify import verify_directory  # noqa: PLC0415

        check_settings(config)
        return verify_directory(directory, expected=digest)

    run(command)


@app.command()
def inspect(
    base: Directory,
    adapter: Annotated[list[str], typer.Option(help="an adapter's directory; repeatable")],
    as_json: Annotated[bool, typer.Option("--json", help="the plan as JSON")] = False,
    allow_unverified_base: Annotated[bool, typer.Option(help="go on although the adapter names another base")] = False,
    allow_chat_template: Annotated[
        str, typer.Option(help="sha256 of the changed chat template that may come with the adapter")
    ] = "",
    config: Config = None,
) -> None:
    """Show what a merge would do; refuses what merge would refuse."""

    def command() -> dict[str, object]:
        from lora_job.merge.command import Request, show_plan  # noqa: PLC0415
        from lora_job.settings import check_settings  # noqa: PLC0415

        check_settings(config)
        request = Request.of(
            base=base,
            adapters=adapter,
            allow_unverified_base=allow_unverified_base,
            allow_chat_template=allow_chat_template,
        )
        return show_plan(request, as_json=as_json)

    run(command)


@app.command()
def merge(
    base: Directory,
    adapter: Annotated[list[str], typer.Option(help="DIR or DIR=WEIGHT; repeatable")],
    output: Annotated[Path | None, typer.Option(help="publish exactly here")] = None,
    output_root: Annotated[
        Path | None, typer.Option(help="publish below here, in a directory named by the build's hash")
    ] = None,
    strategy: Annotated[str, typer.Option(help="linear|slerp|task_arithmetic|ties|dare_linear|dare_ties")] = "linear",
    scale: float = 1.0,
    t: float = 0.5,
    density: float = 0.5,
    seed: int = 0,
    dtype: Annotated[str, typer.Option(help="auto|bfloat16|float16|float32")] = "auto",
    device: Annotated[str, typer.Option(help="auto|cpu|cuda")] = "auto",
    quantization: Annotated[str, typer.Option(help="none|bnb-nf4|bnb-int8|fp8-dynamic|w4a16")] = "none",
    allow_unverified_base: Annotated[bool, typer.Option(help="go on although the adapter names another base")] = False,
    allow_chat_template: Annotated[
        str, typer.Option(help="sha256 of the changed chat template that may come with the adapter")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="shards at a time")] = 2,
    fetch_report: Annotated[
        Path | None, typer.Option(help="digests from `lora-job fetch`, believed while files are unchanged")
    ] = None,
    report: Report = None,
    config: Config = None,
) -> None:
    """Merge adapters into a base: streamed, verified, published by one rename."""

    def command() -> dict[str, object]:
        from lora_job.merge.command import Request, merge_model  # noqa: PLC0415
        from lora_job.settings import check_settings  # noqa: PLC0415

        check_settings(config)
        request = Request.of(
            base=base,
            adapters=adapter,
            output=output,
            output_root=output_root,
            strategy=strategy,
            scale=scale,
            t=t,
            density=density,
            seed=seed,
            dtype=dtype,
            device=device,
            quantization=quantization,
            allow_unverified_base=allow_unverified_base,
            allow_chat_template=allow_chat_template,
            workers=workers,
            fetch_report=fetch_report,
        )
        return merge_model(request, report=report)

    run(command)


def main() -> None:
    """Entry point."""
    from lora_job.validate.commands import register  # noqa: PLC0415

    register(app)
    app()
