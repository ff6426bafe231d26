"""Loading a checkpoint with transformers: offline, safetensors only, no remote code, and no silence about tensors.

transformers only logs a report when tensors are missing or left over; here they are problems of the artifact.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lora_job.dequantize import encoding_of
from lora_job.merge.stream import OpenFiles
from lora_job.merge.torch_rows import read_tensor
from lora_job.outcome import Ended
from lora_job.validate.fidelity import Checkpoint
from lora_job.validate.harness import Subject
from lora_job.validate.placement import RUN_AS_STORED, Placement, place
from lora_job.validate.quantized import dequantized, quantized_layers

FLOAT32_LOGITS_LIMIT = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model, and what transformers would have said only in its log."""

    subject: Subject
    problems: tuple[str, ...]
    dtype: torch.dtype


class NotLoadable(Exception):
    """transformers cannot build a model from the directory; the message is one sentence."""


def best_device() -> torch.device:
    """The accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(stored: torch.dtype, *, device: torch.device) -> torch.dtype:
    """What to calculate in: as stored, unless this processor would have to emulate it."""
    if device.type == "cuda" or stored is torch.float32:
        return stored
    native = stored is torch.bfloat16 and torch.cpu._is_avx512_bf16_supported()
    return stored if native else torch.float32


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers draws a bar per load and logs what is returned as a value anyway."""
    transformers.utils.logging.disable_progress_bar()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.utils.logging.set_verbosity(level)


def _named(problem: str, names: Any) -> list[str]:
    found = sorted(str(name) for name in names)
    if not found:
        return []
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return [f"{problem}: {found[0]}{more}"]


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a directory."""
    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotLoadable(f"the tokenizer of {directory} cannot be loaded: {_first_line(error)}") from None
    except Ended:
        raise
    except Exception as error:  # noqa: BLE001 - the Rust tokenizer raises bare Exception for a broken file
        raise NotLoadable(f"the tokenizer of {directory} cannot be loaded: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _settings_of_quantization(directory: Path) -> dict[str, Any]:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the loader says it better
    found = config.get("quantization_config") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def encoding_in(directory: Path) -> str:
    """The format that a model is quantized in; "" for plain numbers and for a format that is not read here."""
    return encoding_of(_settings_of_quantization(directory))


def _stored_as_floats(directory: Path, *, dtype: torch.dtype | None) -> tuple[Any, dict[str, Any]]:
    return AutoModelForCausalLM.from_pretrained(  # type: ignore[no-any-return]
        directory,
        dtype=dtype or "auto",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )


def _stored_quantized(directory: Path, *, encoding: str, dtype: torch.dtype | None) -> tuple[Any, dict[str, Any]]:
    """The same model with the numbers that its quantized weights stand for: runs anywhere, and in any dtype."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    del config.quantization_config
    dtype = dtype or config.dtype or torch.float32
    checkpoint = Checkpoint(directory)
    layers = quantized_layers(checkpoint.names, encoding=encoding)
    parts = frozenset[str]().union(*layers.values())
    with OpenFiles() as files:
        tensors = {name: read_tensor(files, *checkpoint.find(name)) for name in checkpoint.names if name not in parts}
        for name in layers:
            tensors[name] = dequantized(checkpoint, name, encoding=encoding, dtype=dtype, files=files)
    return _from_tensors(config, tensors, dtype=dtype)


def _with_other_weights(
    directory: Path, *, weights: Mapping[str, torch.Tensor], dtype: torch.dtype | None
) -> tuple[Any, dict[str, Any]]:
    """A plain model, some of its tensors replaced by others of the same shape."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    checkpoint = Checkpoint(directory)
    dtype = dtype or config.dtype or torch.float32
    with OpenFiles() as files:
        plain = {name: read_tensor(files, *checkpoint.find(name)) for name in checkpoint.names if name not in weights}
    return _from_tensors(config, plain | {name: tensor.to(dtype) for name, tensor in weights.items()}, dtype=dtype)


def _from_tensors(config: Any, tensors: dict[str, torch.Tensor], *, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    with torch.device("meta"):
        architecture = type(AutoModelForCausalLM.from_config(config))
    return architecture.from_pretrained(  # type: ignore[no-any-return]
        None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
    )


def load_model(
    directory: Path, *, dtype: torch.dtype | None = None, weights: Mapping[str, torch.Tensor] | None = None
) -> tuple[Any, tuple[str, ...]]:
    """A model, and what transformers would have said only in its log; `dtype` None takes what is stored.

    `weights` replace the stored ones of the same name; None replaces none.
    """
    encoding = encoding_in(directory)

    def build() -> tuple[Any, dict[str, Any]]:
        if weights:
            return _with_other_weights(directory, weights=weights, dtype=dtype)
        if encoding:
            return _stored_quantized(directory, encoding=encoding, dtype=dtype)
        return _stored_as_floats(directory, dtype=dtype)

    return _checked(directory, build)


def _checked(directory: Path, build: Callable[[], tuple[Any, dict[str, Any]]]) -> tuple[Any, tuple[str, ...]]:
    """What was built, with its problems; what cannot be built becomes NotLoadable."""
    try:
        with _quiet():
            model, info = build()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise NotLoadable(f"the model in {directory} cannot be loaded: {_first_line(error)}") from None
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise NotLoadable(f"the model in {directory} cannot be loaded: {_first_line(error)}") from None
    problems = [
        *_named("tensors missing from the checkpoint", info["missing_keys"]),
        *_named("tensors the model does not know", info["unexpected_keys"]),
        *_named("tensors of another shape than the model's", [key[0] for key in info["mismatched_keys"]]),
    ]
    return model, tuple(problems)


def load(
    directory: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Loaded:
    """Model and tokenizer, in plain numbers; `dtype` None chooses by what is stored and what this machine can do."""
    device = device or best_device()
    tokenizer = load_tokenizer(directory)
    model, problems = load_model(directory, dtype=dtype, weights=weights)
    chosen = dtype or compute_dtype(model.dtype, device=device)
    model.to(device=device, dtype=chosen)
    return _loaded(model, tokenizer, problems=problems, dtype=chosen)


def load_quantized(directory: Path, *, like: Path) -> Loaded:
    """Model and tokenizer, calculating in the format of the model in `like`, on the device; a plain model is brought to it on the way."""
    tokenizer = load_tokenizer(directory)
    settings = None if encoding_in(directory) else BitsAndBytesConfig.from_dict(_settings_of_quantization(like))
    chosen = compute_dtype(Checkpoint(like).stored_dtype(), device=best_device())

    def build() -> tuple[Any, dict[str, Any]]:
        return AutoModelForCausalLM.from_pretrained(  # type: ignore[no-any-return]
            directory,
            dtype=chosen,
            device_map={"": best_device()},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **({} if settings is None else {"quantization_config": settings}),
        )

    model, problems = _checked(directory, build)
    return _loaded(model, tokenizer, problems=problems, dtype=chosen)


def _loaded(model: Any, tokenizer: Any, *, problems: tuple[str, ...], dtype: torch.dtype) -> Loaded:
    model.eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Loaded(subject=Subject(model=model, tokenizer=tokenizer), problems=problems, dtype=dtype)


def free_memory() -> int | None:
    """Bytes that are free on the accelerator; None without one."""
    if best_device().type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info()
    return int(free)


def placement_of(model: Path, *, base: Path) -> Placement:
    """Where and how the two are run; asked before either is loaded."""
    encoding = encoding_in(model)
    plain, stored = Checkpoint(base).data_bytes(), Checkpoint(model).data_bytes()
    return place(
        free=free_memory(),
        base=plain,
        candidate=plain if encoding else stored,
        stored=stored if encoding in RUN_AS_STORED else None,
    )


def parameter_count(model: Any) -> int:
    """How many numbers a model has (tied ones once)."""
    return sum(parameter.numel() for parameter in model.parameters())


def weights_bytes(model: Any) -> int:
    """What parameters and buffers occupy."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
