"""A whole tensor of the base or of an adapter, as it is."""

from lora_job.merge.operations.calculation import Calculated
from lora_job.merge.stream import Reader
from lora_job.merge.torch_rows import read_rows

__all__ = ["Whole"]


class Whole:
    """Rows in the dtype they are stored in: their rounding is the only one."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def rows(self, start: int, end: int) -> Calculated:
        return Calculated(before=None, after=read_rows(self._reader, start, end))

    def change_norm(self) -> float | None:
        return None
