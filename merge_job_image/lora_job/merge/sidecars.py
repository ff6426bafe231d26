"""Everything beside the weights: config, tokenizer, chat template, generation settings. Code never travels; pickles are never opened."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_job.outcome import Refused

__all__ = ["check_base_name", "plan_sidecars", "read_config"]

FROM_BASE = (
    "generation_config.json", "preprocessor_config.json", "processor_config.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE",
)  # fmt: skip
TOKENIZER = re.compile(
    r"^(tokenizer\.json|tokenizer_config\.json|tokenizer\.model|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|"
    r"merges\.txt|spiece\.model|sentencepiece\.bpe\.model|chat_template\.(jinja|json))$"
)


def read_config(root: Path) -> dict[str, Any]:
    """The base's config.json.

    Raises:
        Refused: BadConfig; RemoteCode when the model needs Python files of its own.
    """
    try:
        config = json.loads((root / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused("BadConfig", f"{root / 'config.json'}: missing or not JSON: {error}") from None
    if not isinstance(config, dict) or not config.get("model_type"):
        raise Refused("BadConfig", f"{root / 'config.json'}: expected an object with model_type")
    if config.get("auto_map") and not _known_type(str(config["model_type"])):
        raise Refused(
            "RemoteCode",
            f"{root}: model_type {config['model_type']!r} needs Python code from the repository; code is never run",
        )
    return config


def _known_type(model_type: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # noqa: PLC0415 (slow import, rarely needed)

    return model_type in CONFIG_MAPPING_NAMES


def check_base_name(named: str, *, base: Path, config: Mapping[str, Any], allow_unverified: bool) -> None:
    """Does the adapter say that it was trained on this base? By name only (design: merge.md, "Verified base").

    Raises:
        Refused: WrongBase with both names and the way out.
    """
    if allow_unverified:
        return
    same = bool(named) and (
        named == str(base)
        or named == str(config.get("_name_or_path") or "\0")
        or named.rstrip("/").rsplit("/", 1)[-1].lower() == base.name.lower()
    )
    if not same:
        message = (
            f"the adapter was trained on {named or 'an unnamed base'!r}, this base is {base.name!r}; "
            "give the right base, or allow it knowingly (--allow-unverified-base, merge.allowUnverifiedBase)"
        )
        raise Refused("WrongBase", message)


def plan_sidecars(
    base: Path, adapter: Path, *, config: Mapping[str, Any], allowed_template: str
) -> dict[str, bytes | Path]:
    """File name → bytes to write or file to copy. The adapter's tokenizer wins when it brings one.

    Raises:
        Refused: ChatTemplateChanged with the digest to allow; VocabularyMismatch.
    """
    _check_template(base, adapter, allowed=allowed_template)
    kept = {
        key: value for key, value in config.items() if key not in {"quantization_config", "auto_map", "_name_or_path"}
    }
    files: dict[str, bytes | Path] = {"config.json": json.dumps(kept, indent=2, ensure_ascii=False).encode() + b"\n"}
    for name in FROM_BASE:
        if (base / name).is_file():
            files[name] = base / name
    source = adapter if (adapter / "tokenizer.json").is_file() or (adapter / "tokenizer.model").is_file() else base
    if source is adapter:
        _check_vocabulary(adapter, config=config)
    for path in sorted(source.iterdir()):
        if TOKENIZER.match(path.name) and path.is_file():
            files[path.name] = path
    if source is base and (adapter / "chat_template.jinja").is_file():  # allowed above, so it is meant
        files["chat_template.jinja"] = adapter / "chat_template.jinja"
    return files


def _check_template(base: Path, adapter: Path, *, allowed: str) -> None:
    theirs = _template(adapter)
    if theirs is None or theirs == _template(base):
        return
    digest = hashlib.sha256(theirs.encode()).hexdigest()
    if digest != allowed.removeprefix("sha256:"):
        message = (
            f"{adapter}: its chat template differs from the base's; if that is meant, allow it by its digest sha256:{digest} "
            "(--allow-chat-template, merge.allowChatTemplateDigest)"
        )
        raise Refused("ChatTemplateChanged", message)


def _template(root: Path) -> str | None:
    if (root / "chat_template.jinja").is_file():
        return (root / "chat_template.jinja").read_text(encoding="utf-8")
    try:
        template = json.loads((root / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise Refused("BadConfig", f"{root / 'tokenizer_config.json'}: not a JSON object: {error}") from None
    return None if template is None else template if isinstance(template, str) else json.dumps(template, sort_keys=True)


def _check_vocabulary(adapter: Path, *, config: Mapping[str, Any]) -> None:
    path = adapter / "tokenizer.json"
    if not path.is_file():
        return
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = raw.get("model", {}).get("vocab", {})
        highest = max([*_ids(vocabulary), *(int(token["id"]) for token in raw.get("added_tokens", []))], default=-1)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise Refused("BadConfig", f"{path}: not a tokenizer: {error}") from None
    rows = int(config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size") or 0)
    if highest >= rows:
        raise Refused("VocabularyMismatch", f"{path}: token id {highest} does not fit the base's {rows} embedding rows")


def _ids(vocabulary: Any) -> list[int]:
    return (
        [int(value) for value in vocabulary.values()] if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    )
