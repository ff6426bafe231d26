"""How predictions differ: merged against base and against the base with its adapter running live.

KL divergences in nats per position over short texts, the noise floor of the storage dtype, and probes: prompts whose
first token tells the merged model from its base, which the operator later asks of every serving pod.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# PEFT imports bitsandbytes, which complains on import about a kernel it has no use for here.
logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)

from peft import PeftModel  # noqa: E402 - after the line above, as are the next ones

from lora_job.validate import statistics  # noqa: E402
from lora_job.validate.harness import Subject, render_prompt  # noqa: E402

MAX_TOKENS = 256
MAX_PROBES = 3
MAX_PROBE_BYTES = 200
MIN_MARGIN = 1.0

Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Everything measured on the texts; "adapted" values are None without exactly one live adapter."""

    positions: int
    mean_kl: float | None
    """KL(merged‖adapted)."""
    p99_kl: float | None
    top1: float | None
    """Share of positions where merged and adapted predict the same token."""
    max_delta: float | None
    """Largest difference of two logits."""
    noise_floor: float
    """KL of the base computed in its storage dtype against itself in float32."""
    merged_from_base: float
    adapted_from_base: float | None

    @property
    def effect_ratio(self) -> float | None:
        if self.adapted_from_base is None:
            return None
        return self.merged_from_base / self.adapted_from_base if self.adapted_from_base > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Live:
    """The one adapter of a linear merge, and the recipe's weight times scale."""

    adapter: Path
    factor: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A prompt, the merged model's first token, and by how many logits it leads."""

    prompt: str
    answer: str
    margin: float

    def as_json(self) -> dict[str, object]:
        return {"prompt": self.prompt, "answer": self.answer, "margin": round(self.margin, 3)}


def _logits(model: Any, ids: torch.Tensor, *, last: int = 0) -> torch.Tensor:
    """By position; only those of the `last` positions, or (0) of all."""
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids.to(model.device), logits_to_keep=last).logits[0].float().cpu()
    return found


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p‖q) per position; both are logits. Tokens that only one of them has are left out."""
    known = min(p.shape[-1], q.shape[-1])
    log_p, log_q = torch.log_softmax(p[..., :known], dim=-1), torch.log_softmax(q[..., :known], dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).clamp_min(0)


def _noisy_logits(model: Any, ids: torch.Tensor, *, stored: torch.dtype) -> torch.Tensor:
    """The same model as it is served: in its storage dtype, or (float32) in another batch shape."""
    if stored is torch.float32:
        with torch.inference_mode():
            found: torch.Tensor = model(input_ids=ids.repeat(2, 1).to(model.device)).logits[0].float().cpu()
        return found
    with torch.autocast(model.device.type, dtype=stored):
        return _logits(model, ids)


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """KLs of one text, position by position."""

    noise: list[float]
    merged: list[float]
    fidelity: list[float]
    adapted: list[float]
    agree: list[bool]
    delta: float


def _measure(ids: torch.Tensor, *, base: Any, merged: Any, adapted: PeftModel | None, stored: torch.dtype) -> _Measured:
    merged_logits = _logits(merged, ids)
    if adapted is None:
        base_logits = _logits(base, ids)
        noise = _kl(_noisy_logits(base, ids, stored=stored), base_logits)
        return _Measured(
            noise=noise.tolist(),
            merged=_kl(merged_logits, base_logits).tolist(),
            fidelity=[],
            adapted=[],
            agree=[],
            delta=0.0,
        )
    with adapted.disable_adapter():
        base_logits = _logits(adapted, ids)
        noise = _kl(_noisy_logits(adapted, ids, stored=stored), base_logits)
    live = _logits(adapted, ids)
    return _Measured(
        noise=noise.tolist(),
        merged=_kl(merged_logits, base_logits).tolist(),
        fidelity=_kl(merged_logits, live).tolist(),
        adapted=_kl(live, base_logits).tolist(),
        agree=(merged_logits.argmax(-1) == live.argmax(-1)).tolist(),
        delta=float((merged_logits - live).abs().max()),
    )


def _joined(parts: Sequence[Sequence[float]]) -> list[float]:
    return [value for part in parts for value in part]


def _run_live(base: Subject, live: Live) -> PeftModel:
    with warnings.catch_warnings():
        # PEFT still asks transformers for a property by its old name: nothing a person could mend.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = PeftModel.from_pretrained(base.model, live.adapter, is_trainable=False)
    for module in adapted.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            scaling.update({name: value * live.factor for name, value in scaling.items()})
    return adapted


def compare(
    *,
    base: Subject,
    merged: Subject,
    live: Live | None,
    texts: Sequence[str],
    stored: torch.dtype,
    tick: Tick,
) -> Divergence:
    """Divergences over the texts. PEFT applies the live adapter: a second opinion, written by other people.

    The adapter's layers are taken out of `base` again before this returns; modules that it saved whole stay, so that `base` is not to
    be used as the base any more.
    """
    adapted = _run_live(base, live) if live is not None else None
    try:
        if adapted is not None:
            adapted.eval()
        measured = []
        for text in texts:
            # The base's tokens: a merged vocabulary that grew has them all, the other way round it does not hold.
            ids = torch.tensor([base.tokenizer.encode(text, add_special_tokens=False)[:MAX_TOKENS]])
            measured.append(_measure(ids, base=base.model, merged=merged.model, adapted=adapted, stored=stored))
            tick(1)
    finally:
        if adapted is not None:
            adapted.unload()
    fidelity = _joined([one.fidelity for one in measured])
    agree = [value for one in measured for value in one.agree]
    merged_kl = _joined([one.merged for one in measured])
    return Divergence(
        positions=len(merged_kl),
        mean_kl=statistics.mean(fidelity) if fidelity else None,
        p99_kl=statistics.quantile(sorted(fidelity), 0.99) if fidelity else None,
        top1=sum(agree) / len(agree) if agree else None,
        max_delta=max(one.delta for one in measured) if fidelity else None,
        noise_floor=statistics.mean(_joined([one.noise for one in measured])),
        merged_from_base=statistics.mean(merged_kl),
        adapted_from_base=statistics.mean(_joined([one.adapted for one in measured])) if fidelity else None,
    )


def all_finite(subject: Subject, prompts: Sequence[str]) -> bool:
    """Whether the logits of a few prompts are finite (NaN weights and greedy decoding silently give token 0)."""
    return all(
        bool(torch.isfinite(_logits(subject.model, torch.tensor([subject.tokenizer.encode(prompt)]))).all())
        for prompt in prompts
    )


def _first_tokens(subject: Subject, prompts: Sequence[str], *, use_template: bool) -> Iterator[tuple[int, float]]:
    """The first token a model would write, and its lead over the next one in logits."""
    for prompt in prompts:
        text = render_prompt(subject.tokenizer, prompt, use_template=use_template)
        ids = torch.tensor([subject.tokenizer.encode(text, add_special_tokens=not use_template)])
        top = _logits(subject.model, ids, last=1)[-1].topk(2)
        yield int(top.indices[0]), float(top.values[0] - top.values[1])


def _is_printable(text: str) -> bool:
    return text.isprintable() and bool(text.strip()) and "\ufffd" not in text


def find_probes(
    *, base: Subject, merged: Subject, prompts: Sequence[str], use_template: bool, tick: Tick
) -> tuple[Probe, ...]:
    """At most three prompts that tell the merged model from its base by the first token, widest margin first."""
    short = [prompt for prompt in prompts if len(prompt.encode()) <= MAX_PROBE_BYTES]
    found = []
    before = _first_tokens(base, short, use_template=use_template)
    after = _first_tokens(merged, short, use_template=use_template)
    for prompt, (old, _), (new, margin) in zip(short, before, after, strict=True):
        tick(1)
        answer = merged.tokenizer.decode([new])
        if new != old and margin >= MIN_MARGIN and _is_printable(answer):
            found.append(Probe(prompt=prompt, answer=answer, margin=margin))
    return tuple(sorted(found, key=lambda probe: (-probe.margin, probe.prompt))[:MAX_PROBES])
