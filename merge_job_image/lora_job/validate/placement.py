"""Where two models run: decided by arithmetic before either is loaded.

    both fit the device            in turns, in plain numbers
    each fits alone                one after the other
    the base does not fit          both in the candidate's quantization, where the device can calculate in it
    not even that                  in main memory, on the processor

"Plain numbers" is what a model holds in the dtype it is stored in; a quantized candidate takes as much as its base once its weights are
plain. Main memory is not asked: the Job's request is made for two models.
"""

from dataclasses import dataclass

__all__ = ["AT_EASE", "RUN_AS_STORED", "Placement", "place"]

# Key-value cache, logits and the allocator's rounding.
ROOM_FACTOR = 1.1
ROOM_TO_RUN = 2 * 2**30
RUN_AS_STORED = frozenset({"bnb-nf4", "bnb-int8"})
"""Formats that transformers calculates in with what the job image holds, and to which it can bring a base while loading it."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How base and candidate are run."""

    on_device: bool
    """False: on the processor, although there is a device."""
    together: bool
    """Both in memory, so that they can be timed in turns."""
    quantized: bool
    """Both in the candidate's quantization, the base brought to it while it is loaded."""

    @property
    def note(self) -> str:
        """One sentence for a person; "" for the usual case."""
        said = (
            []
            if self.together
            else ["the device has no room for model and base at once: they are measured one after the other"]
        )
        if self.quantized:
            said = ["the base is too big for the device: it runs in the model's quantization", *said]
        if not self.on_device:
            said = ["the device has no room for the base, in whatever format: both models run on the processor"]
        return "; ".join(said)


AT_EASE = Placement(on_device=True, together=True, quantized=False)


def _fits(weights: int, *, free: int) -> bool:
    return weights * ROOM_FACTOR + ROOM_TO_RUN <= free


def place(*, free: int | None, candidate: int, base: int, stored: int | None) -> Placement:
    """Bytes in: `free` on the device (None: there is none), both models in plain numbers, and the candidate as it is stored (None where
    it cannot be run so).
    """
    if free is None or _fits(candidate + base, free=free):
        return AT_EASE
    if _fits(max(candidate, base), free=free):
        return Placement(on_device=True, together=False, quantized=False)
    if stored is not None and _fits(stored, free=free):
        # a base in the candidate's format takes what the candidate takes
        return Placement(on_device=True, together=_fits(2 * stored, free=free), quantized=True)
    return Placement(on_device=False, together=True, quantized=False)
