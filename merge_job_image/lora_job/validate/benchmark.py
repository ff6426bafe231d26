"""Speed of one model, for `lora-job benchmark`: the same measurement as in a validation, without a base."""

from pathlib import Path
from typing import Any

import torch

from lora_job.outcome import Refused
from lora_job.validate import loading, performance
from lora_job.validate.behaviour import Progress
from lora_job.validate.harness import render_prompt
from lora_job.validate.loading import NotLoadable

MAX_QUERIES = 1000


def read_queries(path: Path | None) -> list[str]:
    """One prompt a line; empty when the fixed text is to be used."""
    if path is None:
        return []
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            "QueriesNotReadable", f"--queries {path}: expected a text file, one prompt a line: {error}"
        ) from None
    if not 0 < len(prompts) <= MAX_QUERIES:
        raise Refused(
            "QueriesNotReadable", f"--queries {path}: expected 1 to {MAX_QUERIES} prompts, found {len(prompts)}"
        )
    return prompts


def measure_model(model: Path, *, prompts: list[str], iterations: int, progress: Progress) -> dict[str, Any]:
    """Figures as they go into the report file."""
    if not model.is_dir():
        raise Refused("ModelNotFound", f"--model {model}: expected a model directory, found nothing of that kind")
    try:
        loaded = loading.load(model)
    except NotLoadable as error:
        raise Refused("ModelNotLoadable", str(error)) from None
    subject = loaded.subject
    inputs = [
        torch.tensor(
            [subject.tokenizer.encode(render_prompt(subject.tokenizer, prompt, use_template=subject.has_template))]
        )
        for prompt in prompts
    ] or [performance.prompt_ids(subject.tokenizer)]
    runs = []
    with progress.stage("speed", total=len(inputs) * (iterations + 1), unit="answers") as tick:
        for ids in inputs:
            for iteration in range(iterations + 1):
                run = performance.timed_answer(subject.model, ids)
                runs += [run] if iteration else []
                tick(1)
    speed = performance.speed_of(subject, runs)
    return {
        "schemaVersion": 1,
        "model": str(model),
        "device": subject.model.device.type,
        "prompts": len(inputs),
        **speed.as_json(),
    }
