"""The only module that knows lm-eval (0.4.13, pinned): items in, raw answers out.

Everything is local: task configurations are built here as plain dictionaries with in-memory data, the task manager
reads no default tasks, and a fixed batch size keeps results equal bit for bit between runs. Prompts are rendered here
with the chat template, so that base and candidate get the same text; judging the answers is not done here.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lm_eval.api.task
import torch
from datasets import Dataset, disable_progress_bars
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lora_job.validate.judge import Answer
from lora_job.validate.prompts import letter_questions, numeric_prompt
from lora_job.validate.suite import Choice, Generate, Item, Numeric, Safety, Text
from lora_job.validate.weighing import Request, weigh

# Answers written together; decoding reads all weights for every token, so that many rows cost little more than few.
BATCH_SIZE = 32
TOKENS_NUMERIC = 24
TOKENS_TEXT = 48
MAX_LENGTH = 2048

Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A loaded model with its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def has_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))


@dataclass(frozen=True, kw_only=True)
class _Question:
    """One request: a context and either continuations to weigh, a text to write, or a whole text to weigh."""

    id: str
    part: int = 0
    """An item may ask several times: rotations of a choice."""
    context: str
    continuations: tuple[str, ...] = ()
    max_tokens: int = 0
    whole_text: str = ""


class _Evaluated(HFLM):  # type: ignore[misc]  # lm-eval is untyped
    """HFLM that tells progress, tokenizes a continuation on its own, and weighs it without the logits of its context.

    lm-eval moves white space from the end of a context to the continuation and tokenizes both together; after a chat
    template the model sees its own tokens start afresh, so the two are encoded apart. That also keeps a letter one
    token, which lets all letters of a question share one forward pass.
    """

    def __init__(self, subject: Subject, *, tick: Tick) -> None:
        length = getattr(subject.model.config, "max_position_embeddings", MAX_LENGTH)
        super().__init__(
            pretrained=subject.model,
            tokenizer=subject.tokenizer,
            batch_size=BATCH_SIZE,
            max_length=min(MAX_LENGTH, length),
            add_bos_token=False if subject.has_template else None,
        )
        self._tick = tick

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        first = self.tok_encode(context) if context else [self.prefix_token_id]
        return first, self.tokenizer.encode(continuation, add_special_tokens=False)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        weighed: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return weighed

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:
        weighed: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        return weighed

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        asked = [Request(context=tuple(context), continuation=tuple(rest)) for _, context, rest in requests]
        # whether greedy decoding would have written the same is nobody's question here
        return [(value, False) for value in weigh(self.model, asked, longest=self.max_length, tick=self._tick)]

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:
        written: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return written

    def _model_generate(self, context: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.inference_mode():
            written: torch.Tensor = super()._model_generate(context, *args, **kwargs)
        self._tick(int(context.shape[0]))
        return written


def _without_bar(rows: Iterable[Any], **_: Any) -> Iterable[Any]:
    """Stands in for the bar that lm-eval draws while it builds requests; it has no option to turn it off."""
    return rows


def render_prompt(tokenizer: Any, prompt: str, *, use_template: bool) -> str:
    """The text a model sees for a user's prompt, up to where its answer starts."""
    if not use_template:
        return f"{prompt}\n"
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return text


def _questions(item: Item, *, render: Callable[[str], str], rotations: int | None) -> list[_Question]:
    """What is asked for one item; a safety item is asked twice: to write, and to weigh two continuations."""
    identity = item.origin.id
    match item:
        case Choice():
            return [
                _Question(id=identity, part=part, context=render(asked.prompt), continuations=asked.letters)
                for part, asked in enumerate(letter_questions(item, rotations=rotations))
            ]
        case Numeric():
            return [_Question(id=identity, context=render(numeric_prompt(item)), max_tokens=TOKENS_NUMERIC)]
        case Generate():
            return [_Question(id=identity, context=render(item.prompt), max_tokens=TOKENS_TEXT)]
        case Safety():
            context = render(item.prompt)
            return [
                _Question(id=identity, context=context, max_tokens=TOKENS_TEXT),
                _Question(id=identity, context=context, continuations=(item.safe, item.unsafe)),
            ]
        case Text():
            return [_Question(id=identity, context="", whole_text=item.text)]


def _context(doc: Mapping[str, Any]) -> str:
    return str(doc["context"])


def _continuations(doc: Mapping[str, Any]) -> list[str]:
    return list(doc["continuations"])


def _nothing(_doc: Mapping[str, Any]) -> str:
    return ""


def _whole_text(doc: Mapping[str, Any]) -> str:
    return str(doc["whole_text"])


_WEIGH: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": _context,
    "doc_to_choice": _continuations,
    "doc_to_target": 0,
    "target_delimiter": "",
    "metric_list": [{"metric": "acc"}],
}
_READ: dict[str, Any] = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": _nothing,
    "doc_to_target": _whole_text,
    "metric_list": [{"metric": "bits_per_byte"}],
}


def _write(max_tokens: int) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_text": _context,
        "doc_to_target": _nothing,
        "generation_kwargs": {"until": [], "max_gen_toks": max_tokens, "do_sample": False},
        "metric_list": [{"metric": "bypass"}],
    }


def _task(name: str, shape: Mapping[str, Any], questions: Sequence[_Question]) -> dict[str, Any]:
    """A complete task configuration around in-memory data."""
    data = Dataset.from_list(
        [
            {
                "id": question.id,
                "part": question.part,
                "context": question.context,
                "continuations": list(question.continuations),
                "whole_text": question.whole_text,
            }
            for question in questions
        ]
    )

    def dataset(**_: Any) -> dict[str, Dataset]:
        return {"test": data}

    return {
        "task": name,
        "custom_dataset": dataset,
        "test_split": "test",
        "num_fewshot": 0,
        **shape,
    }


def _grouped(questions: Sequence[_Question]) -> list[dict[str, Any]]:
    """Questions as tasks, one for each way of asking."""
    letters = [one for one in questions if one.continuations and len(one.continuations[0]) == 1]
    contrasts = [one for one in questions if one.continuations and one not in letters]
    texts = [one for one in questions if one.whole_text]
    tasks = [("letters", _WEIGH, letters), ("contrasts", _WEIGH, contrasts), ("texts", _READ, texts)]
    tasks += [
        (f"write_{limit}", _write(limit), [one for one in questions if one.max_tokens == limit])
        for limit in sorted({one.max_tokens for one in questions} - {0})
    ]
    return [_task(name, shape, members) for name, shape, members in tasks if members]


def _collect(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for task, rows in samples.items():
        for row in rows:
            entry = found.setdefault(row["doc"]["id"], {"text": "", "parts": {}})
            if task.startswith("write_"):
                entry["text"] = str(row["resps"][0][0]).strip()
            elif task == "texts":
                entry["parts"][0] = [float(row["resps"][0][0])]
            else:
                entry["parts"][row["doc"]["part"]] = [float(response[0][0]) for response in row["resps"]]
    return found


def _answer(entry: Mapping[str, Any], *, prompt_hash: str) -> Answer:
    parts = entry["parts"]
    logliks = tuple(value for part in sorted(parts) for value in parts[part])
    return Answer(text=entry["text"], logliks=logliks, prompt_hash=prompt_hash)


def count_steps(items: Sequence[Item], *, rotations: int | None) -> int:
    """How many forward rows `ask` will tick for these items."""
    return sum(_steps(item, rotations=rotations) for item in items)


def _steps(item: Item, *, rotations: int | None) -> int:
    match item:
        case Safety():
            return 3
        case Choice():
            return len(letter_questions(item, rotations=rotations))
        case Numeric() | Generate() | Text():
            return 1


def ask(
    subject: Subject, items: Sequence[Item], *, use_template: bool, rotations: int | None, tick: Tick
) -> dict[str, Answer]:
    """Raw answers by item id; `tick` is told how many rows each forward pass finished."""
    disable_progress_bars()
    lm_eval.api.task.tqdm = _without_bar
    for name in ("lm_eval", "lm-eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)

    def render(prompt: str) -> str:
        return render_prompt(subject.tokenizer, prompt, use_template=use_template)

    questions = [question for item in items for question in _questions(item, render=render, rotations=rotations)]
    manager = TaskManager(include_defaults=False)
    tasks = manager.load(_grouped(questions))
    result = evaluate(
        _Evaluated(subject, tick=tick), tasks, bootstrap_iters=0, log_samples=True, apply_chat_template=False
    )
    if result is None:
        raise RuntimeError("lm-eval returned no result on the only rank")
    found = _collect(result["samples"])
    hashes = {one.id: hashlib.sha256((one.context or one.whole_text).encode()).hexdigest()[:16] for one in questions}
    return {item.origin.id: _answer(found[item.origin.id], prompt_hash=hashes[item.origin.id]) for item in items}
