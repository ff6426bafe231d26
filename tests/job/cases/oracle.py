"""What a merge must give, in float64, by formulas of its own: base tensors from disk, factors and kinds of layers from a live PEFT model.

It knows nothing of the engine: names, scales and geometry come from PEFT's modules, the formulas from the papers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora.layer import Embedding, LoraLayer, ParamWrapper
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

Tensors = dict[str, torch.Tensor]
NAME = "default"


def read(folder: Path) -> Tensors:
    """Every tensor of a folder's safetensors files."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return found


def _wide(parameter: Any) -> torch.Tensor:
    found: torch.Tensor = parameter.detach().double()
    return found


def delta_of(module: LoraLayer) -> torch.Tensor:
    """s·B·A in the layout of the layer's own weight."""
    scale = module.scaling[NAME]
    if isinstance(module, Embedding):
        return scale * (_wide(module.lora_embedding_B[NAME]) @ _wide(module.lora_embedding_A[NAME])).T
    product = scale * (_wide(module.lora_B[NAME].weight) @ _wide(module.lora_A[NAME].weight))
    return product.T if isinstance(module.get_base_layer(), Conv1D) else product


def experts_delta(module: ParamWrapper) -> torch.Tensor:
    """Δ[e] = s·B[:,:,e]·A[e] in the layout of the parameter."""
    parameter = module.get_param()
    count, rank = parameter.shape[0], module.r[NAME]
    a, b = _wide(module.lora_A[NAME].weight), _wide(module.lora_B[NAME].weight)
    if parameter.dim() == 2:
        return module.scaling[NAME] * (b @ a)
    found = []
    for expert in range(count):
        one = b[:, expert::count] @ a[expert * rank : (expert + 1) * rank]
        found.append(one.T if getattr(module.get_base_layer(), "is_transposed", False) else one)
    return module.scaling[NAME] * torch.stack(found)


def merged_weight(module: LoraLayer, weight: torch.Tensor) -> torch.Tensor:
    """W + Δ, or m ⊙ (W + Δ)/‖W + Δ‖ for DoRA."""
    total = weight.double() + delta_of(module)
    if not module.use_dora.get(NAME, False):
        return total
    magnitude = _wide(module.lora_magnitude_vector[NAME].weight)
    by_column = isinstance(module, Embedding) or isinstance(module.get_base_layer(), Conv1D)
    if by_column:
        return total * (magnitude / total.norm(dim=0))[None, :]
    return total * (magnitude / total.norm(dim=1))[:, None]


def expected(peft_model: Any, base: Tensors, *, on_disk: Callable[[str], str]) -> Tensors:
    """By name on disk; only what an adapter's factors, saved modules, biases and tokens change, experts by `experts` below."""
    found: Tensors = {}
    for name, module in peft_model.base_model.model.named_modules():
        disk = on_disk(name)
        if isinstance(module, ParamWrapper):
            continue
        if isinstance(module, LoraLayer):
            weight = base.get(f"{disk}.weight")
            # A head that shares the embedding's weight has no tensor of its own on disk.
            start = weight if weight is not None else module.get_base_layer().weight.detach()
            found[f"{disk}.weight"] = merged_weight(module, start)
            bias = getattr(module.get_base_layer(), "bias", None)
            if bias is not None and module.lora_bias.get(NAME, False):
                found[f"{disk}.bias"] = _wide(bias) + module.scaling[NAME] * _wide(module.lora_B[NAME].bias)
        elif isinstance(module, ModulesToSaveWrapper):
            for key, value in module.modules_to_save[NAME].state_dict().items():
                found[f"{disk}.{key}"] = value.double()
        elif isinstance(module, TrainableTokensWrapper) and module.token_adapter.tied_adapter is None:
            tokens = module.token_adapter
            weight = base[f"{disk}.weight"].double().clone()
            weight[list(tokens.token_indices[NAME])] = _wide(tokens.trainable_tokens_delta[NAME])
            found[f"{disk}.weight"] = weight
    return found | _trained_biases(peft_model, on_disk=on_disk)


def _trained_biases(peft_model: Any, *, on_disk: Callable[[str], str]) -> Tensors:
    """Biases of the base that were trained themselves (`bias: all`, `lora_only`)."""
    return {
        on_disk(name.replace(".base_layer.", ".")): _wide(parameter)
        for name, parameter in peft_model.base_model.model.named_parameters()
        if parameter.requires_grad and name.endswith(".bias") and "lora_" not in name and "modules_to_save" not in name
    }


def experts(peft_model: Any) -> Tensors:
    """W + Δ of parameters without a module of their own, stacked experts above all, by their names in memory."""
    found: Tensors = {}
    for name, module in peft_model.base_model.model.named_modules():
        if isinstance(module, ParamWrapper):
            owner = name
            while owner.endswith(".base_layer"):
                owner = owner.removesuffix(".base_layer")
            found[f"{owner}.{module.parameter_name}"] = _wide(module.get_param()) + experts_delta(module)
    return found


def misses(found: torch.Tensor, exact: torch.Tensor, *, before: torch.Tensor) -> float:
    """Share of elements that are not the nearest number of their dtype; more than one unit away is an error at once."""
    info = torch.finfo(found.dtype)
    error = (found.double() - exact).abs()
    spacing = info.eps * 2.0 ** torch.floor(torch.log2(exact.abs().clamp_min(info.tiny)))
    before = before.double()
    excused = 2.0**-22 * torch.maximum(before.abs(), (exact - before).abs())
    assert bool((error <= 1.5 * spacing + excused).all()), "more than one unit in the last place"
    return float((error > 0.5 * spacing * (1 + 1e-9) + excused).double().mean())
