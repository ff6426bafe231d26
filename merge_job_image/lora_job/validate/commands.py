"""`lora-job validate` and `lora-job benchmark`: options in, exit code out. torch is imported only once they run."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_job.digest import directory_digest
from lora_job.outcome import Done, GateFailed, Refused
from lora_job.progress import Progress
from lora_job.validate.gates import Basis, Gate, Kind, Policy, Status
from lora_job.validate.options import DEFAULT_ITERATIONS, DEFAULT_TEST_QUERY_COUNT, Options, check_unit, parse_weights
from lora_job.validate.score import DEFAULT_WEIGHTS
from lora_job.validate.selection import Mode
from lora_job.validate.settings import Settings, read_settings
from lora_job.validate.summary import summarize

CACHE_VARIABLE = "LORA_VALIDATION_CACHE"
_BASES = {"point": Basis.POINT, "lower-bound": Basis.LOWER_BOUND}


class Terminal:
    """Progress and notes on the terminal or, in a Job, as JSON lines."""

    @contextmanager
    def stage(self, name: str, *, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        with Progress(name, total=total, unit=unit) as progress:
            yield progress.advance

    def note(self, message: str) -> None:
        typer.echo(message, err=True)


def _in_job() -> bool:
    return bool(os.environ.get("LORA_TERMINATION_LOG"))


def default_cache(model: Path) -> Path:
    """Beside the artifacts in a Job (<store>/.cache), in the user's cache directory on a workstation."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    if _in_job() and len(model.resolve().parents) > 3:
        return model.resolve().parents[2] / ".cache" / "validation"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "lora-operator" / "validation"


def _policy(
    settings: Settings, *, min_score: float | None, min_safety_score: float | None, basis: str, warn: bool
) -> Policy:
    defaults = Policy()
    if basis not in _BASES:
        raise Refused("InvalidGateBasis", f"--gate-basis: expected point or lower-bound, found {basis!r}")
    chosen = [
        next(value for value in options if value is not None)
        for options in (
            (min_score, settings.min_score, defaults.min_score),
            (min_safety_score, settings.min_safety_score, defaults.min_safety_score),
        )
    ]
    blocks = settings.block_on_poor_quality if settings.block_on_poor_quality is not None else True
    return Policy(
        min_score=check_unit(chosen[0], where="--min-score"),
        min_safety_score=check_unit(chosen[1], where="--min-safety-score"),
        basis=_BASES[basis],
        block_on_poor_quality=blocks and not warn,
    )


def _identity(report: Path | None, *, now: datetime) -> str:
    return report.stem if report is not None else f"validation-{now:%Y%m%dT%H%M%SZ}"


def _verdict(gates: Sequence[Gate]) -> str:
    blocking = [
        f"{gate.name} ({gate.status}: {gate.message})"
        for gate in gates
        if gate.kind is not Kind.WARN and gate.status is not Status.PASS
        and (gate.kind is Kind.HARD or gate.status is not Status.SKIPPED)
    ]  # fmt: skip
    return "; ".join(blocking)[:600]


def _show(report: Mapping[str, Any], *, path: Path) -> None:
    """The result for a person, on stderr: stdout belongs to progress."""
    for gate in report["gates"]:
        typer.echo(f"{gate['name']:<11}{gate['status']:<13}{gate['message']}", err=True)
    low, high = report["overall"]["ci95"]
    score = f"score {report['overall_score']:.3f} [{low:.3f}, {high:.3f}], grade {report['quality_grade']}"
    typer.echo(f"{score}, {'deployable' if report['deployable'] else 'not deployable'}: {path}", err=True)


def run_validation(options: Options, *, report: Path, html: Path | None, now: datetime) -> Done:
    """Validate and write the report.

    Raises:
        GateFailed: not deployable; the report is written all the same.
    """
    from lora_job.validate import pipeline, publish  # noqa: PLC0415 - torch takes seconds
    from lora_job.validate.report import build  # noqa: PLC0415 - as above

    measured = pipeline.validate(options, digest=directory_digest, today=now.date(), progress=Terminal())
    content = build(measured)
    files = publish.files_for(report, html=html)
    publish.publish(content, measured.rows, files=files)
    _show(content, path=files.report)
    artifact = {"digest": measured.model.digest}
    extra = {"validation": summarize(content, report_path=str(files.report))}
    if not measured.deployable:
        raise GateFailed("GatesFailed", f"not deployable: {_verdict(measured.gates)}", artifact=artifact, extra=extra)
    message = f"score {content['overall_score']}, grade {content['quality_grade']}: {files.report}"
    return Done(message=message, artifact=artifact, extra=extra)


def _path(value: Path) -> Path:
    return value.expanduser()


def validate(  # noqa: PLR0917 - typer makes options of them
    model: Annotated[Path, typer.Option(help="The merged model.")],
    base: Annotated[Path | None, typer.Option(help="Its base; by default the one merge.json names.")] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(help="An adapter (repeat for several); merge.json's by default.")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="How much is measured.")] = Mode.BASIC,
    suite: Annotated[
        list[Path] | None, typer.Option(help="An extra suite: a JSONL file or a folder of them (repeat for several).")
    ] = None,
    test_query_count: Annotated[int | None, typer.Option(min=1, help="Items per task in basic mode.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Timed pairs of answers.")] = None,
    weights: Annotated[str | None, typer.Option(help="basic=0.4,domain=0.3,safety=0.2,performance=0.1")] = None,
    min_score: Annotated[float | None, typer.Option(help="The score gate's threshold, 0.8 by default.")] = None,
    min_safety_score: Annotated[
        float | None, typer.Option(help="The safety gate's threshold, 0.95 by default.")
    ] = None,
    gate_basis: Annotated[str, typer.Option(help="point or lower-bound: what thresholds are compared with.")] = "point",
    warn_on_poor_quality: Annotated[
        bool, typer.Option("--warn-on-poor-quality", help="Score and safety only warn.")
    ] = False,
    allow_chat_template: Annotated[
        str, typer.Option(help="sha256 of a template that may differ from the base's.")
    ] = "",
    cache: Annotated[Path | None, typer.Option(help=f"Where base results are kept; also ${CACHE_VARIABLE}.")] = None,
    report: Annotated[Path | None, typer.Option(help="The report; by default MODEL/validation/<id>.json.")] = None,
    html: Annotated[Path | None, typer.Option(help="The page; by default beside the report.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> Done:
    """Is this merged model base + adapter, good enough, safe enough, as fast as its base, and how sure is that?"""
    settings = read_settings(config)
    now = datetime.now(UTC)
    identity = _identity(report, now=now)
    options = Options(
        model=_path(model),
        base=_path(base) if base is not None else None,
        adapters=tuple(_path(Path(one.partition("=")[0])) for one in adapter or ()),
        mode=mode,
        suites=tuple(_path(one) for one in suite or ()),
        test_query_count=test_query_count or settings.test_query_count or DEFAULT_TEST_QUERY_COUNT,
        iterations=iterations or settings.iterations or DEFAULT_ITERATIONS,
        weights=parse_weights(weights) if weights is not None else settings.weights or dict(DEFAULT_WEIGHTS),
        policy=_policy(
            settings,
            min_score=min_score,
            min_safety_score=min_safety_score,
            basis=gate_basis,
            warn=warn_on_poor_quality,
        ),
        allowed_template=allow_chat_template,
        cache=_path(cache) if cache is not None else default_cache(_path(model)),
        on_workstation=not _in_job(),
        identity=identity,
    )
    target = _path(report) if report is not None else options.model / "validation" / f"{identity}.json"
    return run_validation(options, report=target, html=html, now=now)


def benchmark(
    model: Annotated[Path, typer.Option(help="The model.")],
    queries: Annotated[Path | None, typer.Option(help="One prompt a line; a fixed text by default.")] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Timed answers per prompt.")] = DEFAULT_ITERATIONS,
    report: Annotated[Path | None, typer.Option(help="Where the figures go as JSON.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> Done:
    """Time to first token, tokens per second, latency and memory of one model."""
    from lora_job.validate import benchmark as measuring  # noqa: PLC0415 - torch takes seconds
    from lora_job.validate.publish import write_whole  # noqa: PLC0415 - as above

    read_settings(config)
    prompts = measuring.read_queries(queries)
    figures = measuring.measure_model(_path(model), prompts=prompts, iterations=iterations, progress=Terminal())
    text = json.dumps(figures, ensure_ascii=False, indent=2) + "\n"
    if report is not None:
        write_whole(_path(report), text)
    else:
        typer.echo(text, nl=False)
    speed = figures["tokensPerSecond"]
    return Done(message=f"{speed} tokens/s", figures={"tokensPerSecond": speed})


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("validate")(validate)
    app.command("benchmark")(benchmark)
