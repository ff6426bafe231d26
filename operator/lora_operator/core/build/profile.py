"""A runtime profile: how a model server is started, asked and stopped, as data.

Profiles come from the settings (`profiles: {name: {...}}`) laid over the two shipped ones, so that users add their own
without code. A profile is resolved once per revision and frozen with it; a later change touches the next revision only.

Tokens replaced in `command`, `args`, `env` and `workingDir`: {modelPath} {servedModelName} {port} {maxModelLen}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_operator.api.errors import Invalid
from lora_operator.api.names import canonical_hash
from lora_operator.api.reader import Reader

__all__ = ["SHIPPED_PROFILES", "Profile", "parse_profiles"]

SHIPPED_PROFILES: Mapping[str, Mapping[str, Any]] = {
    "vllm": {
        "image": "",
        "command": ["vllm", "serve", "{modelPath}"],
        "args": ["--served-model-name", "{servedModelName}", "--host", "0.0.0.0", "--port", "{port}"],  # noqa: S104
        "maxModelLenArgs": ["--max-model-len", "{maxModelLen}"],
        "quantizationArgs": {
            "BnbNF4": ["--quantization", "bitsandbytes"],
            "BnbInt8": ["--quantization", "bitsandbytes"],
        },
        "env": {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"},
        "port": 8000,
        "readyPath": "/v1/models",
        "livePath": "/health",
        "metricsPath": "/metrics",
        "routes": {
            "/v1/chat/completions": "/v1/chat/completions",
            "/v1/completions": "/v1/completions",
            "/v1/models": "/v1/models",
            "/api/v1/inference": "/v1/chat/completions",
            "/api/v1/health": "/health",
        },
        "startupSeconds": 600,
        "loadBytesPerSecond": 50_000_000,
        "shutdownSeconds": 30,
        "shmSize": "2Gi",
        "gpuMemoryUtilization": 0.9,
    },
    "transformers": {
        "image": "{jobImage}",
        "command": ["transformers", "serve", "{servedModelName}"],
        "args": ["--host", "0.0.0.0", "--port", "{port}", "--device", "auto"],  # noqa: S104
        # Its model name is a path relative to the working directory: only so does it answer to the served name.
        "workingDir": "/models",
        "port": 8000,
        "readyPath": "/health",
        "livePath": "/health",
        "routes": {
            "/v1/chat/completions": "/v1/chat/completions",
            "/v1/completions": "/v1/completions",
            "/v1/models": "/v1/models",
            "/api/v1/inference": "/v1/chat/completions",
            "/api/v1/health": "/health",
        },
        # What the job image can run; an image of the user's own may do more.
        "quantizations": ["None", "BnbInt8", "BnbNF4"],
        # Without a request of its own a pod starves beside any Job on a busy node.
        "requests": {"cpu": "250m"},
        "startupSeconds": 300,
        "loadBytesPerSecond": 20_000_000,
        "shutdownSeconds": 15,
        "shmSize": "256Mi",
    },
}

PUBLIC_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/api/v1/inference", "/api/v1/health")
_KEYS = frozenset(
    {
        "image", "command", "args", "maxModelLenArgs", "quantizationArgs", "quantizations", "env", "requests", "workingDir",
        "port", "readyPath", "livePath", "metricsPath", "routes", "startupSeconds", "loadBytesPerSecond",
        "shutdownSeconds", "shmSize", "gpuMemoryUtilization",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """One runtime. `digest` identifies its content, for `status.profileOutdated`."""

    name: str
    image: str  # empty: the user has to name one
    command: tuple[str, ...]
    args: tuple[str, ...]
    max_model_len_args: tuple[str, ...]
    quantization_args: Mapping[str, tuple[str, ...]]
    quantizations: tuple[str, ...]  # formats that its own image can run; empty: any
    env: Mapping[str, str]
    working_dir: str
    port: int
    ready_path: str
    live_path: str
    metrics_path: str
    routes: Mapping[str, str]  # public path → the runtime's own
    startup_seconds: int
    load_bytes_per_second: int
    shutdown_seconds: int
    shm_size: str
    requests: Mapping[str, str]  # what a container asks for where spec.runtime.resources is silent
    gpu_memory_utilization: float | None  # None: the runtime plans no GPU memory of its own, so neither do we
    digest: str


def parse_profiles(raw: Mapping[str, Any], *, job_image: str) -> dict[str, Profile]:
    """The shipped profiles with those of the settings laid over them, member by member.

    Raises:
        Invalid: naming the settings key, what was found, what was expected.
    """
    merged = {name: dict(content) for name, content in SHIPPED_PROFILES.items()}
    for name, content in raw.items():
        if not isinstance(content, Mapping):
            raise Invalid(field=f"profiles.{name}", found=content, expected="an object")
        merged[name] = merged.get(name, {}) | dict(content)
    return {name: _parse_profile(name, content, job_image=job_image) for name, content in merged.items()}


def _parse_profile(name: str, raw: Mapping[str, Any], *, job_image: str) -> Profile:
    reader = Reader(raw, path=f"profiles.{name}")
    unknown = sorted(set(raw) - _KEYS)
    if unknown:
        raise Invalid(field=reader.at(unknown[0]), found=raw[unknown[0]], expected="one of " + ", ".join(sorted(_KEYS)))
    routes = {str(k): str(v) for k, v in reader.child("routes").raw.items()}
    foreign = sorted(set(routes) - set(PUBLIC_ROUTES))
    if foreign:
        raise Invalid(field=reader.at("routes"), found=foreign[0], expected="one of " + ", ".join(PUBLIC_ROUTES))
    image = reader.text("image", "").replace("{jobImage}", job_image)
    return Profile(
        name=name,
        image=image,
        command=reader.texts("command"),
        args=reader.texts("args"),
        max_model_len_args=reader.texts("maxModelLenArgs"),
        quantization_args={
            key: reader.child("quantizationArgs").texts(key) for key in reader.child("quantizationArgs").raw
        },
        quantizations=reader.texts("quantizations"),
        env={str(k): str(v) for k, v in reader.child("env").raw.items()},
        working_dir=reader.text("workingDir", ""),
        port=reader.integer("port", 8000, minimum=1),
        ready_path=reader.text("readyPath", "/health"),
        live_path=reader.text("livePath", "/health"),
        metrics_path=reader.text("metricsPath", ""),
        routes=routes,
        startup_seconds=reader.integer("startupSeconds", 600, minimum=1),
        load_bytes_per_second=reader.integer("loadBytesPerSecond", 50_000_000, minimum=1),
        shutdown_seconds=reader.integer("shutdownSeconds", 30, minimum=0),
        shm_size=reader.text("shmSize", "256Mi"),
        requests={str(k): str(v) for k, v in reader.child("requests").raw.items()},
        gpu_memory_utilization=reader.number("gpuMemoryUtilization") if "gpuMemoryUtilization" in reader else None,
        digest=canonical_hash(dict(raw) | {"image": image}, digits=16),
    )
