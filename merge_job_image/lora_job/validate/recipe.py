"""What a merged model claims to be: base, adapters and recipe, from its merge.json or from the command line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from lora_job.merge import recipe as merge_recipe
from lora_job.outcome import Refused

MANIFEST = "merge.json"
Word = TypeVar("Word", bound=StrEnum)


def _word(field: str, value: str, kind: type[Word]) -> Word:
    try:
        return kind(value)
    except ValueError:
        raise Refused(
            "UnsupportedRecipe", f"merge.json: field '{field}': expected one of {', '.join(kind)}, found {value!r}"
        ) from None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How base and adapters were combined; the defaults are what a plain PEFT merge does."""

    strategy: str = "linear"
    weights: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    t: float = 0.5
    density: float = 0.5
    seed: int = 0
    dtype: str = "auto"
    quantization: str = "none"

    @property
    def live_factor(self) -> float | None:
        """By what the one adapter is multiplied so that running it live predicts the same as the merged model.

        None where there is no such adapter. What quantization does is not the adapter's: the base is compared in the same format.
        """
        one = self.strategy == "linear" and len(self.weights) == 1
        return self.weights[0] * self.scale if one else None

    def for_planning(self) -> merge_recipe.Recipe:
        """The same numbers for the merge engine's plan."""
        return merge_recipe.Recipe(
            strategy=_word("strategy", self.strategy, merge_recipe.Strategy),
            weights=self.weights,
            scale=self.scale,
            t=self.t,
            density=self.density,
            seed=self.seed,
            dtype=_word("dtype", self.dtype, merge_recipe.OutputDtype),
            quantization=_word("quantization", self.quantization, merge_recipe.Quantization),
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """A directory a manifest names, with the digest it had then ("" when not recorded)."""

    path: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What merge.json says of a model."""

    recipe: Recipe
    base: Source | None
    adapters: tuple[Source, ...]
    digest: str
    """The model's own digest, "" when not recorded."""
    allowed_template: str
    """sha256 of a chat template that may differ from the base's, "" for none."""


def _source(raw: Any) -> Source | None:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("path"), str):
        return None
    return Source(path=Path(raw["path"]), digest=str(raw.get("digest") or ""))


def _weights(recipe: Mapping[str, Any], adapters: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    listed = recipe.get("weights")
    if isinstance(listed, list) and listed:
        return tuple(float(weight) for weight in listed)
    return tuple(float(adapter.get("weight", 1.0)) for adapter in adapters) or (1.0,)


def parse_manifest(raw: object, *, where: str) -> Manifest:
    """A manifest from its JSON value."""
    if not isinstance(raw, dict):
        raise Refused("InvalidManifest", f"{where}: expected a JSON object, found {type(raw).__name__}")
    recipe = raw.get("recipe", {})
    adapters = [adapter for adapter in raw.get("adapters", []) if isinstance(adapter, dict)]
    if not isinstance(recipe, dict):
        raise Refused("InvalidManifest", f"{where}: field 'recipe': expected an object, found {type(recipe).__name__}")
    try:
        parsed = Recipe(
            strategy=str(recipe.get("strategy", "linear")),
            weights=_weights(recipe, adapters),
            scale=float(recipe.get("scale", 1.0)),
            t=float(recipe.get("t", 0.5)),
            density=float(recipe.get("density", 0.5)),
            seed=int(recipe.get("seed", 0)),
            dtype=str(recipe.get("dtype", "auto")),
            quantization=str(recipe.get("quantization", "none")),
        )
    except (TypeError, ValueError) as error:
        raise Refused("InvalidManifest", f"{where}: the recipe's numbers cannot be read: {error}") from None
    output = raw.get("output", {})
    return Manifest(
        recipe=parsed,
        base=_source(raw.get("base")),
        adapters=tuple(source for adapter in adapters if (source := _source(adapter)) is not None),
        digest=str(output.get("digest") or "") if isinstance(output, dict) else "",
        allowed_template=str(recipe.get("allowedChatTemplate") or ""),
    )


def read_manifest(model: Path) -> Manifest | None:
    """The manifest of a model; None when it was not merged by this engine."""
    path = model / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Refused("InvalidManifest", f"{path}: expected JSON: {error}") from None
    return parse_manifest(raw, where=str(path))
