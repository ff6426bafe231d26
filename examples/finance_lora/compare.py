"""Ask the base model and an example adapter the demo questions, and show both answers.

Greedy decoding, so the answers are the same every time on one machine. `--write` records them in demo_questions.json,
which the demo reads for its questions. The adapter is applied with PEFT here: a second opinion beside the merge engine.

    python examples/finance_lora/compare.py --adapter examples/finance_lora/adapters/v2
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import typer
from convert_base import DEFAULT_DIRECTORY, ConversionError, convert
from peft import PeftModel
from rich.console import Console
from training_data import FOLDER, chat_ids
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

QUESTIONS_FILE = FOLDER / "demo_questions.json"
MAX_NEW_TOKENS = 48


def answer(model: PeftModel, tokenizer: AutoTokenizer, question: str) -> str:
    """The greedy answer to one question."""
    ids = torch.tensor([chat_ids(tokenizer, question)])
    with torch.inference_mode():
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=MAX_NEW_TOKENS, do_sample=False
        )
    text: str = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    return text.strip()


def main(
    base: Annotated[Path, typer.Option(help="The converted base model; made when it is missing.")] = DEFAULT_DIRECTORY,
    adapter: Annotated[Path, typer.Option(help="The adapter directory.")] = FOLDER / "adapters" / "v2",
    questions: Annotated[Path, typer.Option(help="JSON list of objects with a `question`.")] = QUESTIONS_FILE,
    write: Annotated[bool, typer.Option("--write", help="Record the answers in the questions file.")] = False,
) -> None:
    """Print what the base model and the adapter answer."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.disable_progress_bar()
    directory = base.expanduser().resolve()
    try:
        convert(directory)
    except ConversionError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16), adapter)
    model.eval()
    console = Console(highlight=False)
    items = json.loads(questions.read_text(encoding="utf-8"))
    for item in items:
        with model.disable_adapter():
            item["base"] = answer(model, tokenizer, item["question"])
        item["merged"] = answer(model, tokenizer, item["question"])
        console.print(
            f"Q       {item['question']}\n base   {item['base']!r}\n merged {item['merged']!r}\n", markup=False
        )
    if write:
        questions.write_text(json.dumps(items, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
