"""Which tensors of the base a module of an adapter means, and what embedding and head are to each other."""

from collections.abc import Mapping
from functools import cached_property

from lora_job.merge.architecture import HEADS, embedding_on_disk, tensor_on_disk
from lora_job.merge.in_memory import InMemory, read_in_memory, ties_by_default
from lora_job.model_config import ModelConfig
from lora_job.tensors import Checkpoint, Entry

__all__ = ["Targets"]


class Targets:
    """Names of one base; what transformers knows of it is asked only when a name on disk does not answer."""

    def __init__(self, *, base: Checkpoint, config: ModelConfig) -> None:
        self.base = base
        self.config = config
        self.entries: Mapping[str, Entry] = base.entries
        self.embedding = embedding_on_disk(base)
        self.head = next((name for module in HEADS if (name := f"{module}.weight") in self.entries), None)

    @cached_property
    def memory(self) -> InMemory | None:
        """The model as transformers holds it; None when it does not know it."""
        return read_in_memory(self.base, self.config)

    @cached_property
    def tied(self) -> bool:
        """Whether the head is the embedding once the model is in memory."""
        if self.embedding is None:
            return False
        if self.config.stated_tie is None and self.head is not None:
            return ties_by_default(self.config.model_type)
        return self.config.tied

    @property
    def new_head(self) -> str:
        """The name a head gets that the base does not have on disk."""
        return self.head or ("embed_out.weight" if self.config.model_type == "gpt_neox" else "lm_head.weight")

    def find(self, module: str, kind: str) -> str | None:
        """The tensor a module's part changes: on disk, or the tied head that is not on disk."""
        name = self._by_name(module, kind)
        if name is not None:
            return name
        return self.memory.on_disk(f"{module}.{kind}") if self.memory is not None else None

    def _by_name(self, module: str, kind: str) -> str | None:
        name = tensor_on_disk(self.config.model_type, module, kind, known=self.entries.keys())
        return self.new_head if name is None and kind == "weight" and self.tied and module in HEADS else name

    def origin(self, name: str) -> Entry:
        """The base tensor that a tensor's values start from."""
        if name in self.entries:
            return self.entries[name]
        if self.embedding is None:
            raise AssertionError("only a tied head lacks a tensor of its own")
        return self.entries[self.embedding]

    def has_vocabulary(self, name: str) -> bool:
        """Whether a tensor's rows are tokens."""
        return name in {self.embedding, self.new_head, self.new_head.removesuffix("weight") + "bias"}
