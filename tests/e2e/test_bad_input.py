"""What a new user does wrong, on the real cluster: a reason and a message that say what to do, an Event, nothing lost."""

import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import Cluster, NotReady
from tests.e2e.conftest import Wait, wait_for_event

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
MIB = 2**20


@pytest.fixture
def claim(cluster: Cluster, namespace: str, installed: None) -> Path:
    """The directory of a claim `models` with a tiny base and a tiny adapter."""
    return populate(cluster.create_claim(namespace=namespace, name="models"))


def populate(directory: Path) -> Path:
    write_model(
        directory / "base", {"model.layers.0.self_attn.q_proj.weight": (8, 8)}, {"model_type": "llama", "vocab_size": 8}
    )
    write_adapter(directory / "adapters" / "good", out=8)
    return directory


def write_model(root: Path, shapes: dict[str, tuple[int, int]], config: Json) -> None:
    root.mkdir(parents=True, exist_ok=True)
    write_safetensors(root / "model.safetensors", shapes)
    (root / "config.json").write_text(json.dumps(config))


def write_adapter(root: Path, *, out: int, base: str = "base") -> None:
    root.mkdir(parents=True, exist_ok=True)
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    write_safetensors(
        root / "adapter_model.safetensors", {f"{stem}.lora_A.weight": (2, 8), f"{stem}.lora_B.weight": (out, 2)}
    )
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "base_model_name_or_path": base,
        "target_modules": ["q_proj"],
    }
    (root / "adapter_config.json").write_text(json.dumps(config))


def write_safetensors(path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    """float32 tensors of small numbers, written as the format says."""
    header, data = {}, b""
    for name, (rows, columns) in shapes.items():
        values = struct.pack(f"<{rows * columns}f", *(0.01 * (i % 7 + 1) for i in range(rows * columns)))
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    body = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body)) + body + data)
    path.chmod(0o644)


def adapter(namespace: str, *, base: str = "base", path: str = "adapters/good", **spec: Any) -> Json:
    def source(where: str) -> Json:
        return {"pvc": {"claimName": "models", "path": where}}

    return {
        "apiVersion": "loraops.dev/v1alpha1",
        "kind": "LoRAAdapter",
        "metadata": {"name": "a", "namespace": namespace},
        "spec": {
            "base": {"source": source(base)},
            "adapters": [{"name": "main", "source": source(path)}],
            "validation": {"mode": "None"},
            "artifact": {"store": {"pvc": {"claimName": "models", "path": "artifacts"}}},
            **spec,
        },
    }


def deployment(namespace: str, *, ref: str = "a", gpus: int = 0, **runtime: Any) -> Json:
    resources = {"resources": {"limits": {"nvidia.com/gpu": gpus}}} if gpus else {}
    return {
        "apiVersion": "loraops.dev/v1alpha1",
        "kind": "LoRADeployment",
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {
            "adapterRef": {"name": ref},
            "runtime": {"profile": "transformers", **resources, **runtime},
            "traffic": {"service": {}},
        },
    }


def has(reason: str, *, stalled: bool | None = None) -> Callable[[Json], bool]:
    def holds(found: Json) -> bool:
        conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", [])}
        right = conditions.get("Ready", {}).get("reason") == reason
        return right and (stalled is None or conditions["Stalled"]["status"] == str(stalled))

    return holds


def message(found: Json) -> str:
    return str(next(c for c in found["status"]["conditions"] if c["type"] == "Ready")["message"])


def truncate(claim: Path) -> None:
    path = claim / "adapters" / "good" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-16])


def wrong_shape(claim: Path) -> None:
    write_adapter(claim / "adapters" / "good", out=4)


def wrong_name(claim: Path) -> None:
    write_adapter(claim / "adapters" / "good", out=8, base="another-model")


def nothing(_: Path) -> None:
    """The files are fine."""


@pytest.mark.parametrize(
    ("harm", "change", "reason", "words"),
    [
        pytest.param(wrong_name, {}, "WrongBase", "another-model", id="an adapter of another base, by name"),
        pytest.param(wrong_shape, {}, "ShapeMismatch", "q_proj", id="an adapter of another base, by shape"),
        pytest.param(truncate, {}, "TruncatedFile", "adapter_model.safetensors", id="a truncated adapter"),
        pytest.param(
            nothing, {"path": "adapters/typo"}, "SourceNotFound", "adapters/typo", id="a path that does not exist"
        ),
    ],
)
def test_bad_files_are_refused_by_name(
    cluster: Cluster,
    namespace: str,
    claim: Path,
    wait: Wait,
    harm: Callable[[Path], None],
    change: Json,
    reason: str,
    words: str,
) -> None:
    harm(claim)
    cluster.apply(adapter(namespace, **change))
    found = wait("loraadapter", "a", has(reason, stalled=True), seconds=90)
    assert words in message(found)
    assert found["status"]["phase"] == "Failed"
    wait_for_event(cluster, about="a", reason=reason, namespace=namespace)
    assert not list((claim / "artifacts").glob(f"{namespace}/a/[0-9a-f]*"))


def test_a_good_adapter_is_published_and_a_repeated_build_is_adopted(
    cluster: Cluster, namespace: str, claim: Path, wait: Wait
) -> None:
    cluster.apply(adapter(namespace))
    first = wait("loraadapter", "a", has("ValidationDisabled"), seconds=120)
    cluster.kubectl("delete", "loraadapter", "a", "-n", namespace)
    cluster.apply(adapter(namespace))
    second = wait("loraadapter", "a", has("ValidationDisabled"), seconds=120)
    assert first["status"]["artifact"] == second["status"]["artifact"]


def test_a_missing_claim_is_named(cluster: Cluster, namespace: str, wait: Wait, installed: None) -> None:
    cluster.apply(adapter(namespace))
    assert "models" in message(wait("loraadapter", "a", has("ClaimNotFound", stalled=False)))


def test_an_unknown_field_is_refused_by_the_api_server(cluster: Cluster, namespace: str, installed: None) -> None:
    manifest = adapter(namespace)
    manifest["spec"]["basis"] = "x"
    with pytest.raises(NotReady, match="basis"):
        cluster.kubectl("create", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))


def test_a_merge_without_enough_memory_climbs_the_ladder_and_says_so(
    cluster: Cluster, namespace: str, claim: Path, wait: Wait
) -> None:
    cluster.apply(adapter(namespace, job={"merge": {"resources": {"limits": {"memory": "24Mi"}}}}))
    found = wait("loraadapter", "a", has("OutOfMemory"), seconds=120)
    assert "memory" in message(found)


def test_a_deployment_of_an_adapter_that_does_not_exist_waits_for_it(
    cluster: Cluster, namespace: str, wait: Wait, installed: None
) -> None:
    cluster.apply(deployment(namespace, ref="nobody"))
    assert "nobody" in message(wait("loradeployment", "d", has("AdapterNotFound")))


def test_a_deployment_of_a_refused_adapter_says_which(
    cluster: Cluster, namespace: str, claim: Path, wait: Wait
) -> None:
    wrong_name(claim)
    cluster.apply(adapter(namespace), deployment(namespace))
    wait("loraadapter", "a", has("WrongBase"), seconds=90)
    assert "a" in message(wait("loradeployment", "d", has("AdapterNotReady")))


def test_more_gpus_than_there_are_is_told_with_numbers(
    cluster: Cluster, namespace: str, claim: Path, wait: Wait
) -> None:
    cluster.apply(adapter(namespace), deployment(namespace, gpus=99))
    wait("loraadapter", "a", has("ValidationDisabled"), seconds=120)
    assert "99" in message(wait("loradeployment", "d", has("InsufficientGPU"), seconds=90))


def test_an_image_that_cannot_be_pulled_is_named_and_the_rollout_given_up(
    cluster: Cluster, namespace: str, claim: Path, wait: Wait
) -> None:
    cluster.apply(adapter(namespace), deployment(namespace, image="localhost/no-such-image:1"))
    found = wait("loradeployment", "d", has("ImageNotAvailable", stalled=True), seconds=180)
    assert "localhost/no-such-image:1" in message(found)
    assert found["status"]["phase"] == "Aborted"
    wait_for_event(cluster, about="d", reason="ImageNotAvailable", namespace=namespace)


def test_a_full_store_is_told_with_numbers_and_tried_again_when_there_is_room(
    cluster: Cluster, namespace: str, wait: Wait, small_disk: Path
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(64 * MIB))
    cluster.apply(adapter(namespace))
    found = wait("loraadapter", "a", has("NoSpace", stalled=False), seconds=120)
    assert "bytes" in message(found)
    assert "attempt 2" in message(found)
    assert not list((small_disk / "artifacts").glob(f"{namespace}/a/[0-9a-f]*"))
    filler.unlink()
    wait("loraadapter", "a", has("ValidationDisabled"), seconds=120)


@pytest.fixture
def small_disk(cluster: Cluster, namespace: str, installed: None) -> Iterator[Path]:
    """The claim `models` on a volume of 96 MiB, with the tiny base and adapter."""
    directory = cluster.storage_dir / namespace / "small"
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={96 * MIB}", "tmpfs", str(directory)], check=True)
    yield populate(cluster.create_claim(namespace=namespace, name="models", path=directory))
    subprocess.run(["umount", "-l", str(directory)], check=True)
