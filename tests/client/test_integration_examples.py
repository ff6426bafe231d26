"""The programs of examples/integrations, run as a user runs them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lora_client.names import ADAPTER, LORA_DEPLOYMENT
from lora_job.digest import directory_digest
from tests.client.objects import adapter, conditions, deployment, version
from tests.client.simulated_operator import SimulatedOperator
from tests.fakes.api_server import FakeApiServer

ROOT = Path(__file__).parents[2]
INTEGRATIONS = ROOT / "examples" / "integrations"
WORDS = ["</s>", "<unk>", "what", "is", "a", "bond", "debt"]


async def run(name: str, *arguments: str, kubeconfig: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(INTEGRATIONS / name), *arguments]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "LORA_JOB_IMAGE": "job:1", "HF_HUB_OFFLINE": "1"}
    return await asyncio.to_thread(
        subprocess.run, line, input=stdin, capture_output=True, text=True, check=False, env=environment
    )


async def test_the_orchestrator_deploys_every_path_it_is_given(api: FakeApiServer, kubeconfig: Path) -> None:
    SimulatedOperator(api).attach()
    paths = "pvc://models/adapters/fin-v2\npvc://models/adapters/tax_v1.1\n"
    options = ["--base", "pvc://models/base", "--gpus", "2", "--gpu-product", "NVIDIA-GeForce-RTX-4070"]
    done = await run("gpu_orchestrator.py", *options, kubeconfig=kubeconfig, stdin=paths)
    results = {result["adapter"]: result for result in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stderr
    assert {path: result["success"] for path, result in results.items()} == dict.fromkeys(paths.split(), True)
    runtime = api.peek(LORA_DEPLOYMENT, "fin")["spec"]["runtime"]
    assert runtime["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    assert runtime["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4070"}
    assert api.peek(LORA_DEPLOYMENT, "tax")["metadata"]["name"] == "tax"


@pytest.mark.full
async def test_the_orchestrator_tells_a_failure_and_exits_by_it(api: FakeApiServer, kubeconfig: Path) -> None:
    operator = SimulatedOperator(api).attach()
    operator.deployments = "crash"
    done = await run(
        "gpu_orchestrator.py", "pvc://models/adapters/v2", "--base", "pvc://models/base", kubeconfig=kubeconfig
    )
    result = json.loads(done.stdout)
    assert (done.returncode, result["success"]) == (3, False)
    assert "no such layer" in result["errors"][0]


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training's output directory, its result still to come."""
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    return tmp_path / "run"


async def test_the_pipeline_waits_for_the_result_and_deploys_the_trained_adapter(
    api: FakeApiServer, kubeconfig: Path, training: Path
) -> None:
    SimulatedOperator(api).attach()
    digest = directory_digest(training / "adapter")
    api.execute = lambda command, _: (0, b"no" if len(command) == 4 else json.dumps({"digest": digest}).encode())
    running = asyncio.ensure_future(
        run(
            "training_pipeline.py",
            "--run",
            str(training),
            "--base",
            "pvc://models/base",
            "--name",
            "fin-1",
            kubeconfig=kubeconfig,
        )
    )
    result = {"status": "succeeded", "metrics": {"training_loss": 0.15}, "dataset": "d", "version": "2.1.0"}
    (training / "result.json").write_text('{"status"')  # being written just now
    await asyncio.sleep(0.5)
    assert api.objects == {}
    (training / "result.json").write_text(json.dumps(result))
    done = await running
    assert done.returncode == 0, done.stderr
    assert "copy adapter: 100%" in done.stdout
    assert "completed" in done.stdout
    spec = api.peek(ADAPTER, "fin-1")["spec"]
    assert (spec["version"], spec["trainingMetrics"], spec["adapters"][0]["digest"]) == (
        "2.1.0",
        {"training_loss": 0.15},
        digest,
    )


async def test_a_failed_training_deploys_nothing(api: FakeApiServer, kubeconfig: Path, training: Path) -> None:
    (training / "result.json").write_text('{"status": "diverged"}')
    done = await run(
        "training_pipeline.py", "--run", str(training), "--base", "pvc://m/b", "--name", "fin-1", kubeconfig=kubeconfig
    )
    assert done.returncode == 1
    assert "status is 'diverged'" in done.stderr
    assert api.requests == []


def write_model(root: Path) -> Path:
    """A whole Llama of one layer with a tokenizer of seven words."""
    root.mkdir(parents=True)
    size, inner, layer = 8, 16, "model.layers.0"
    square, wide = (size, size), (inner, size)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (len(WORDS), size), "lm_head.weight": (len(WORDS), size), "model.norm.weight": (size,),
        **{f"{layer}.self_attn.{name}_proj.weight": square for name in "qkvo"},
        f"{layer}.mlp.gate_proj.weight": wide, f"{layer}.mlp.up_proj.weight": wide, f"{layer}.mlp.down_proj.weight": (size, inner),
        f"{layer}.input_layernorm.weight": (size,), f"{layer}.post_attention_layernorm.weight": (size,),
    }  # fmt: skip
    random = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": size, "intermediate_size": inner,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(WORDS),
        "max_position_embeddings": 128, "eos_token_id": 0, "bos_token_id": 0, "dtype": "float32",
    }  # fmt: skip
    end = {
        "id": 0,
        "content": "</s>",
        "special": True,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = {
        "version": "1.0", "added_tokens": [end], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }  # fmt: skip
    kind = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
    }
    for name, content in {"config": config, "tokenizer": tokenizer, "tokenizer_config": kind}.items():
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def serve_from(api: FakeApiServer, *, digest: str) -> None:
    """The cluster says that fin serves the artifact at pvc://models/artifacts/fin."""
    stable: dict[str, Any] = version("abc") | {"artifactDigest": digest}
    api.put(ADAPTER, adapter())
    artifact = {"digest": digest, "uri": "pvc://models/artifacts/fin"}
    api.set_status(ADAPTER, "fin", {"phase": "Ready", "artifact": artifact})
    api.put(LORA_DEPLOYMENT, deployment())
    ready = conditions(ready="True", reason="Stable")
    api.set_status(LORA_DEPLOYMENT, "fin", {"phase": "Stable", "stable": stable, "conditions": ready})


@pytest.mark.engine
@pytest.mark.full
async def test_the_service_loads_the_deployed_model_and_answers(
    api: FakeApiServer, kubeconfig: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "claim" / "artifacts" / "fin")
    serve_from(api, digest=directory_digest(model))
    mount = f"models={tmp_path / 'claim'}"
    done = await run(
        "inference_service.py", "finance/fin/abc", "--mount", mount, "--ask", "what is a bond", kubeconfig=kubeconfig
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= set(WORDS)
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("mount", "digest", "words"),
    [
        pytest.param(
            "other",
            "sha256:" + "0" * 64,
            "claim models is not mounted here",
            id="the claim is not mounted",
            marks=pytest.mark.full,
        ),
        pytest.param(
            "models", "sha256:" + "0" * 64, "is not the deployed one", id="the files are not those that were validated"
        ),
    ],
)
async def test_the_service_refuses_when(
    api: FakeApiServer, kubeconfig: Path, tmp_path: Path, mount: str, digest: str, words: str
) -> None:
    write_model(tmp_path / "claim" / "artifacts" / "fin")
    serve_from(api, digest=digest)
    done = await run("inference_service.py", "fin", "--mount", f"{mount}={tmp_path / 'claim'}", kubeconfig=kubeconfig)
    assert done.returncode == 1
    assert words in done.stderr
