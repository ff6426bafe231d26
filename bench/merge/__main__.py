"""`python -m bench.merge --sizes 1,3 --rounds 5`: a table here, JSON, page and picture below --publish.

Runs are interleaved (cp, lora-job, the others, cp, lora-job, …), and a ratio is that of two runs beside each other, because a machine's
disk and neighbours change more in minutes than what is measured. Everything written is removed.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.merge.checkpoints import SHAPES, Shape, write_adapter, write_base
from bench.merge.contestants import CONTESTANTS, Case, Result
from bench.merge.report import Size, publish, show, summary

Runs = dict[str, list[Result]]


def _compare(case: Case, *, rounds: int, against: Sequence[str]) -> Runs:
    found: Runs = {name: [] for name in against}
    for turn in range(rounds):
        for name in against:
            if name == "peft" and turn > 0:
                continue  # a run takes minutes and differs from the next by few per cent
            result = CONTESTANTS[name](case)
            found[name].append(result)
            print(
                f"  round {turn + 1}  {name:<11} {result.seconds:7.2f} s  {result.peak_anonymous / 1e6:8.0f} MB",
                flush=True,
            )
    return found


def _run(size: str, shape: Shape, *, work: Path, rounds: int, against: Sequence[str]) -> Size:
    print(f"{shape.title}: writing base and adapter", flush=True)
    place = Path(tempfile.mkdtemp(prefix="bench-merge-", dir=work))
    try:
        base = write_base(place / "base", shape)
        adapter = write_adapter(place / "adapter", shape, base=base)
        case = Case(base=base, adapter=adapter, work=place, bytecode=work / "bytecode")
        found = _compare(case, rounds=rounds, against=against)
        weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        extra = (adapter / "adapter_model.safetensors").stat().st_size
        return summary(size, title=shape.title, base_bytes=weights, adapter_bytes=extra, files=shape.files, runs=found)
    finally:
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.merge", description=__doc__)
    parser.add_argument("--sizes", default="1,3", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--peft", default="", help="sizes that PEFT merges too; 6 needs about 16 GB of memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where checkpoints are written; a temporary directory otherwise")
    parser.add_argument("--publish", type=Path, help="directory for merge.json, merge.md and merge.svg")
    parser.add_argument("--note", default="", help="a sentence about the machine that the page repeats")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="bench-merge-"))
    work.mkdir(parents=True, exist_ok=True)
    everyone = ["cp", "lora-job", "after-fetch", "least", *(["peft"] if options.peft else [])]
    _run("0.1", SHAPES["0.1"], work=work, rounds=1, against=everyone)  # not measured: compiles what they import
    sizes = []
    for size in options.sizes.split(","):
        against = [name for name in everyone if name != "peft" or size in options.peft.split(",")]
        sizes.append(_run(size, SHAPES[size], work=work, rounds=options.rounds, against=against))
    shutil.rmtree(work if options.work is None else work / "bytecode")
    show(sizes)
    if options.publish is not None:
        publish(sizes, directory=options.publish, note=options.note)


if __name__ == "__main__":
    main()
