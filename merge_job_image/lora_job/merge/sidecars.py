"""Files beside the weights: config, tokenizer, chat template, generation and preprocessor settings.

A tokenizer that was saved with the adapter wins, after its vocabulary was compared with the base's. A chat template may steer what a
model says as much as its weights do: the adapter's is taken only when it is the base's, or when its digest was allowed.
Never copied: pickles, program code, training state, and anything whose use is not known.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_job.files import inside
from lora_job.merge.plan import Warned
from lora_job.model_config import ModelConfig
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.strict_json import parse_object

__all__ = ["Sidecars", "gather_sidecars"]

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tekken.json",
)
MODEL_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
)
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING")
SIZE_LIMIT = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class Sidecars:
    """Contents by file name, all of them small."""

    files: Mapping[str, bytes]
    ignored: tuple[str, ...]
    warnings: tuple[Warned, ...]


def _read(root: Path, name: str) -> bytes | None:
    path = root / name
    if not path.is_file():
        return None
    real = inside(path, root=root)
    if real.stat().st_size > SIZE_LIMIT:
        raise Refused(
            Reason.MALFORMED_CONFIG, f"{path}: larger than {SIZE_LIMIT} bytes; not a tokenizer or config file"
        )
    try:
        return real.read_bytes()
    except OSError as error:
        raise Refused(Reason.SOURCE_NOT_READABLE, f"{path}: cannot be read: {error.strerror}") from None


def _read_object(root: Path, name: str) -> dict[str, Any] | None:
    data = _read(root, name)
    return None if data is None else parse_object(data, where=str(root / name), reason=Reason.MALFORMED_CONFIG)


def _template(root: Path) -> str | None:
    """The template a directory gives its tokenizer: its own file wins over the config's member, as in transformers."""
    data = _read(root, TEMPLATE_FILE)
    if data is not None:
        return data.decode(errors="replace")
    config = _read_object(root, TOKENIZER_CONFIG)
    if config is None:
        return None
    value = config.get("chat_template")
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True)


def _check_template(adapter: Path, base: Path, *, allowed: str) -> bool:
    """Whether the adapter's template differs and is allowed; refused when it differs and is not."""
    theirs, ours = _template(adapter), _template(base)
    if theirs is None or theirs == ours:
        return False
    digest = hashlib.sha256(theirs.encode()).hexdigest()
    if digest == allowed:
        return True
    raise Refused(
        Reason.CHAT_TEMPLATE_CHANGED,
        f"{adapter}: its chat template is not the base's; read it, then allow it with --allow-chat-template {digest} "
        "(merge.allowChatTemplateDigest in a LoRAAdapter), or remove it",
    )


def _vocabulary(root: Path) -> dict[str, int] | None:
    """Token to number, where tokenizer.json tells."""
    content = _read_object(root, "tokenizer.json")
    if content is None:
        return None
    tokens: dict[Any, Any] = {}
    try:
        model = content["model"]["vocab"]
        tokens = dict(model) if isinstance(model, dict) else {entry[0]: number for number, entry in enumerate(model)}
        tokens |= {entry["content"]: entry["id"] for entry in content.get("added_tokens", [])}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        tokens = {}
    if not tokens or not all(isinstance(token, str) and isinstance(number, int) for token, number in tokens.items()):
        raise Refused(
            Reason.MALFORMED_CONFIG,
            f"{root / 'tokenizer.json'}: fields 'model.vocab' and 'added_tokens': expected tokens with their numbers",
        )
    return tokens


def _check_vocabulary(adapter: Path, base: Path, *, rows: int) -> None:
    theirs, ours = _vocabulary(adapter), _vocabulary(base)
    if theirs is None:
        return
    highest = max(theirs.values(), default=-1)
    if rows and highest >= rows:
        raise Refused(
            Reason.VOCABULARY_MISMATCH,
            f"{adapter}: its tokenizer has token number {highest}, the merged embedding has {rows} rows; "
            "save the resized embeddings with the adapter (modules_to_save)",
        )
    moved = next((token for token, number in (ours or {}).items() if theirs.get(token, number) != number), None)
    if moved is not None and ours is not None:
        raise Refused(
            Reason.VOCABULARY_MISMATCH,
            f"{adapter}: its tokenizer gives {moved!r} the number {theirs[moved]}, the base's {ours[moved]}; "
            "it belongs to another base",
        )


def _check_agreement(first: Path, second: Path) -> bool:
    """Whether the second tokenizer knows all tokens of the first; refused where one contradicts the other."""
    ours, theirs = _vocabulary(first) or {}, _vocabulary(second) or {}
    names = {number: token for token, number in ours.items()}
    for token, number in theirs.items():
        other = ours.get(token)
        known = names.get(number, token)
        if other not in {None, number} or known != token:
            found = f"{token!r} the number {number}"
            instead = f"{token!r} the number {other}" if other not in {None, number} else f"{known!r} that number"
            raise Refused(
                Reason.VOCABULARY_MISMATCH,
                f"{second}: its tokenizer gives {found}, that of {first} gives {instead}; one model has one tokenizer: "
                "merge adapters that were trained with the same tokens",
            )
    return len(theirs) >= len(ours)


def _tokenizer_files(base: Path, adapters: Sequence[Path], *, rows: int, allowed: str) -> dict[str, bytes]:
    source, template_from = base, base
    for adapter in adapters:
        if _check_template(adapter, base, allowed=allowed):
            template_from = adapter
        if (adapter / "tokenizer.json").is_file():
            _check_vocabulary(adapter, base, rows=rows)
            # Where one has more tokens than the other, the larger one serves both.
            if source is base or _check_agreement(source, adapter):
                source = adapter
    files = {name: data for name in TOKENIZER_FILES if (data := _read(source, name)) is not None}
    if source is base and template_from is base:
        template = _read(base, TEMPLATE_FILE)
        return files | ({TEMPLATE_FILE: template} if template is not None else {})
    return _with_template(files, _template(template_from))


def _with_template(files: Mapping[str, bytes], template: str | None) -> dict[str, bytes]:
    """One place for the template: its own file; the config's member would be a second opinion."""
    out = dict(files)
    if TOKENIZER_CONFIG in out:
        config = parse_object(out[TOKENIZER_CONFIG], where=TOKENIZER_CONFIG, reason=Reason.MALFORMED_CONFIG)
        if config.pop("chat_template", None) is not None:
            out[TOKENIZER_CONFIG] = json.dumps(config, indent=2, ensure_ascii=False).encode()
    if template is not None:
        out[TEMPLATE_FILE] = template.encode()
    return out


def _changed_config(config: ModelConfig, changes: Mapping[str, Any]) -> bytes:
    raw = json.loads(json.dumps(config.raw))
    for name, value in changes.items():
        part = raw
        *path, last = name.split(".")
        for step in path:
            part = part[step]
        if value is None:
            part.pop(last, None)
        else:
            part[last] = value
    return (json.dumps(raw, indent=2, ensure_ascii=False) + "\n").encode()


def _remote_code(config: ModelConfig, base: Path) -> list[Warned]:
    """auto_map goes when transformers has the architecture itself; a model that needs its own code is refused."""
    if "auto_map" not in config.raw:
        return []
    # Slow to import and needed by few models.
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # noqa: PLC0415

    if config.model_type not in CONFIG_MAPPING_NAMES:
        raise Refused(
            Reason.REMOTE_CODE,
            f"{base / 'config.json'}: model type {config.model_type!r} needs program code of its own (auto_map), "
            "which is never run here; use an architecture that transformers knows",
        )
    return [
        Warned(code="RemoteCodeDropped", message="auto_map was removed from config.json: transformers has this model")
    ]


def _without_code(name: str, data: bytes, warnings: list[Warned]) -> bytes:
    """Tokenizers and preprocessors name program code in the same way as models do; it is not copied, so it is not named."""
    if name == "config.json" or not name.endswith(".json") or b'"auto_map"' not in data:
        return data
    content = parse_object(data, where=name, reason=Reason.MALFORMED_CONFIG)
    if content.pop("auto_map", None) is None:
        return data
    warnings.append(Warned(code="RemoteCodeDropped", message=f"auto_map was removed from {name}"))
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def gather_sidecars(
    *,
    base: Path,
    adapters: Sequence[Path],
    config: ModelConfig,
    config_changes: Mapping[str, Any],
    rows: int,
    allowed_template: str,
) -> Sidecars:
    """Everything but weights, index and manifest. `rows`: of the merged input embedding, 0 when not known."""
    warnings = _remote_code(config, base)
    changes = dict(config_changes) | ({"auto_map": None} if warnings else {})
    if "quantization_config" in config.raw:
        changes.setdefault("quantization_config", None)
        warnings.append(
            Warned(
                code="QuantizationConfigDropped",
                message="the base's weights are floats: its quantization_config was stale",
            )
        )
    original = _read(base, "config.json") or b""
    files = {"config.json": _changed_config(config, changes) if changes else original}
    files |= {name: data for name in MODEL_FILES if (data := _read(base, name)) is not None}
    files |= _tokenizer_files(base, adapters, rows=rows, allowed=allowed_template)
    files = {name: _without_code(name, data, warnings) for name, data in files.items()}
    present = sorted(path.name for path in base.iterdir() if path.is_file())
    files |= {
        name: data for name in present if name.upper().startswith(LICENCES) and (data := _read(base, name)) is not None
    }
    ignored = [name for name in present if name not in files and not name.endswith((".safetensors", ".index.json"))]
    return Sidecars(files=files, ignored=tuple(ignored), warnings=tuple(warnings))
