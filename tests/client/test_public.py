"""The public surface of lora_client, the plain facade, and the assignment of users."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import lora_client
from lora_client import SyncLoRAClient, assign, bucket, match_headers
from lora_client.errors import Invalid, NoCluster
from lora_client.names import ADAPTER
from tests.client.objects import adapter
from tests.fakes.api_server import FakeApiServer

LAZY = "import sys, lora_client, lora_integration_tools; print([m for m in ('kubernetes', 'aiohttp', 'torch', 'yaml') if m in sys.modules])"


def test_every_public_name_can_be_had() -> None:
    assert [name for name in lora_client.__all__ if getattr(lora_client, name, None) is None] == []
    assert set(lora_client.__all__) == set(lora_client._MODULE_OF)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = lora_client.Nothing


def test_importing_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_the_plain_client_works_inside_a_running_loop(api: FakeApiServer, kubeconfig: Path) -> None:
    api.put(ADAPTER, adapter())

    def plainly() -> tuple[str, list[str]]:
        with SyncLoRAClient(kubeconfig=str(kubeconfig)) as client:
            first = next(iter(client.watch("adapters")))
            return client.get_adapter("fin").name, [first[0], first[1].name]

    assert await asyncio.to_thread(plainly) == ("fin", ["Added", "fin"])


def test_the_plain_client_leaves_no_thread_behind_when_there_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import threading  # noqa: PLC0415

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NoCluster):
        SyncLoRAClient()
    assert [thread for thread in threading.enumerate() if thread.name == "lora-client"] == []


def test_a_bucket_is_what_the_formula_says() -> None:
    # sha256("salt|user") computed with coreutils' sha256sum, modulo 10000 with bc
    assert (
        bucket("user", salt="salt")
        == int("f97f8acb95be6748260b256c6bb4539432a8ecd07a855eb276d74c47e5308925", 16) % 10_000
    )


@pytest.mark.parametrize(("percent", "expected"), [(0, 0.0), (5, 0.05), (50, 0.5), (100, 1.0)])
def test_the_candidates_share_is_the_percentage(percent: float, expected: float) -> None:
    users = [f"user-{number}" for number in range(20_000)]
    share = sum(assign(user, salt="t1", candidate_percent=percent) == "candidate" for user in users) / len(users)
    assert abs(share - expected) < 0.01


def test_ramping_up_only_extends_the_candidates_range() -> None:
    users = [f"user-{number}" for number in range(2_000)]
    before: set[str] = set()
    for percent in (0.01, 1, 5, 20, 50, 99.99, 100):
        now = {user for user in users if assign(user, salt="t1", candidate_percent=percent) == "candidate"}
        assert before <= now
        before = now
    assert before == set(users)


def test_another_salt_is_another_choice_of_users() -> None:
    users = [f"user-{number}" for number in range(2_000)]
    chosen = [{u for u in users if assign(u, salt=salt, candidate_percent=10) == "candidate"} for salt in ("a", "b")]
    assert len(chosen[0] & chosen[1]) < 60


@pytest.mark.parametrize("percent", [-1, 100.5])
def test_a_percentage_outside_of_0_to_100_is_refused(percent: float) -> None:
    with pytest.raises(Invalid, match="candidate_percent"):
        assign("user", salt="s", candidate_percent=percent)


@pytest.mark.parametrize(
    ("variant", "match", "headers"),
    [
        pytest.param("candidate", {"header": {"name": "x-variant", "value": "b"}}, {"x-variant": "b"}, id="by header"),
        pytest.param(
            "candidate", {"cookie": {"name": "variant", "value": "b"}}, {"Cookie": "variant=b"}, id="by cookie"
        ),
        pytest.param("stable", {"header": {"name": "x-variant", "value": "b"}}, {}, id="stable needs none"),
    ],
)
def test_the_headers_that_force_a_variant(variant: str, match: dict[str, object], headers: dict[str, str]) -> None:
    assert match_headers(variant, match=match) == headers  # type: ignore[arg-type]
