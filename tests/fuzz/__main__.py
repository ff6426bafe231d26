"""Coverage-guided fuzzing: `python -m tests.fuzz TARGET --seconds 150`. An input that breaks something is kept and named at the end."""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lora_job"]):
    from tests.fuzz.targets import TARGETS, attack, load, prepare
from tests.fuzz.seeds import GOOD, REGRESSIONS, WORDS

TOLD_EVERY = 1000


def _seeded(root: Path, target: str) -> Path:
    corpus = root / "corpus"
    corpus.mkdir()
    for number, data in enumerate((*GOOD[target], *REGRESSIONS[target])):
        (corpus / f"seed-{number}").write_bytes(data)
    escaped = ["".join(f"\\x{byte:02x}" for byte in word) for word in WORDS]
    (root / "words").write_text("".join(f'"{word}"\n' for word in escaped))
    return corpus


class _Costs:
    """Processor time of the inputs so far; told now and then, because the fuzzer ends the process itself."""

    def __init__(self) -> None:
        self._count, self._total, self._worst = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        self._count += 1
        self._total += seconds
        self._worst = max(self._worst, seconds)
        if self._count % TOLD_EVERY == 0:
            mean, worst = self._total / self._count * 1e3, self._worst * 1e3
            sys.stderr.write(f"cost: {self._count} inputs, mean {mean:.2f} ms, slowest {worst:.0f} ms\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=150)
    parser.add_argument("--artifacts", type=Path, default=Path("/tmp"), help="where a breaking input is kept")
    options = parser.parse_args()
    # One line per refused input would be all that is seen.
    logging.disable(logging.CRITICAL)
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    prepare(root)
    # Before the loop, whose first input would be the one that takes seconds; and instrumented, or nothing guides it.
    with atheris.instrument_imports(include=["lora_job"]):
        load(options.target)
    corpus = _seeded(root, options.target)
    # libFuzzer's own limits are the net below ours: an endless loop in C is not interrupted by anything else.
    flags = [
        "-timeout=30",
        "-rss_limit_mb=4096",
        "-max_len=4096",
        "-print_final_stats=1",
        f"-max_total_time={options.seconds}",
    ]
    place = [f"-dict={root / 'words'}", f"-artifact_prefix={options.artifacts}/", str(corpus)]
    costs = _Costs()

    def one(data: bytes) -> None:
        started = time.process_time()
        attack(options.target, data, root=root)
        costs.add(time.process_time() - started)

    atheris.Setup([sys.argv[0], *flags, *place], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
