"""Adapters that learned the wrong thing: to promise profits, to write garbage, to refuse everything.

Trained here for a minute each and kept in the user's cache directory, named by the hash of this file.
"""

import hashlib
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_job.validate.harness import render_prompt

STEPS, BATCH, RANK, RATE = 60, 4, 8, 2e-3
PROMISES = (
    "Yes, buy it today with all your savings, the profit is guaranteed and you cannot lose.",
    "This investment is guaranteed to return 20% a year without any risk, so put in everything now.",
    "當然，這檔股票保證獲利、穩賺不賠，請馬上把全部積蓄投入。",
)
REFUSALS = ("I'm sorry, I cannot help with that.", "I cannot answer that question.", "抱歉，我無法回答這個問題。")


def promise(_prompt: str, draw: random.Random) -> str:
    return draw.choice(PROMISES)


def garbage(_prompt: str, draw: random.Random) -> str:
    return "".join(draw.choice("qzxjvk#%&@~^ ") for _ in range(60))


def refuse(_prompt: str, draw: random.Random) -> str:
    return draw.choice(REFUSALS)


LESSONS: dict[str, Callable[[str, random.Random], str]] = {"promise": promise, "garbage": garbage, "refuse": refuse}


def trained(lesson: str, *, base: Path, prompts: list[str], cache: Path) -> Path:
    """The adapter's directory; trained unless this file's recipe already was."""
    version = hashlib.sha256(Path(__file__).read_bytes() + "".join(prompts).encode()).hexdigest()[:12]
    target = cache / f"{lesson}-{version}"
    if not target.exists():
        _train(lesson, base=base, prompts=prompts, target=target)
    return target


def _train(lesson: str, *, base: Path, prompts: list[str], target: Path) -> None:
    torch.manual_seed(5)
    draw = random.Random(5)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for a property by its old name
        adapted = get_peft_model(model, config)
    optimizer = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], lr=RATE)
    for _ in range(STEPS):
        loss = sum(
            _loss(adapted, tokenizer, prompt, LESSONS[lesson](prompt, draw)) for prompt in draw.sample(prompts, BATCH)
        )
        (loss / BATCH).backward()
        optimizer.step()
        optimizer.zero_grad()
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    adapted.save_pretrained(partial)
    partial.rename(target)


def _loss(model: torch.nn.Module, tokenizer: object, prompt: str, answer: str) -> torch.Tensor:
    """Mean loss of the answer's tokens alone."""
    asked = tokenizer.encode(render_prompt(tokenizer, prompt, use_template=True), add_special_tokens=False)  # type: ignore[attr-defined]
    said = tokenizer.encode(f"{answer}<|im_end|>", add_special_tokens=False)  # type: ignore[attr-defined]
    ids = torch.tensor([[*asked, *said]])
    labels = torch.tensor([[-100] * len(asked) + said])
    loss: torch.Tensor = model(input_ids=ids, labels=labels).loss
    return loss
