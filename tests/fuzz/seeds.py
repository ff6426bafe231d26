"""Where fuzzing starts: small good files, and inputs that once broke something. Built by code, so that none is kept as a file.

An input of `weights` is one mode byte and a file, or JSON that is made a file: see `as_file`. An input of `inspect` is one byte that
chooses the file to replace, and its content.
"""

import json
from collections.abc import Mapping

__all__ = ["ADAPTER", "BASE", "GOOD", "MODULES", "REGRESSIONS", "WORDS", "as_file"]

MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "lm_head")
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
WHOLE, FROM_JSON = b"\0", b"\1"


def as_file(data: bytes) -> bytes:
    """The bytes of a safetensors file for an input.

    Mode 0 is the file itself. Mode 1 is a header without its length, with the number of data bytes in its last two: a mutation of a
    whole file seldom keeps the length right, and would never get past it.
    """
    mode, body = data[:1], data[1:]
    if mode != FROM_JSON:
        return body
    text, tail = body[:-2], body[-2:]
    return len(text).to_bytes(8, "little") + text + bytes(int.from_bytes(tail, "little"))


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: str, size: int) -> tuple[bytes, int]:
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        length = size
        for count in shape:
            length *= count
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + length]}
        position += length
    return json.dumps(content).encode(), position


def _file(shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16", size: int = 2) -> bytes:
    text, length = _header(shapes, dtype, size)
    return len(text).to_bytes(8, "little") + text + bytes(length)


def _from_json(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F32", size: int = 4) -> bytes:
    text, length = _header(shapes, dtype, size)
    return FROM_JSON + text + length.to_bytes(2, "little")


_TENSORS = {
    FIRST: {"model.embed_tokens.weight": (8, 4), "model.layers.0.self_attn.q_proj.weight": (4, 4)},
    SECOND: {"model.layers.1.self_attn.q_proj.weight": (4, 4), "model.norm.weight": (4,), "lm_head.weight": (8, 4)},
}
_FACTORS = {
    f"base_model.model.{module}.lora_{side}.weight": shape
    for module, out in zip(MODULES, (4, 4, 8), strict=True)
    for side, shape in (("A", (2, 4)), ("B", (out, 2)))
}
_CONFIG = {"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2}
_ADAPTER_CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "base"}
_TOKENIZER = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"content": "c", "id": 2}]}
_INDEX = {
    "metadata": {"total_size": 1},
    "weight_map": {name: file for file, names in _TENSORS.items() for name in names},
}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


BASE: Mapping[str, bytes] = {
    "config.json": _json({**_CONFIG, "tie_word_embeddings": False}),
    "model.safetensors.index.json": _json(_INDEX),
    FIRST: _file(_TENSORS[FIRST]),
    SECOND: _file(_TENSORS[SECOND]),
    "tokenizer.json": _json(_TOKENIZER),
    "tokenizer_config.json": _json({"chat_template": "{{ x }}", "eos_token": "c"}),
}
ADAPTER: Mapping[str, bytes] = {
    "adapter_config.json": _json(_ADAPTER_CONFIG),
    "adapter_model.safetensors": _file(_FACTORS, "F32", 4),
    "tokenizer.json": _json(_TOKENIZER),
    "tokenizer_config.json": _json({"chat_template": "{{ x }}"}),
}
GOOD: Mapping[str, tuple[bytes, ...]] = {
    "weights": (
        WHOLE + BASE[FIRST],
        _from_json({"a": (2, 3), "b": (), "c": (0,)}),
        _from_json({"a": (4,)}, "F8_E4M3", 1),
        _from_json({"a": (1, 1, 2)}, "I64", 8),
    ),
    "index": (BASE["model.safetensors.index.json"],),
    "adapter_config": (
        ADAPTER["adapter_config.json"],
        _json(_ADAPTER_CONFIG | {"rank_pattern": {"q_proj": 2, r"layers\.[01]\.": 2}, "alpha_pattern": {".*proj": 4}}),
        _json(
            _ADAPTER_CONFIG | {"use_rslora": True, "trainable_token_indices": {"embed_tokens": [1, 2]}, "bias": "none"}
        ),
    ),
    "inspect": tuple(bytes([number]) + content for number, content in enumerate([*BASE.values(), *ADAPTER.values()])),
}
# Each of these once got past a parser, or out of it as something else than a refusal.
REGRESSIONS: Mapping[str, tuple[bytes, ...]] = {
    "weights": (
        FROM_JSON + b'{"a":{"dtype":"F32","shape":[' + b",".join([b"9" * 4000] * 8) + b'],"data_offsets":[0,0]}}\0\0',
        FROM_JSON + b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}\0\0',
        FROM_JSON + b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}\0\0',
    ),
    "index": (_json({**_INDEX, "metadata": [1]}),),
    "adapter_config": (
        _json(_ADAPTER_CONFIG | {"use_dora": {}}),
        b'{"peft_type":"LORA","r":2,"lora_alpha":' + b"9" * 400 + b"}",
        _json(_ADAPTER_CONFIG | {"rank_pattern": {"(([a-z0-9._]+)+)+!": 2}}),
        _json(_ADAPTER_CONFIG | {"rank_pattern": {"[[a]": 2}}),
    ),
    "inspect": (
        b"\0" + _json({**_CONFIG, "text_config": "dtype", "dtype": "bfloat16"}),
        b"\x08" + b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\x08" + _json({"model": {"vocab": {"a": "0"}}}),
    ),
}
WORDS = (
    b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"F32"', b'"BF16"', b'"F8_E4M3"', b'"U8"', b"[0,0]", b"{}", b"[]",
    b"null", b"true", b"-1", b"-0", b"1e999", b"NaN", b"18446744073709551615", b"\\ud800", b"\\u0000", b'"weight_map"',
    b'"../x.safetensors"',
    b'"r"', b'"lora_alpha"', b'"rank_pattern"', b'"alpha_pattern"', b'"use_dora"', b'"use_rslora"', b'"modules_to_save"',
    b'"trainable_token_indices"', b'"init_lora_weights"', b'"(a+)+$"', b'"text_config"', b'"auto_map"', b'"quantization_config"',
    b'"tie_word_embeddings"', b'"added_tokens"', b'"chat_template"', b"lora_A.default.weight", b"base_model.model.",
    b".modules_to_save.weight",
)  # fmt: skip
