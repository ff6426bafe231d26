"""dare: each element of a delta is dropped with probability 1 − density, what stays is divided by density.

The draw for an element is a function of (seed, adapter digest, tensor name, index) and of nothing else: Philox is a block cipher on a
counter, so any range can be drawn without what comes before it. Chunks, workers, the order of adapters and a resumed run do not matter.
    key       first 128 bits of sha256 over the JSON [seed, adapter digest, tensor name]
    draw i    word i mod 4 of Philox4x64-10(key, counter = i div 4); stays when draw < density · 2⁶⁴
L. Yu et al., Language models are super Mario, 2023; J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011.
"""

import hashlib
import math

import numpy as np
import torch

from lora_job.merge.recipe import canonical

__all__ = ["RandomDrop"]

WORDS = 4
COUNTERS = 2**256


class RandomDrop:
    """Which elements of one adapter's delta for one tensor stay."""

    def __init__(self, *, seed: int, digest: str, tensor: str, density: float) -> None:
        if not digest:
            raise AssertionError("an adapter without a digest would share its draws with others")
        key = hashlib.sha256(canonical([seed, digest, tensor])).digest()[:16]
        self.density = density
        self._key = np.frombuffer(key, dtype="<u8")
        # Exact: 53 bits of density, the lower 11 bits of the bound are 0.
        self._bound = math.ceil(density * 2.0**53) << 11

    def kept(self, *, start: int, count: int) -> torch.Tensor:
        """Of `count` elements from index `start` on, those that stay."""
        if self._bound >= 2**64:
            return torch.ones(count, dtype=torch.bool)
        block, skip = divmod(start, WORDS)
        # numpy counts up before its first block. Whole words of the cipher, drawn without holding Python's lock, as random_raw would.
        generator = np.random.Generator(np.random.Philox(key=self._key, counter=(block - 1) % COUNTERS))
        draws = generator.integers(2**64 - 1, size=skip + count, dtype=np.uint64, endpoint=True)[skip:]
        return torch.from_numpy(draws < np.uint64(self._bound))
