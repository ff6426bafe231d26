"""The least that a merge with digests can do: base and output are hashed, W + B·A is rounded once and brought to the disk.

Nothing is verified, no tensor has a digest and no element is calculated twice: what a merge is beside a copy. Of the engine it has the
order of chunks and the digest that follows the writing. Into the output it writes how many seconds it took since torch was imported.
"""

import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from lora_job.digest import file_sha256
from lora_job.merge.commands import SWITCH_SECONDS
from lora_job.tensors import Entry, Header, read_checkpoint

WORKERS = 2
SECONDS = "seconds.txt"
Factors = Mapping[str, Any]


def main(base: Path, adapter: Path, output: Path) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    headers = list(read_checkpoint(base).shards.values())
    with ThreadPoolExecutor(WORKERS) as pool:
        digests = [pool.submit(file_sha256, header.path) for header in headers]
        import torch  # noqa: F401, PLC0415 (the base is hashed meanwhile)

        started = time.perf_counter()
        _merge(headers, adapter, output)
        for digest in digests:
            digest.result()
    (output / SECONDS).write_text(f"{time.perf_counter() - started}\n", encoding="ascii")


def _merge(headers: list[Header], adapter: Path, output: Path) -> None:
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    torch.set_num_threads(1)
    factors = load_file(adapter / "adapter_model.safetensors")
    output.mkdir()
    with ThreadPoolExecutor(WORKERS) as pool:
        lanes = WORKERS // len(headers)
        list(pool.map(partial(_merge_file, factors=factors, output=output, lanes=lanes), headers))


def _merge_file(header: Header, *, factors: Factors, output: Path, lanes: int) -> None:
    from lora_job.merge.file_digest import FileDigest  # noqa: PLC0415

    target = output / header.path.name
    spans = [("", header.data_start), *((entry.name, entry.end - entry.begin) for entry in header.entries)]
    source, sink = os.open(header.path, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT, 0o644)
    os.posix_fallocate(sink, 0, sum(size for _, size in spans))
    os.pwrite(sink, header.raw, 0)
    with FileDigest(target, spans=spans, check=lambda: None) as digest, ThreadPoolExecutor(lanes) as pool:
        digest.written("")

        def work(entry: Entry) -> None:
            _merge_tensor(entry, source, sink, offset=header.data_start + entry.begin, factors=factors)
            digest.written(entry.name)

        list(pool.map(work, header.entries))
        os.fsync(sink)
        digest.result()


def _merge_tensor(entry: Entry, source: int, sink: int, *, offset: int, factors: Factors) -> None:
    import torch  # noqa: PLC0415

    from lora_job.merge import kernels  # noqa: PLC0415
    from lora_job.merge.kernels.build import library  # noqa: PLC0415
    from lora_job.merge.stream import chunks  # noqa: PLC0415
    from lora_job.merge.writeback import begin_writeback  # noqa: PLC0415

    size, stem = entry.end - entry.begin, f"base_model.model.{entry.name.removesuffix('.weight')}"
    b, a = (factors.get(f"{stem}.lora_{side}.weight") for side in "BA")
    if a is None or b is None:
        done = 0
        while done < size:
            done += os.copy_file_range(source, sink, size - done, offset + done, offset + done)
    else:
        row = entry.shape[1] * 2
        height = max(end - start for start, end in chunks(entry.shape, item=2))
        stored, result = (torch.empty(height, entry.shape[1], dtype=torch.bfloat16) for _ in range(2))
        compiled, left, right = kernels.Kernels(library(kernels.usable()[0])), b.float() * 2, a.float()
        exact_left, exact_right, nothing = left.double(), right.double(), torch.zeros(entry.shape[0])
        for start, end in chunks(entry.shape, item=2):
            old, out = (rows[: end - start] for rows in (stored, result))
            os.preadv(source, [memoryview(old.view(torch.uint8).numpy())], offset + start * row)  # type: ignore[arg-type]
            compiled.merge(
                old,
                left=left[start:end],
                right=right,
                exact_left=exact_left[start:end],
                exact_right=exact_right,
                least=nothing[start:end],
                result=out,
            )
            os.pwrite(sink, memoryview(out.view(torch.uint8).numpy()), offset + start * row)  # type: ignore[arg-type]
    begin_writeback(sink, offset, size)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
