"""sha256.c for Python: files that are hashed one or two at a time. Needs ctypes alone: whoever hashes first has loaded nothing yet."""

import ctypes
import functools
from collections.abc import Sequence

from lora_job.kernels.build import SHA256
from lora_job.kernels.processor import flags

__all__ = ["BLOCK", "Sha256", "TwoAtATime", "find"]

BLOCK = 64
"""Bytes: a message is hashed in these, and its end is padded to them."""
_NEEDS = {"sha_ni", "sse4_1", "ssse3"}
# FIPS 180-4, 5.3.3: from the square roots of the first eight primes.
_START = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)


class Sha256(ctypes.Structure):
    """Of a file's first `offset` bytes; `failure` is 0 or why no more could be read: an errno, -1 where the file ended."""

    _fields_ = (
        ("words", ctypes.c_uint32 * 8),
        ("offset", ctypes.c_int64),
        ("descriptor", ctypes.c_int32),
        ("failure", ctypes.c_int32),
    )
    offset: int
    descriptor: int
    failure: int


class TwoAtATime:
    """The loaded library; calls hold no lock of the interpreter."""

    lanes = 2

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(SHA256))

    def begin(self, descriptor: int) -> Sha256:
        """Nothing of it is hashed."""
        return Sha256(words=(ctypes.c_uint32 * 8)(*_START), descriptor=descriptor)

    def advance(self, files: Sequence[Sha256], size: int) -> None:
        """Hashes `size` bytes more of each, whole blocks, as far as each can be read; `failure` tells."""
        if not 1 <= len(files) <= self.lanes or size % BLOCK or size < 0:
            raise AssertionError(f"expected one or two files and whole blocks, found {len(files)} and {size} bytes")
        pointers = (ctypes.POINTER(Sha256) * len(files))(*map(ctypes.pointer, files))
        self._library.sha256_files(pointers, ctypes.c_int(len(files)), ctypes.c_int64(size))

    def finish(self, file: Sha256, tail: bytes) -> str:
        """Lower-case hex once less than a block is left, which is `tail`."""
        length = file.offset + len(tail)
        padding = b"\x80" + bytes(-(length + 9) % BLOCK) + (8 * length).to_bytes(8, "big")
        last = tail + padding
        self._library.sha256_blocks(ctypes.byref(file), last, ctypes.c_int64(len(last) // BLOCK))
        return b"".join(word.to_bytes(4, "big") for word in file.words).hex()


@functools.cache
def find() -> TwoAtATime | None:
    """None where the library was not built or cannot be loaded, or the processor has no SHA extensions."""
    if not flags() >= _NEEDS:
        return None
    try:
        return TwoAtATime()
    except OSError:
        return None
