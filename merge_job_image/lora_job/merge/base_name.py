"""Was the adapter trained on this base? Told by names, before any weight is looked at; digests play no part in it."""

from pathlib import Path, PurePosixPath

from lora_job.merge.adapter import Adapter
from lora_job.model_config import ModelConfig
from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["check_base_name"]


def _last(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/").rstrip("/")).name.casefold()


def _names_of(base: Path, config: ModelConfig) -> list[str]:
    """Every name the base goes by: its directory, its place in a Hugging Face cache, what its config says."""
    names = [base.name, base.resolve().name, str(config.raw.get("_name_or_path") or "")]
    repository = base.resolve().parent.parent.name
    if base.resolve().parent.name == "snapshots" and repository.startswith("models--"):
        names.append(repository.removeprefix("models--").replace("--", "/"))
    return [name for name in names if name]


def check_base_name(adapter: Adapter, *, base: Path, config: ModelConfig, allowed: bool) -> bool:
    """True when the adapter names this base; refused when it does not, unless `allowed`, which makes it False."""
    stated = adapter.config.base_name
    same_path = bool(stated) and Path(stated).is_absolute() and Path(stated) in {base, base.resolve()}
    same_name = bool(stated) and _last(stated) in {_last(name) for name in _names_of(base, config)}
    if same_path or same_name:
        return True
    if allowed:
        return False
    named = f"names {stated!r}" if stated else "names no base model"
    raise Refused(
        Reason.WRONG_BASE,
        f"{adapter.config.path}: field 'base_model_name_or_path' {named}, the base given is {base.name!r}; "
        "give the base it was trained on, or, if this is the same model under another name, set merge.allowUnverifiedBase: true "
        "(lora-job: --allow-unverified-base)",
    )
