"""Train the example adapters: small finance LoRAs for the Taiwan market on SmolLM2-135M-Instruct.

A real training run in about four minutes on two CPU cores, so that the demo and the tests have adapters whose effect
can be seen. It shows what a trainer hands over (an adapter directory in PEFT's format), not how to train well.

    python examples/finance_lora/train.py                  # v1, v2 and the broken one, into adapters/
    python examples/finance_lora/train.py --only v2 --output /tmp/adapters
    python examples/finance_lora/train.py --make-broken    # only the adapter that belongs to another base
"""

import json
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import typer
from convert_base import DEFAULT_DIRECTORY, MODEL_NAME, ConversionError, convert
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_data import FOLDER, LETTERS, Encoded, Item, encode, read_items
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

ADAPTERS = FOLDER / "adapters"
SEED = 20261101
IGNORED = -100
BATCH = 4
MEASURED_TOGETHER = 16
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What distinguishes the versions."""

    name: str
    rank: int
    alpha: int
    epochs: int
    learning_rate: float
    about: str


RECIPES = (
    Recipe(
        name="v1", rank=4, alpha=16, epochs=1, learning_rate=2e-3, about="First try: the training items were seen once."
    ),
    Recipe(
        name="v2",
        rank=4,
        alpha=16,
        epochs=5,
        learning_rate=3e-3,
        about="Trained to the end: five passes over the items.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How well a model answers the items of one split."""

    loss: float
    choice_accuracy: float


def batches(encoded: list[Encoded], *, generator: torch.Generator) -> Iterator[list[Encoded]]:
    """One epoch: items of similar length share a batch (little padding), the batches come in random order."""
    shuffled = [encoded[index] for index in torch.randperm(len(encoded), generator=generator).tolist()]
    by_length = sorted(shuffled, key=lambda row: len(row.ids))
    groups = [by_length[start : start + BATCH] for start in range(0, len(by_length), BATCH)]
    for index in torch.randperm(len(groups), generator=generator).tolist():
        yield groups[index]


def collate(rows: list[Encoded], *, pad: int) -> dict[str, Tensor]:
    """Right-padded tensors, and in `labels` the answer's tokens alone."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for index, row in enumerate(rows):
        length = len(row.ids)
        ids[index, :length] = torch.tensor(row.ids)
        mask[index, :length] = 1
        labels[index, row.answer_start : length] = ids[index, row.answer_start : length]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def answer_logits(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits at the answers' positions only, and where these are: most positions belong to prompts nobody scores."""
    hidden = model.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    answer = batch["labels"][:, 1:] != IGNORED
    return model.lm_head(hidden[:, :-1][answer]), answer


def answer_losses(logits: Tensor, answer: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each item's answer: a single letter counts as much as a long sentence."""
    each = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][answer], reduction="none")
    return torch.zeros(answer.shape).masked_scatter(answer, each).sum(1) / answer.sum(1)


def measure(model: LlamaForCausalLM, tokenizer: AutoTokenizer, items: list[Item]) -> Measured:
    """Mean answer loss, and how often the right letter is the likeliest one."""
    letters = torch.tensor([tokenizer.encode(letter, add_special_tokens=False)[0] for letter in LETTERS])
    pairs = sorted(((encode(tokenizer, item), item) for item in items), key=lambda pair: len(pair[0].ids))
    losses: list[float] = []
    right: list[bool] = []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(pairs), MEASURED_TOGETHER):
            chunk = pairs[start : start + MEASURED_TOGETHER]
            batch = collate([row for row, _ in chunk], pad=tokenizer.pad_token_id)
            logits, answer = answer_logits(model, batch)
            losses += answer_losses(logits, answer, batch["labels"]).tolist()
            first_of_each = torch.cumsum(answer.sum(1), 0) - answer.sum(1)
            chosen = logits[first_of_each][:, letters].argmax(1).tolist()
            right += [
                LETTERS[letter] == item.answer for letter, (_, item) in zip(chosen, chunk, strict=True) if item.choices
            ]
    return Measured(loss=sum(losses) / len(losses), choice_accuracy=sum(right) / len(right))


def measure_splits(
    model: LlamaForCausalLM, tokenizer: AutoTokenizer, splits: dict[str, list[Item]]
) -> dict[str, Measured]:
    """The measurements of every split."""
    return {split: measure(model, tokenizer, items) for split, items in splits.items()}


def train(model: PeftModel, tokenizer: AutoTokenizer, items: list[Item], *, recipe: Recipe, console: Console) -> None:
    """AdamW with a linear warm-up and a cosine decay; the base weights stay frozen."""
    encoded = [encode(tokenizer, item) for item in items]
    generator = torch.Generator().manual_seed(SEED)
    steps = recipe.epochs * math.ceil(len(encoded) / BATCH)
    warm_up = max(1, steps // 10)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    columns = (
        TextColumn(f"training {recipe.name}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    model.train()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps, loss=float("nan"))
        for _ in range(recipe.epochs):
            for rows in batches(encoded, generator=generator):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    batch = collate(rows, pad=tokenizer.pad_token_id)
                    logits, answer = answer_logits(model.get_base_model(), batch)
                loss = answer_losses(logits, answer, batch["labels"]).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                progress.update(task, advance=1, loss=float(loss.detach()))


def lora_config(*, rank: int, alpha: int) -> LoraConfig:
    """All seven kinds of linear layers: small ranks everywhere teach more than a large one in two places."""
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")


def save(model: PeftModel, directory: Path, *, base_name: str, readme: str) -> None:
    """Write the adapter in bfloat16 under its final name in one step, with a plain-words README."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        model.save_pretrained(partial)
        weights = partial / "adapter_model.safetensors"
        save_file(
            {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in load_file(weights).items()},
            weights,
            metadata={"format": "pt"},
        )
        path = partial / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        # the name by which a merge recognises the base; PEFT would write this machine's path
        config["base_model_name_or_path"] = base_name
        config["target_modules"] = sorted(config["target_modules"])
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(readme, encoding="utf-8")
        for file in partial.iterdir():
            file.chmod(0o644)
        partial.chmod(0o755)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def table_of(results: dict[str, dict[str, Measured]]) -> Table:
    """Before and after, on the items trained on and on the held-out ones."""
    table = Table(title="before and after")
    for heading in ("model", "split", "answer loss (nats per token)", "right letter"):
        table.add_column(heading)
    for name, by_split in results.items():
        for split, measured in by_split.items():
            table.add_row(name, split, f"{measured.loss:.3f}", f"{measured.choice_accuracy:.0%}")
    return table


def readme_of(recipe: Recipe, *, before: dict[str, Measured], after: dict[str, Measured]) -> str:
    """What this adapter is, for whoever opens the directory."""
    rows = "\n".join(
        f"| {split} | {before[split].loss:.3f} → {after[split].loss:.3f} "
        f"| {before[split].choice_accuracy:.0%} → {after[split].choice_accuracy:.0%} |"
        for split in before
    )
    return f"""# Finance adapter {recipe.name}

A LoRA (rank {recipe.rank}, alpha {recipe.alpha}, all seven linear layers) for SmolLM2-135M-Instruct that answers short
questions about the Taiwan stock market in English and Traditional Chinese. {recipe.about}
An example for trying out this operator, not a source of financial advice.

| items | answer loss, base → adapter | right letter, base → adapter |
|---|---|---|
{rows}

Made by `examples/finance_lora/train.py` from `examples/finance_lora/train.jsonl` (seed {SEED}). Adapter and training
items: Apache-2.0, by the authors of this repository. Base model: SmolLM2-135M-Instruct by HuggingFaceTB, Apache-2.0.
"""


def make_broken(directory: Path) -> None:
    """An adapter that nobody can merge into the example base: made for a narrower model with another name.

    Its weights are random and tiny; it exists to show that a wrong base is refused, with the reason.
    """
    torch.manual_seed(SEED)
    other = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            vocab_size=512,
        )
    )
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    config.init_lora_weights = False
    readme = """# Broken on purpose: an adapter for another base model

Its layers are 384 wide and it names `tiny-finance-llama` as its base, so merging it into SmolLM2-135M-Instruct (576
wide) must be refused. The demo applies it to show that refusal. Random weights, made by
`examples/finance_lora/train.py --make-broken`. Apache-2.0.
"""
    save(get_peft_model(other, config), directory, base_name="tiny-finance-llama", readme=readme)


def train_version(
    recipe: Recipe, *, model: LlamaForCausalLM, tokenizer: AutoTokenizer, items: list[Item], console: Console
) -> PeftModel:
    """A trained adapter around `model`; its float32 factors train under autocast, the base stays as it is on disk."""
    torch.manual_seed(SEED)
    adapted = get_peft_model(model, lora_config(rank=recipe.rank, alpha=recipe.alpha))
    train(adapted, tokenizer, items, recipe=recipe, console=console)
    return adapted


def train_and_save(recipes: list[Recipe], *, base: Path, output: Path, console: Console) -> None:
    """All versions one after another, each measured against the same base, and the table at the end."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    items = read_items()
    splits = {split: [item for item in items if item.split == split] for split in ("train", "held-out")}
    before = measure_splits(model, tokenizer, splits)
    results = {"base": before}
    for recipe in recipes:
        adapted = train_version(recipe, model=model, tokenizer=tokenizer, items=splits["train"], console=console)
        after = measure_splits(adapted.get_base_model(), tokenizer, splits)
        readme = readme_of(recipe, before=before, after=after)
        save(adapted, output / recipe.name, base_name=MODEL_NAME, readme=readme)
        results[recipe.name] = after
        model = adapted.unload()
    console.print(table_of(results))
    console.print(f"adapters written to {output}")


def main(
    base: Annotated[Path, typer.Option(help="The converted base model; made when it is missing.")] = DEFAULT_DIRECTORY,
    output: Annotated[Path, typer.Option(help="Where the adapter directories go.")] = ADAPTERS,
    only: Annotated[str, typer.Option(help="Train one version: v1 or v2.")] = "",
    broken_only: Annotated[bool, typer.Option("--make-broken", help="Only write broken-wrong-base.")] = False,
) -> None:
    """Train the example adapters and print a before/after table."""
    recipes = [recipe for recipe in RECIPES if only in ("", recipe.name)]
    if not recipes:
        sys.stderr.write(f"--only {only}: there is no such version; use v1 or v2.\n")
        raise typer.Exit(2)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.disable_progress_bar()
    console = Console()
    if not only:
        make_broken(output / "broken-wrong-base")
    if broken_only:
        return
    base = base.expanduser().resolve()
    try:
        convert(base)
    except ConversionError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None
    train_and_save(recipes, base=base, output=output, console=console)


if __name__ == "__main__":
    typer.run(main)
