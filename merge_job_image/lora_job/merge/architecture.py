"""How names in memory, which adapters use, relate to names on disk; and which layers store their weight transposed.

Facts about model families, nothing else. A name is only ever translated into one that the base really has.
"""

import re
from collections.abc import Collection, Iterator

from lora_job.tensors import Checkpoint

__all__ = ["EMBEDDINGS", "HEADS", "is_conv1d", "is_embedding", "names_in_memory", "tensor_on_disk"]

# transformers.pytorch_utils.Conv1D: weight [in, out]. Not told by shape, because square matrices exist.
_CONV1D = {
    "gpt2": re.compile(r"\.(c_attn|c_proj|c_fc|q_attn)$"),
    "openai-gpt": re.compile(r"\.(c_attn|c_proj|c_fc)$"),
    "imagegpt": re.compile(r"\.(c_attn|c_proj|c_fc|q_attn)$"),
    "decision_transformer": re.compile(r"\.(c_attn|c_proj|c_fc|q_attn)$"),
}
# Tables of vectors, of tokens, positions and types alike, by the last part of a module's name.
_EMBEDDING = re.compile(r"(^|\.)(\w*emb\w*|wte|wpe|shared)$")
# (in memory, on disk); tried after the name itself.
_RENAMES: dict[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    "gpt_neox": ((re.compile(r"^lm_head$"), "embed_out"),),
    "mixtral": (
        (re.compile(r"\.mlp\.experts\.(\d+)\.gate_proj$"), r".block_sparse_moe.experts.\1.w1"),
        (re.compile(r"\.mlp\.experts\.(\d+)\.up_proj$"), r".block_sparse_moe.experts.\1.w3"),
        (re.compile(r"\.mlp\.experts\.(\d+)\.down_proj$"), r".block_sparse_moe.experts.\1.w2"),
        (re.compile(r"\.mlp\.gate$"), ".block_sparse_moe.gate"),
    ),
}
# (on disk, in memory), for the modules that a config.json may have to name.
_BACK: dict[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    "gpt_neox": ((re.compile(r"^embed_out$"), "lm_head"),),
    "mixtral": ((re.compile(r"\.block_sparse_moe\.gate$"), ".mlp.gate"),),
}
# Checkpoints of the bare model (hub GPT-2) lack the prefix that the model with a head gives it.
_BODY_PREFIXES = ("model.", "transformer.", "gpt_neox.")
EMBEDDINGS = (
    "model.embed_tokens",
    "embed_tokens",
    "transformer.wte",
    "wte",
    "gpt_neox.embed_in",
    "model.decoder.embed_tokens",
    "decoder.embed_tokens",
    "model.language_model.embed_tokens",
    "language_model.model.embed_tokens",
)
HEADS = ("lm_head", "embed_out", "language_model.lm_head")


def is_conv1d(model_type: str, module: str) -> bool:
    """Whether a module keeps its weight as [in, out]."""
    pattern = _CONV1D.get(model_type)
    return pattern is not None and pattern.search(module) is not None


def is_embedding(module: str) -> bool:
    """Whether a module looks vectors up and multiplies nothing."""
    return _EMBEDDING.search(module) is not None


def _spellings(model_type: str, module: str) -> Iterator[str]:
    yield module
    for pattern, replacement in _RENAMES.get(model_type, ()):
        if pattern.search(module):
            yield pattern.sub(replacement, module)
    for prefix in _BODY_PREFIXES:
        if module.startswith(prefix):
            yield module.removeprefix(prefix)
        else:
            yield f"{prefix}{module}"


def tensor_on_disk(model_type: str, module: str, kind: str, *, known: Collection[str]) -> str | None:
    """The base's tensor for `module.kind`, None when it has none."""
    return next((name for spelling in _spellings(model_type, module) if (name := f"{spelling}.{kind}") in known), None)


def names_in_memory(model_type: str, module: str) -> list[str]:
    """Other names that a module on disk has once it is loaded."""
    return [
        pattern.sub(replacement, module) for pattern, replacement in _BACK.get(model_type, ()) if pattern.search(module)
    ]


def embedding_on_disk(base: Checkpoint) -> str | None:
    """The input embedding's tensor."""
    return next((name for module in EMBEDDINGS if (name := f"{module}.weight") in base.file_of), None)
