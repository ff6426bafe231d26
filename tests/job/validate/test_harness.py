"""Answers that were written in one batch, behind the words that a chat template puts before all of them, against each written alone."""

from pathlib import Path

import pytest
import torch

from lora_job.validate import harness, loading
from lora_job.validate.shared_start import SharedStart
from lora_job.validate.suite import Generate, Suite

from .items import origin

pytestmark = pytest.mark.engine
PROMPTS = (
    "What is a bond?",
    "台股什麼時候收盤？",
    "Name one risk of a fund that holds very few shares, in one sentence.",
)


def written(prompt: str) -> Generate:
    return Generate(
        origin=origin(prompt, Suite.QUALITY), prompt=prompt, must_contain_any=("a",), must_not_contain=("guaranteed",)
    )


def test_an_answer_written_with_others_is_the_one_written_alone(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32, so that the last bit of a sum decides no token. A single row shares nothing."""
    subject = loading.load(base_model, dtype=torch.float32).subject
    items = [written(prompt) for prompt in PROMPTS]
    shared: list[int] = []
    copies = SharedStart.cache_for

    def counted(start: SharedStart, rows: int) -> object:
        shared.append(rows)
        return copies(start, rows)

    monkeypatch.setattr(SharedStart, "cache_for", counted)

    def ask(*chosen: Generate) -> dict[str, str]:
        found = harness.ask(subject, chosen, use_template=True, rotations=None, tick=lambda _: None)
        return {identity: answer.text for identity, answer in found.items()}

    together = ask(*items)
    assert shared == [len(items)]
    alone = {identity: text for item in items for identity, text in ask(item).items()}
    assert shared == [len(items)]
    assert together == alone
    assert len(set(alone.values())) == len(PROMPTS)
