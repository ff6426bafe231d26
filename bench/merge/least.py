"""The least that a merge with digests can do: base and output are hashed, W + B·A is rounded once and brought to the disk.

Nothing is verified, no tensor has a digest and no element is calculated twice: what a merge is beside a copy. Of the engine it has the
order of chunks, the compiled sum and the digest that follows the writing. Into the output it writes how many seconds it took since its
libraries were there.
"""

import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from lora_job.hashing import Hasher
from lora_job.kernels import rows as kernels
from lora_job.kernels.build import library
from lora_job.merge.commands import SWITCH_SECONDS
from lora_job.merge.file_digest import FileDigest
from lora_job.merge.stream import chunks
from lora_job.merge.writeback import Writeback
from lora_job.tensors import Entry, Header, read_checkpoint

WORKERS = 2
SECONDS = "seconds.txt"
SCALE = 2
Factors = Mapping[str, npt.NDArray[np.float32]]


def main(base: Path, adapter: Path, output: Path) -> None:
    started = time.perf_counter()
    sys.setswitchinterval(SWITCH_SECONDS)
    headers = list(read_checkpoint(base).shards.values())
    factors = load_file(adapter / "adapter_model.safetensors")
    output.mkdir()
    with Hasher(threads=WORKERS) as hasher, Writeback() as writeback, ThreadPoolExecutor(WORKERS) as pool:
        files = [hasher.begin(header.path, size=header.path.stat().st_size) for header in headers]
        work = partial(
            _merge_file,
            factors=factors,
            output=output,
            lanes=WORKERS // len(headers),
            hasher=hasher,
            writeback=writeback,
        )
        list(pool.map(work, headers))
        for file in files:
            file.sha256.result()
    (output / SECONDS).write_text(f"{time.perf_counter() - started}\n", encoding="ascii")


def _merge_file(
    header: Header, *, factors: Factors, output: Path, lanes: int, hasher: Hasher, writeback: Writeback
) -> None:
    target = output / header.path.name
    spans = [("", header.data_start), *((entry.name, entry.end - entry.begin) for entry in header.entries)]
    source, sink = os.open(header.path, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT, 0o644)
    os.posix_fallocate(sink, 0, sum(size for _, size in spans))
    os.pwrite(sink, header.raw, 0)
    digest = FileDigest(target, spans=spans, check=lambda: None, hasher=hasher, writeback=writeback)
    with digest, ThreadPoolExecutor(lanes) as pool:
        digest.written("")

        def work(entry: Entry) -> None:
            _merge_tensor(entry, source, sink, offset=header.data_start + entry.begin, factors=factors)
            writeback.begin(sink, header.data_start + entry.begin, entry.end - entry.begin)
            digest.written(entry.name)

        list(pool.map(work, header.entries))
        os.fsync(sink)
        digest.result()


def _merge_tensor(entry: Entry, source: int, sink: int, *, offset: int, factors: Factors) -> None:
    size, stem = entry.end - entry.begin, f"base_model.model.{entry.name.removesuffix('.weight')}"
    b, a = (factors.get(f"{stem}.lora_{side}.weight") for side in "BA")
    if a is None or b is None:
        done = 0
        while done < size:
            done += os.copy_file_range(source, sink, size - done, offset + done, offset + done)
    else:
        row = entry.shape[1] * 2
        height = max(end - start for start, end in chunks(entry.shape, item=2))
        stored, result = (np.empty((height, entry.shape[1]), dtype=np.uint16) for _ in range(2))
        compiled, left = kernels.Kernels(library(kernels.usable()[0])), b * np.float32(SCALE)
        exact_left, exact_right, nothing = left.astype(float), a.astype(float), np.zeros(entry.shape[0], np.float32)
        for start, end in chunks(entry.shape, item=2):
            old, out = (rows[: end - start] for rows in (stored, result))
            os.preadv(source, [old.data], offset + start * row)
            compiled.merge(
                old,
                dtype=entry.dtype,
                left=left[start:end],
                right=a,
                exact_left=exact_left[start:end],
                exact_right=exact_right,
                least=nothing[start:end],
                result=out,
            )
            os.pwrite(sink, out.data, offset + start * row)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
