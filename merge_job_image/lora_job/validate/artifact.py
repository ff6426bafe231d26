"""The artifact's files, before and after loading: what a serving engine would choke on, or what changed unnoticed.

Compares tokenizer and chat template with the base's (or an adapter's, which explains a difference). Looks only at
files and at the tokenizer; tensor values are `fidelity`'s business.
"""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lora_job.outcome import Ended, Refused
from lora_job.tensors import read_checkpoint
from lora_job.validate.loading import NotLoadable, load_tokenizer

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npz", ".h5", ".msgpack")
TEMPLATE_SECONDS = 5
SPECIAL = ("bos_token_id", "eos_token_id", "unk_token_id")
ROUND_TRIP = "臺積電 2330 殖利率 5.3%，本益比 22 倍；外資買超 1,234 張。"
_CONVERSATION = [
    {"role": "user", "content": "What is a dividend?"},
    {"role": "assistant", "content": "A share of profit."},
    {"role": "user", "content": "謝謝"},
]


class _TooSlow(Exception):
    """A chat template did not finish."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt this (main) thread: a hostile template may loop for ever."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _TooSlow

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def read_config(model: Path) -> tuple[dict[str, Any], list[str]]:
    """config.json and what is wrong with it."""
    path = model / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [f"config.json cannot be read: {error.strerror}"]
    except ValueError as error:
        return {}, [f"config.json is not JSON: {error}"]
    if not isinstance(config, dict):
        return {}, ["config.json is not a JSON object"]
    problems = []
    if "auto_map" in config:
        problems.append("config.json has auto_map: the model would run code of its own")
    if "model_type" not in config:
        problems.append("config.json names no model_type")
    return config, problems


def check_files(model: Path) -> list[str]:
    """Weights only as safetensors, all shards there, no code."""
    names = sorted(path.name for path in model.iterdir() if path.is_file())
    problems = [f"{name} can carry code: only safetensors may hold weights" for name in names if name.endswith(PICKLES)]
    problems += [f"{name} is program code, which is never served" for name in names if name.endswith(".py")]
    try:
        read_checkpoint(model)
    except Refused as refusal:
        problems.append(str(refusal))
    return problems


def check_config(model: Path) -> list[str]:
    """config.json alone."""
    return read_config(model)[1]


def _template(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None)
    return json.dumps(template, sort_keys=True) if template else ""


def _check_rendering(tokenizer: Any) -> list[str]:
    if not _template(tokenizer):
        return []
    try:
        with _time_limit(TEMPLATE_SECONDS):
            text = tokenizer.apply_chat_template(_CONVERSATION, tokenize=False, add_generation_prompt=True)
    except _TooSlow:
        return [f"the chat template does not finish within {TEMPLATE_SECONDS} s"]
    except Ended:
        raise
    except Exception as error:  # noqa: BLE001 - a template is foreign code and may fail in any way
        return [f"the chat template cannot be rendered: {str(error)[:200]}"]
    lost = [turn["content"] for turn in _CONVERSATION if turn["content"] not in text]
    return [f"the chat template drops what was said: {lost[0]!r} is not in its output"] if lost else []


def _check_same(tokenizer: Any, others: Sequence[Any], *, allowed: Callable[[str], bool]) -> list[str]:
    """Vocabulary, special ids and template equal those of the base or of an adapter that brings its own."""
    problems = []
    if all(tokenizer.get_vocab() != other.get_vocab() for other in others):
        problems.append("the tokenizer's vocabulary differs from the base's")
    elif all(tokenizer(ROUND_TRIP)["input_ids"] != other(ROUND_TRIP)["input_ids"] for other in others):
        problems.append("the tokenizer splits text differently than the base's")
    for name in SPECIAL:
        own = getattr(tokenizer, name)
        theirs = [getattr(other, name) for other in others]
        if own not in theirs:
            problems.append(f"{name} is {own}, the base's is {theirs[0]}")
    template = getattr(tokenizer, "chat_template", None)
    same = any(_template(tokenizer) == _template(other) for other in others[:1])
    if not same and not (isinstance(template, str) and allowed(template)):
        problems.append("the chat template differs from the base's and is not allowed by its digest")
    return problems


def _check_alone(tokenizer: Any, *, embedding_rows: int | None) -> list[str]:
    problems = []
    if tokenizer.eos_token_id is None:
        problems.append("the tokenizer has no end-of-text token (eos)")
    if embedding_rows is not None and len(tokenizer) > embedding_rows:
        problems.append(f"the tokenizer knows {len(tokenizer)} tokens, the embedding has {embedding_rows} rows")
    return problems


def _round_trips(tokenizer: Any) -> bool:
    ids = tokenizer.encode(ROUND_TRIP, add_special_tokens=False)
    return bool(tokenizer.decode(ids, clean_up_tokenization_spaces=False) == ROUND_TRIP)


def check_tokenizer(
    model: Path,
    *,
    base: Path | None,
    adapters: Sequence[Path],
    embedding_rows: int | None,
    allowed: Callable[[str], bool],
) -> list[str]:
    """Everything about tokenizer and chat template; `allowed` says whether a changed template was approved."""
    try:
        tokenizer = load_tokenizer(model)
    except NotLoadable as error:
        return [str(error)]
    problems = [*_check_alone(tokenizer, embedding_rows=embedding_rows), *_check_rendering(tokenizer)]
    if base is None:
        return problems if _round_trips(tokenizer) else [*problems, "text in Traditional Chinese does not survive it"]
    others = [load_tokenizer(base)]
    others += [load_tokenizer(adapter) for adapter in adapters if (adapter / "tokenizer.json").is_file()]
    if not _round_trips(tokenizer) and _round_trips(others[0]):
        problems.append("text in Traditional Chinese does not survive the tokenizer")
    return problems + _check_same(tokenizer, others, allowed=allowed)
