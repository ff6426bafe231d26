"""The strategies as their definitions stand (docs/merge-strategies.md), dense and in float64, with nothing of the engine's in it."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
WORD = 2**64


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A recipe."""

    strategy: str
    weights: tuple[float, ...]
    scale: float = 1.0
    t: float = 0.5
    density: float = 0.5
    seed: int = 0


def philox(key: tuple[int, int], counter: int) -> tuple[int, int, int, int]:
    """Philox4x64-10 of Salmon et al., written down from the paper in whole numbers."""
    words = [counter >> 64 * place & WORD - 1 for place in range(4)]
    first_key, second_key = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [
            second >> 64 ^ words[1] ^ first_key,
            second & WORD - 1,
            first >> 64 ^ words[3] ^ second_key,
            first & WORD - 1,
        ]
        first_key, second_key = (first_key + 0x9E3779B97F4A7C15) % WORD, (second_key + 0xBB67AE8584CAA73B) % WORD
    return words[0], words[1], words[2], words[3]


def draws(*, seed: int, digest: str, tensor: str, count: int) -> list[int]:
    """One word of 64 bits for each element."""
    text = json.dumps([seed, digest, tensor], separators=(",", ":"), ensure_ascii=False)
    key = hashlib.sha256(text.encode()).digest()
    halves = (int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little"))
    return [word for block in range(-(-count // 4)) for word in philox(halves, block)][:count]


def deltas_of(adapter: Path) -> dict[str, Matrix]:
    """(α/r)·B@A by tensor."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    parts = load_file(adapter / "adapter_model.safetensors")
    found = {}
    for key, b in parts.items():
        if key.endswith("lora_B.weight"):
            a = parts[key.replace("lora_B", "lora_A")].double().numpy()
            name = key.removeprefix("base_model.model.").replace(".lora_B.weight", ".weight")
            found[name] = config["lora_alpha"] / config["r"] * (b.double().numpy() @ a)
    return found


def _trimmed(delta: Matrix, density: float) -> Matrix:
    flat = delta.reshape(-1)
    keep = max(1, int(density * flat.size))
    order = sorted(range(flat.size), key=lambda place: (-abs(flat[place]), place))
    out = np.zeros_like(flat)
    out[order[:keep]] = flat[order[:keep]]
    return out.reshape(delta.shape)


def _dropped(delta: Matrix, asked: Asked, *, digest: str, name: str) -> Matrix:
    words = draws(seed=asked.seed, digest=digest, tensor=name, count=delta.size)
    kept = np.array([word < math.ceil(asked.density * 2**64) for word in words]).reshape(delta.shape)
    return np.where(kept, delta / asked.density, 0.0)


def _consensus(deltas: Sequence[Matrix], weights: Sequence[float]) -> Matrix:
    out = np.zeros_like(deltas[0])
    for place in np.ndindex(out.shape):
        votes = [(weight * delta[place], abs(weight)) for delta, weight in zip(deltas, weights, strict=True)]
        sign = 1.0 if math.fsum(vote for vote, _ in votes) >= 0 else -1.0
        agreeing = [(vote, share) for vote, share in votes if vote * sign > 0]
        if agreeing:
            out[place] = math.fsum(vote for vote, _ in agreeing) / math.fsum(share for _, share in agreeing)
    return out


def _slerp(first: Matrix, second: Matrix, t: float) -> Matrix:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    cosine = float((first * second).sum() / lengths) if lengths else 1.0
    if abs(cosine) > 0.9995:
        return (1 - t) * first + t * second
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)


def combined(name: str, deltas: Sequence[Matrix], asked: Asked, *, digests: Sequence[str]) -> Matrix:
    """What is added to a tensor; a delta of zeros stands for an adapter that lacks the module."""
    weighted = [weight * delta for delta, weight in zip(deltas, asked.weights, strict=True)]
    if asked.strategy == "slerp" and len(deltas) == 2:
        return asked.scale * _slerp(weighted[0], weighted[1], asked.t)
    if asked.strategy in {"linear", "slerp"}:
        return asked.scale * sum(weighted) / (sum(asked.weights) if len(deltas) > 1 else 1.0)
    if asked.strategy == "task_arithmetic":
        return asked.scale * sum(weighted)
    if asked.strategy == "ties":
        return asked.scale * _consensus([_trimmed(delta, asked.density) for delta in deltas], asked.weights)
    changed = [_dropped(delta, asked, digest=digest, name=name) for delta, digest in zip(deltas, digests, strict=True)]
    if asked.strategy == "dare_linear":
        return asked.scale * sum(weight * delta for delta, weight in zip(changed, asked.weights, strict=True))
    return asked.scale * _consensus(changed, asked.weights)


def merged(
    base: dict[str, torch.Tensor], adapters: Sequence[Path], asked: Asked, *, digests: Sequence[str]
) -> dict[str, torch.Tensor]:
    """W + Δ in float64, for the tensors that any adapter has a delta for."""
    every = [deltas_of(adapter) for adapter in adapters]
    found = {}
    for name, tensor in base.items():
        if any(name in deltas for deltas in every):
            zeros = np.zeros(tensor.shape)
            delta = combined(name, [deltas.get(name, zeros) for deltas in every], asked, digests=digests)
            found[name] = tensor.double() + torch.from_numpy(np.asarray(delta))
    return found
