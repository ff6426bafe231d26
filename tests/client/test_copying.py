"""Local directories reach the claim whole, once, and under their name only after the digest was right."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lora_client.client import LoRAClient
from lora_client.copying import copy_directory
from lora_client.errors import Invalid, Refused, TimedOut, Unauthorized
from lora_client.executing import execute
from lora_client.logs import Progress
from lora_client.names import ADAPTER, POD
from lora_client.sources import ClaimPath
from lora_client.workflow import AdapterSource, WorkflowRequest
from lora_job.digest import directory_digest
from tests.client.objects import adapter
from tests.fakes.api_server import FakeApiServer, write_kubeconfig

Json = dict[str, Any]
STORE = ClaimPath("models", "artifacts")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def claim(tmp_path: Path, api: FakeApiServer) -> Path:
    """The claim's directory, and a kubelet that runs commands of its pods with it."""
    root = tmp_path / "claim"
    root.mkdir()
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'merge_job_image'}"}

    def execute(command: list[str], stdin: bytes) -> tuple[int, bytes]:
        words = [sys.executable if word == "python" else word.replace("/claim", str(root)) for word in command]
        done = subprocess.run(words, input=stdin, capture_output=True, check=False, env=environment)
        return done.returncode, done.stdout if done.returncode == 0 else done.stderr

    def start(obj: Json) -> None:
        if obj["kind"] == "Pod" and not obj.get("status"):
            running = {"phase": "Running", "containerStatuses": [{"name": "files", "state": {"running": {}}}]}
            api.set_status(POD, obj["metadata"]["name"], running)

    api.execute, api.react = execute, start
    return root


async def test_a_command_in_a_pod_takes_up_renewed_credentials(
    client: LoRAClient, api: FakeApiServer, server: str, kubeconfig: Path
) -> None:
    api.execute = lambda *_: (0, b"done")
    api.token = "fresh"
    write_kubeconfig(kubeconfig, server=server, token="fresh")
    said = await execute(client.api, namespace="finance", pod="p", container="c", command=["true"])
    assert said == b"done"


async def test_a_command_whose_credentials_stay_wrong_is_refused(client: LoRAClient, api: FakeApiServer) -> None:
    api.token = "another"
    with pytest.raises(Unauthorized, match="log in again"):
        await execute(client.api, namespace="finance", pod="p", container="c", command=["true"])
    assert len(api.requests) == 2


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with files of awkward sizes and names."""
    root = tmp_path / "my-base"
    (root / "sub").mkdir(parents=True)
    for name, size in {"config.json": 1, "empty": 0, "sub/名字.bin": 511, "block": 512, "big": 700_000}.items():
        (root / name).write_bytes(bytes(i % 251 for i in range(size)))
    (root / ".git").mkdir()
    (root / ".git" / "x").write_text("not part of a model")
    return root


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def copy(client: LoRAClient, model: Path, **more: Any) -> Any:
    return await copy_directory(client.api, model, store=STORE, namespace="finance", image="job:1", **more)


async def test_a_directory_arrives_with_its_digest_under_its_own_name(
    client: LoRAClient, api: FakeApiServer, claim: Path, model: Path
) -> None:
    done = await copy(client, model)
    assert done.place.path == f"artifacts/sources/{done.digest[7:23]}/my-base"
    assert directory_digest(claim / done.place.path) == done.digest == directory_digest(model)
    assert not (claim / done.place.path / ".git").exists()
    assert [key for key in api.objects if key[0] == "pods"] == []


async def test_progress_goes_from_little_to_everything(client: LoRAClient, claim: Path, model: Path) -> None:
    seen: list[Progress] = []
    await copy(client, model, progress=seen.append)
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].stage) == (701_024, 701_024, "copy my-base")


async def test_the_same_directory_is_not_sent_twice(
    client: LoRAClient, api: FakeApiServer, claim: Path, model: Path
) -> None:
    await copy(client, model)
    sent = sum("stdin=true" in line for line in api.requests)
    again = await copy(client, model)
    assert again.reused
    assert sum("stdin=true" in line for line in api.requests) == sent == 1


async def test_what_was_changed_on_the_way_never_gets_its_name(
    client: LoRAClient, api: FakeApiServer, claim: Path, model: Path
) -> None:
    right = api.execute

    def flipped(command: list[str], stdin: bytes) -> tuple[int, bytes]:
        broken = bytearray(stdin)
        if stdin:
            broken[4096] ^= 1  # inside the first file
        return right(command, bytes(broken))

    api.execute = flipped
    with pytest.raises(Refused, match="expected digest sha256:"):
        await copy(client, model)
    assert files(claim) == []
    assert [key for key in api.objects if key[0] == "pods"] == []


async def test_an_interrupted_copy_is_begun_anew(
    client: LoRAClient, api: FakeApiServer, claim: Path, model: Path
) -> None:
    right = api.execute
    api.execute = lambda command, stdin: right(command, stdin[: len(stdin) // 2] if stdin else stdin)
    with pytest.raises(Refused):
        await copy(client, model)
    api.execute = right
    done = await copy(client, model)
    assert directory_digest(claim / done.place.path) == done.digest


async def test_a_command_that_ends_while_its_input_is_still_being_sent_is_told_and_not_waited_for(
    client: LoRAClient, api: FakeApiServer, claim: Path
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**18)

    api.deaf, api.execute = True, lambda *_: (1, b"no space left")
    async with asyncio.timeout(20):
        with pytest.raises(Refused, match="no space left"):
            await execute(client.api, namespace="finance", pod="p", container="c", command=["tar"], stdin=endless())


async def test_a_pod_that_does_not_start_is_told_with_why_and_removed(
    client: LoRAClient, api: FakeApiServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_client import claim_pod  # noqa: PLC0415

    def stuck(obj: Json) -> None:
        if obj["kind"] == "Pod" and not obj.get("status"):
            message = "0/3 nodes are available"
            api.set_status(POD, obj["metadata"]["name"], {"phase": "Pending", "conditions": [{"message": message}]})

    api.react = stuck
    patience = {"wait_seconds": 0.2, "say": lambda _: None}
    monkeypatch.setattr(claim_pod.claim_pod.__wrapped__, "__kwdefaults__", patience)  # type: ignore[attr-defined]
    with pytest.raises(TimedOut, match="0/3 nodes are available"):
        await copy(client, model)
    assert [key for key in api.objects if key[0] == "pods"] == []


async def test_an_empty_directory_is_refused_before_anything_is_started(
    client: LoRAClient, api: FakeApiServer, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(Invalid, match="found no file"):
        await copy(client, tmp_path / "nothing")
    assert api.requests == []


async def test_a_link_out_of_the_directory_is_refused(client: LoRAClient, model: Path) -> None:
    (model / "secret").symlink_to("/etc/hostname")
    with pytest.raises(Invalid, match="leads outside"):
        await copy(client, model)


async def test_a_workflow_with_local_directories_names_the_copies_and_their_digests(
    client: LoRAClient, api: FakeApiServer, claim: Path, model: Path
) -> None:
    request = WorkflowRequest(name="fin", base=str(model), adapters=[AdapterSource(source=model)], deploy=False)
    await client.run_workflow(request, wait=False, image="job:1")
    spec = api.peek(ADAPTER, "fin")["spec"]
    digest = directory_digest(model)
    assert spec["base"]["digest"] == spec["adapters"][0]["digest"] == digest
    assert spec["base"]["source"]["pvc"] == {"claimName": "models", "path": f"artifacts/sources/{digest[7:23]}/my-base"}


@pytest.mark.parametrize("form", ["json", "html", "rows"])
async def test_a_report_is_read_from_the_claim(client: LoRAClient, api: FakeApiServer, claim: Path, form: str) -> None:
    api.put(ADAPTER, adapter())
    uri = "pvc://models/artifacts/finance/fin/abc/validation/v-1.json"
    api.set_status(ADAPTER, "fin", {"phase": "Ready", "validation": {"reportUri": uri}})
    folder = claim / "artifacts/finance/fin/abc/validation"
    folder.mkdir(parents=True)
    for suffix in (".json", ".html", ".rows.jsonl"):
        (folder / f"v-1{suffix}").write_text(json.dumps(suffix))
    found = await client.report("fin", format=form, image="job:1")
    assert json.loads(found) == {"json": ".json", "html": ".html", "rows": ".rows.jsonl"}[form]


async def test_a_report_that_is_not_there_yet_is_told_with_the_phase(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter())
    with pytest.raises(Refused, match="no report yet; it is Pending"):
        await client.report("fin")


async def test_a_report_that_is_gone_says_which_file(client: LoRAClient, api: FakeApiServer, claim: Path) -> None:
    api.put(ADAPTER, adapter())
    api.set_status(ADAPTER, "fin", {"phase": "Ready", "validation": {"reportUri": "pvc://models/gone/v-1.json"}})
    with pytest.raises(Refused, match=r"gone/v-1\.json"):
        await client.report("fin", image="job:1")
