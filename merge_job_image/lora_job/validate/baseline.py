"""The base model's answers, kept between runs: they cost half of a validation and never change.

A file per (base digest, questions, versions, dtype, device), written by rename. A cache that cannot be read or
written is no reason to fail: the answers are then computed, and the caller is told why.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_job.validate.judge import Answer
from lora_job.validate.suite import Item

# Raise when prompts, token limits or batching change: older answers are then no longer comparable.
FORMAT = 2


def key_of(*, base_digest: str, items: Sequence[Item], environment: Mapping[str, str]) -> str:
    """The identity of a set of answers; items enter with their whole content."""
    content = json.dumps(
        {"format": FORMAT, "base": base_digest, "items": [repr(item) for item in items], "env": dict(environment)},
        sort_keys=True,
        ensure_ascii=False,
    )
    return hashlib.sha256(content.encode()).hexdigest()


def read(folder: Path, key: str, *, ids: Sequence[str]) -> dict[str, Answer] | None:
    """Cached answers for exactly these ids; None when there are none or the file is damaged."""
    try:
        raw = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        answers = {
            identity: Answer(text=entry["text"], logliks=tuple(entry["logliks"]), prompt_hash=entry["promptHash"])
            for identity, entry in raw.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return answers if answers.keys() == set(ids) else None


def write(folder: Path, key: str, answers: Mapping[str, Answer]) -> str:
    """Keep answers; returns "" or why they could not be kept."""
    content = {
        identity: {"text": answer.text, "logliks": list(answer.logliks), "promptHash": answer.prompt_hash}
        for identity, answer in answers.items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, suffix=".partial")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False)
        Path(name).chmod(0o644)
        Path(name).replace(folder / f"{key}.json")
    except OSError as error:
        return f"base results are not cached in {folder}: {error.strerror}"
    return ""
