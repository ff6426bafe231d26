"""Every strategy through `lora-job merge` against its definition in float64; and what must hold whatever the numbers are."""

import errno
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_job.cli import run
from lora_job.merge import recalculated, sampled
from lora_job.merge.engine import Watch, Writer
from lora_job.merge.operations import calculate
from lora_job.merge.plan import ShardPlan, Step
from lora_job.merge.publish import Partial
from lora_job.merge.strategies import combined, trim
from tests.job.strategies.conftest import arguments
from tests.job.strategies.oracle import Asked, merged
from tests.job.test_merge import differing, tensors

pytestmark = pytest.mark.engine

STRATEGIES = ("linear", "task_arithmetic", "slerp", "ties", "dare_linear", "dare_ties")
MANY = tuple(name for name in STRATEGIES if name != "slerp")
WEIGHTS = (1.0, 0.5, 0.25, 2.0, 0.75, -0.3, 0.1, 1.5)


def merge(base: Path, adapters: Sequence[Path], output: Path, asked: Asked, **more: object) -> int:
    options = {"strategy": asked.strategy, "scale": asked.scale, "t": asked.t, "density": asked.density}
    weighted = list(zip(adapters, asked.weights, strict=True))
    return run(arguments(base, weighted, output, **options, seed=asked.seed, **more))


def manifest(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "merge.json").read_text())
    return found


def digests(output: Path) -> list[str]:
    return [adapter["digest"] for adapter in manifest(output)["adapters"]]


@contextmanager
def folder() -> Iterator[Path]:
    """A directory for one example of hypothesis."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def check_against_the_definition(base: Path, adapters: Sequence[Path], output: Path, asked: Asked, dtype: str) -> None:
    assert merge(base, adapters, output, asked, dtype=dtype) == 0
    before, found = tensors(base), tensors(output)
    wanted = merged(before, adapters, asked, digests=digests(output))
    assert wanted
    for name, tensor in found.items():
        if name in wanted:
            share = 1e-4 if tensor.dtype is torch.bfloat16 else 1e-5
            assert differing(tensor, wanted[name], old=before[name]) <= share, name
        else:
            assert torch.equal(tensor, before[name].to(tensor.dtype)), name


@pytest.mark.parametrize("dtype", ["auto", "float32"], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("count", [1, 2, 3, 8], ids=["one", "two", "three", "eight"])
@pytest.mark.parametrize("strategy", MANY)
def test_adapters_of_different_ranks_and_modules_merge_by_the_definition(
    base: Path, adapters: list[Path], tmp_path: Path, strategy: str, count: int, dtype: str
) -> None:
    asked = Asked(strategy=strategy, weights=WEIGHTS[:count], scale=0.8, density=0.3, seed=7)
    check_against_the_definition(base, adapters[:count], tmp_path / "out", asked, dtype)


@pytest.mark.parametrize("dtype", ["auto", "float32"], ids=["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("pair", "weights"),
    [
        pytest.param((0, 1), (1.0, 1.0), id="modules in both"),
        pytest.param((0, 1), (0.5, -2.0), id="weights act on the deltas"),
        pytest.param((2, 3), (1.0, 1.0), id="modules in one alone: a straight line to 0"),
        pytest.param((0, 0), (1.0, 1.0), id="parallel: a straight line"),
        pytest.param((0, 0), (1.0, -1.0), id="opposite: a straight line"),
    ],
)
def test_slerp_turns_between_the_deltas(
    base: Path, adapters: list[Path], tmp_path: Path, pair: tuple[int, int], weights: tuple[float, float], dtype: str
) -> None:
    asked = Asked(strategy="slerp", weights=weights, scale=1.5, t=0.3)
    check_against_the_definition(base, [adapters[place] for place in pair], tmp_path / "out", asked, dtype)


def test_slerp_with_one_adapter_is_linear_and_says_so(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    for strategy in ("slerp", "linear"):
        assert merge(base, adapters[:1], tmp_path / strategy, Asked(strategy=strategy, weights=(0.5,))) == 0
    assert manifest(tmp_path / "slerp")["output"]["digest"] == manifest(tmp_path / "linear")["output"]["digest"]
    assert "SlerpOfOne" in {warning["code"] for warning in manifest(tmp_path / "slerp")["warnings"]}
    assert manifest(tmp_path / "linear")["warnings"] == []


unit = st.floats(0.05, 1.0)
weight = st.floats(-2.0, 2.0).filter(lambda value: abs(value) > 0.01)
few = settings(max_examples=10, deadline=None)


@settings(max_examples=4, deadline=None)
@given(
    weights=st.tuples(weight, weight).filter(lambda pair: abs(sum(pair)) > 0.01), density=unit, t=st.floats(0.0, 1.0)
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_scale_of_zero_is_the_base_bit_for_bit(
    base: Path, adapters: list[Path], strategy: str, weights: tuple[float, float], density: float, t: float
) -> None:
    asked = Asked(strategy=strategy, weights=weights, scale=0.0, t=t, density=density)
    with folder() as path:
        assert merge(base, adapters[:2], path / "out", asked) == 0
        for name, data in ((file.name, file.read_bytes()) for file in base.glob("*.safetensors")):
            assert (path / "out" / name).read_bytes() == data


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_workers_do_not_change_a_byte(base: Path, adapters: list[Path], tmp_path: Path, strategy: str) -> None:
    found = set()
    for workers in (1, 2, 4):
        output = tmp_path / str(workers)
        assert merge(base, adapters[:2], output, Asked(strategy=strategy, weights=(1.0, 0.4)), workers=workers) == 0
        found.add(manifest(output)["output"]["digest"])
    assert len(found) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_gives_the_same_bytes(
    base: Path, adapters: list[Path], tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(strategy=strategy, weights=(1.0, 0.4))
    assert merge(base, adapters[:2], tmp_path / "whole", asked) == 0
    finished = Partial.finished
    done: list[str] = []

    def crash(partial: Partial, file: str, *arguments: Any) -> None:
        """The first file was finished when the disk failed, the second was written and not recorded."""
        if not done:
            done.append(file)
            finished(partial, file, *arguments)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Partial, "finished", crash)
        assert merge(base, adapters[:2], tmp_path / "out", asked, workers=1) != 0
    kept = tmp_path / ".out.partial" / done[0]
    stamp = kept.stat().st_mtime_ns
    assert merge(base, adapters[:2], tmp_path / "out", asked) == 0
    assert (tmp_path / "out" / kept.name).stat().st_mtime_ns == stamp
    assert manifest(tmp_path / "out")["output"]["digest"] == manifest(tmp_path / "whole")["output"]["digest"]


@pytest.mark.parametrize("chunk", [512, 2**20], ids=["many chunks", "one chunk"])
@pytest.mark.parametrize("strategy", ["ties", "dare_linear", "dare_ties"])
def test_the_size_of_a_block_does_not_change_what_is_kept(
    base: Path, adapters: list[Path], tmp_path: Path, strategy: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(combined, "BLOCK_ELEMENTS", chunk)
    asked = Asked(strategy=strategy, weights=(1.0, 0.4), density=0.4, seed=3)
    check_against_the_definition(base, adapters[:2], tmp_path / "out", asked, "float32")


def float32(base: Path, adapters: Sequence[Path], asked: Asked) -> dict[str, torch.Tensor]:
    """A merge's tensors, wide enough to calculate with."""
    with folder() as path:
        assert merge(base, adapters, path / "out", asked, dtype="float32") == 0
        return {name: tensor.double() for name, tensor in tensors(path / "out").items()}


@few
@given(first=st.tuples(weight, weight), second=st.tuples(weight, weight))
def test_task_arithmetic_is_linear_in_the_weights(
    base: Path, adapters: list[Path], first: tuple[float, float], second: tuple[float, float]
) -> None:
    both = (first[0] + second[0], first[1] + second[1])
    one, other, total = (
        float32(base, adapters[:2], Asked(strategy="task_arithmetic", weights=weights))
        for weights in (first, second, both)
    )
    for name, tensor in tensors(base).items():
        torch.testing.assert_close(
            one[name] + other[name] - tensor.double(), total[name], atol=2e-6, rtol=1e-6, msg=name
        )


@few
@given(t=st.sampled_from([0.0, 1.0]), weights=st.tuples(weight, weight), pair=st.permutations(range(5)))
def test_slerp_ends_at_the_single_adapters_bit_for_bit(
    base: Path, adapters: list[Path], t: float, weights: tuple[float, float], pair: list[int]
) -> None:
    two = [adapters[place] for place in pair[:2]]
    end = int(t)
    with folder() as path:
        assert merge(base, two, path / "two", Asked(strategy="slerp", weights=weights, t=t)) == 0
        assert merge(base, two[end : end + 1], path / "one", Asked(strategy="linear", weights=(weights[end],))) == 0
        assert manifest(path / "two")["output"]["digest"] == manifest(path / "one")["output"]["digest"]


@few
@given(t=unit, weights=st.tuples(weight, weight))
def test_slerp_from_the_other_end_is_the_same_turn(
    base: Path, adapters: list[Path], t: float, weights: tuple[float, float]
) -> None:
    there = float32(base, adapters[:2], Asked(strategy="slerp", weights=weights, t=t))
    back = float32(base, adapters[1::-1], Asked(strategy="slerp", weights=weights[::-1], t=1.0 - t))
    for name, tensor in there.items():
        torch.testing.assert_close(tensor, back[name], atol=2e-6, rtol=1e-6, msg=name)


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(4)), density=unit, seed=st.integers(0, 2**63 - 1))
@pytest.mark.parametrize("strategy", MANY)
def test_the_order_of_adapters_does_not_matter(
    base: Path, adapters: list[Path], strategy: str, order: list[int], density: float, seed: int
) -> None:
    weights = (1.0, 0.5, 0.25, 2.0)
    straight = Asked(strategy=strategy, weights=weights, density=density, seed=seed)
    turned = Asked(strategy=strategy, weights=tuple(weights[i] for i in order), density=density, seed=seed)
    one = float32(base, adapters[:4], straight)
    other = float32(base, [adapters[place] for place in order], turned)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=1e-6, msg=name)


@few
@given(density=unit)
def test_ties_with_one_adapter_changes_just_the_wanted_number_of_elements(
    base: Path, adapters: list[Path], density: float
) -> None:
    found = float32(base, adapters[:1], Asked(strategy="ties", weights=(3.0,), density=density))
    before = tensors(base)
    changed = {name: int((found[name] != before[name].double()).sum()) for name in before}
    for name, tensor in before.items():
        lora = any(part in name for part in ("q_proj", "v_proj", "down_proj"))
        assert changed[name] == (max(1, int(density * tensor.numel())) if lora else 0), name


def test_dare_that_drops_nothing_is_task_arithmetic(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    for strategy in ("dare_linear", "task_arithmetic"):
        asked = Asked(strategy=strategy, weights=(1.0, 0.4), density=1.0)
        assert merge(base, adapters[:2], tmp_path / strategy, asked) == 0
    found = [manifest(tmp_path / name)["output"]["digest"] for name in ("dare_linear", "task_arithmetic")]
    assert found[0] == found[1]


def test_another_seed_drops_other_elements(base: Path, adapters: list[Path]) -> None:
    one, other = (
        float32(base, adapters[:1], Asked(strategy="dare_linear", weights=(1.0,), seed=seed)) for seed in (1, 2)
    )
    name = "model.layers.0.mlp.down_proj.weight"
    before = tensors(base)[name].double()
    kept = [(found[name] != before).double().mean().item() for found in (one, other)]
    assert all(abs(share - 0.5) < 0.06 for share in kept)
    assert not torch.equal(one[name], other[name])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        pytest.param(Asked(strategy="linear", weights=(0.5, -0.5)), "sum to 0", id="linear: weights that cancel"),
        pytest.param(Asked(strategy="linear", weights=(1.0, -1.0 + 1e-9)), "divides by their sum", id="linear: nearly"),
        pytest.param(Asked(strategy="slerp", weights=(1.0, 1.0, 1.0)), "exactly two", id="slerp: three adapters"),
        pytest.param(Asked(strategy="slerp", weights=(1.0, 1.0), t=1.5), "--t 1.5", id="slerp: t above 1"),
        pytest.param(Asked(strategy="ties", weights=(1.0, 1.0), density=0.0), "keep nothing", id="ties: density 0"),
        pytest.param(Asked(strategy="dare_ties", weights=(1.0,), density=-0.1), "--density -0.1", id="dare: negative"),
        pytest.param(Asked(strategy="dare_linear", weights=(1.0,), seed=-1), "--seed -1", id="dare: negative seed"),
        pytest.param(
            Asked(strategy="ties", weights=(float("nan"), 1.0)), "weight nan", id="a weight that is no number"
        ),
        pytest.param(Asked(strategy="ties", weights=(1.0,), scale=float("inf")), "--scale inf", id="an infinite scale"),
        pytest.param(Asked(strategy="linear", weights=(1.0,) * 9), "9 adapters", id="nine adapters"),
    ],
)
def test_recipes_that_no_merge_can_follow_are_refused(
    base: Path, adapters: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: Asked, words: str
) -> None:
    assert merge(base, (adapters * 2)[: len(asked.weights)], tmp_path / "out", asked) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "InvalidOption" in error
    assert words in error
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_holds_the_whole_recipe(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    asked = Asked(strategy="dare_ties", weights=(1.0, -0.5), scale=0.9, t=0.1, density=0.25, seed=11)
    assert merge(base, adapters[:2], tmp_path / "out", asked) == 0
    recipe = manifest(tmp_path / "out")["recipe"]
    assert {name: recipe[name] for name in ("strategy", "weights", "scale", "t", "density", "seed")} == {
        "strategy": "dare_ties", "weights": [1.0, -0.5], "scale": 0.9, "t": 0.1, "density": 0.25, "seed": 11,
    }  # fmt: skip
    assert [adapter["rank"] for adapter in manifest(tmp_path / "out")["adapters"]] == [4, 2]


def inspect(base: Path, adapters: Sequence[Path], *more: str) -> list[str]:
    given_adapters = [part for adapter in adapters for part in ("--adapter", str(adapter))]
    return ["inspect", "--base", str(base), *given_adapters, "--json", *more]


def test_the_plan_says_how_terms_are_combined(
    base: Path, adapters: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--strategy", "dare_ties", "--density", "0.25", "--seed", "5", "--scale", "0.5")
    assert run(inspect(base, [adapters[0], adapters[2]], *more)) == 0
    plan = json.loads(capsys.readouterr().out)
    steps = {step["name"]: step for shard in plan["shards"] for step in shard["tensors"]}
    both = steps["model.layers.0.self_attn.q_proj.weight"]
    assert both["combination"] == {"strategy": "dare_ties", "scale": 0.5, "density": 0.25, "seed": 5}
    assert [(term["adapter"], term["rank"], term["coefficient"]) for term in both["terms"]] == [
        (0, 4, 1.0),
        (1, 8, 1.0),
    ]
    assert [term["adapter"] for term in steps["model.layers.0.self_attn.v_proj.weight"]["terms"]] == [0]
    assert "combination" not in steps["lm_head.weight"]


def test_inspect_refuses_what_merge_refuses(
    base: Path, adapters: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(inspect(base, adapters[:3], "--strategy", "slerp")) == 2
    assert "exactly two" in capsys.readouterr().err


def test_factors_in_float64_are_held_by_the_writer_or_the_verifier_never_by_both(
    base: Path, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Writer._written
    done: set[str] = set()
    early: list[str] = []
    seen: Counter[str] = Counter()

    def noted(writer: Writer, step: Step, **more: Any) -> Any:
        figures = written(writer, step, **more)
        done.add(step.name)
        return figures

    def counted(step: Step, **more: Any) -> Any:
        seen[step.name] += 1
        if step.name not in done:
            early.append(step.name)
        return calculate(step, **more)

    monkeypatch.setattr(Writer, "_written", noted)
    monkeypatch.setattr(recalculated, "calculate", counted)
    assert merge(base, adapters[:2], tmp_path / "out", Asked(strategy="ties", weights=(1.0, 0.5))) == 0
    assert list(seen.values()) == [2] * 6, "each once as a whole and once for the sample"
    assert early == []


class Flipping:
    """Watches after something was damaged."""

    def __init__(self, watch: Watch, flip: Callable[[], None]) -> None:
        self._watch, self._flip = watch, flip
        self._flipped = False

    def rows(self, end: int) -> None:
        self._once()
        self._watch.rows(end)

    def whole(self, figures: Any) -> None:
        self._once()
        self._watch.whole(figures)

    def _once(self) -> None:
        if not self._flipped:
            self._flip()
        self._flipped = True


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_damaged_element_is_found_before_anything_is_published(
    base: Path,
    adapters: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the disk or the memory had flipped bits between calculation and file."""
    write = Writer.write

    def damaged(writer: Writer, shard: ShardPlan, *, target: Path, watched: Callable[[Step], Any]) -> Any:
        @contextmanager
        def flipped(step: Step) -> Iterator[Watch]:
            with watched(step) as watch:
                yield Flipping(watch, partial(flip, step) if "down_proj" in step.name else lambda: None)

        def flip(step: Step) -> None:
            place = target.stat().st_size - sum(one.size for one in shard.steps[shard.steps.index(step) :])
            with target.open("r+b") as file:
                file.seek(place + 101)
                (byte,) = file.read(1)
                file.seek(place + 101)
                file.write(bytes([byte ^ 0x40]))  # the exponent of one bfloat16

        return write(writer, shard, target=target, watched=flipped)

    monkeypatch.setattr(Writer, "write", damaged)
    assert merge(base, adapters[:2], tmp_path / "out", Asked(strategy=strategy, weights=(1.0, 0.5))) == 1
    error = capsys.readouterr().err
    assert "VerificationFailed" in error
    assert "down_proj" in error
    assert not (tmp_path / "out").exists()


def test_a_threshold_that_keeps_too_many_is_found(
    base: Path,
    adapters: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lax(blocks: trim.Blocks, *, total: int, keep: int, sample: torch.Tensor) -> trim.Trim:
        return trim.find_trim(blocks, total=total, keep=keep + 1, sample=sample)

    monkeypatch.setattr(combined, "find_trim", lax)
    assert merge(base, adapters[:2], tmp_path / "out", Asked(strategy="ties", weights=(1.0, 0.5))) == 1
    assert "its trim keeps" in capsys.readouterr().err


def test_the_sample_of_the_verification_is_in_the_manifest(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    assert merge(base, adapters[:2], tmp_path / "out", Asked(strategy="ties", weights=(1.0, 0.5))) == 0
    found = manifest(tmp_path / "out")["verification"]
    assert found["sampled"] == 6
    assert found["maxUlp"] <= sampled.MAX_ULP


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_can_be_stored_in_eight_bits(
    base: Path, adapters: list[Path], tmp_path: Path, strategy: str
) -> None:
    asked = Asked(strategy=strategy, weights=(1.0, 0.5))
    assert merge(base, adapters[:2], tmp_path / "out", asked, quantization="fp8-dynamic") == 0
    found, before = tensors(tmp_path / "out"), tensors(base)
    exact = merged(before, adapters[:2], asked, digests=digests(tmp_path / "out"))
    for name, wanted in exact.items():
        scale = found[f"{name}_scale"].double()
        # Half a step of float8 with three bits of mantissa: a sixteenth of the number; below its smallest normal one, of that.
        allowed = wanted.abs() / 16 + scale * 2.0**-10
        assert bool(((found[name].double() * scale - wanted).abs() <= allowed * 1.001).all()), name
