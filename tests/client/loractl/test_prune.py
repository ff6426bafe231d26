"""prune: the names that travel with the Job, its manifest, and the command with a Job that ends."""

import json
from typing import Any

import pytest

from lora_client.job_image import JobImage
from lora_client.names import ADAPTER, CLAIM, CONTROLLER_REVISION, JOB, LORA_DEPLOYMENT, POD
from lora_client.sources import ClaimPath
from lora_job.cli import run
from loractl.commands.doctor import DEPLOYMENT
from loractl.prune_job import Names, build_prune_job, names_of, stores_of
from tests.client.loractl.conftest import Terminal, adapter, job_pod, ready_adapter, stable_deployment, version
from tests.client.loractl.screen import Open
from tests.client.loractl.whole_cluster import WholeCluster

Json = dict[str, Any]
DIGEST = "sha256:" + "ab" * 32


def remote(raw: Json) -> Json:
    raw["spec"]["base"] = {"source": {"huggingFace": {"repo": "org/model"}}, "digest": "sha256:" + "11" * 32}
    return raw


def revision(digest: str) -> Json:
    return {"metadata": {"name": "r"}, "data": {"revision": "77", "artifactDigest": digest}}


NAMES = [
    pytest.param(
        [ready_adapter()],
        [],
        [],
        Names(artifacts=("fin-v2/5f2c5f2c5f2c5f2c",), digests=(DIGEST,)),
        id="a published adapter by path and digest",
    ),
    pytest.param(
        [adapter(phase="Merging")],
        [],
        [],
        Names(unfinished=("fin-v2",)),
        id="a build under way keeps its whole directory",
    ),
    pytest.param(
        [remote(adapter(phase="Resolving"))],
        [],
        [],
        Names(unfinished=("fin-v2",), sources=("sha256:" + "11" * 32,), all_sources=True),
        id="a fetch under way keeps every source",
    ),
    pytest.param(
        [remote(ready_adapter())],
        [],
        [],
        Names(artifacts=("fin-v2/5f2c5f2c5f2c5f2c",), digests=(DIGEST,), sources=("sha256:" + "11" * 32,)),
        id="a source that a spec names by digest",
    ),
    pytest.param(
        [],
        [],
        [revision("sha256:77")],
        Names(digests=("sha256:77",)),
        id="a stored revision after its adapter was deleted",
    ),
    pytest.param(
        [],
        [stable_deployment(previous=version("p", ref="x", weight=0) | {"artifactDigest": "sha256:99"})],
        [],
        Names(digests=("sha256:99", "sha256:" + "cd" * 32)),
        id="what serves, and what served before",
    ),
    pytest.param(
        [
            ready_adapter(suspend=True)
            | {"status": {**ready_adapter()["status"], "jobs": {"merge": {"result": "Retry"}}}}
        ],
        [],
        [],
        Names(unfinished=("fin-v2",), digests=(DIGEST,)),
        id="an adapter that merges again keeps everything",
    ),
]


@pytest.mark.parametrize(("adapters", "deployments", "revisions", "names"), NAMES)
def test_these_are_named(adapters: list[Json], deployments: list[Json], revisions: list[Json], names: Names) -> None:
    assert names_of(adapters, deployments, revisions) == names


def test_every_store_once() -> None:
    assert stores_of([ready_adapter("a"), ready_adapter("b")]) == [ClaimPath("models", "artifacts")]


def manifest(**said: Any) -> Json:
    names = Names(artifacts=("fin-v2/5f2c5f2c5f2c5f2c",), digests=(DIGEST,), unfinished=("x",), all_sources=True)
    options = {
        "namespace": "finance",
        "image": JobImage("i"),
        "suffix": "1",
        "delete": False,
        "min_age_seconds": 3600,
        **said,
    }
    return build_prune_job(ClaimPath("models", "artifacts"), names, **options)


def test_the_job_is_restricted_and_has_no_rights() -> None:
    pod = manifest()["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["restartPolicy"] == "Never"


def test_a_dry_run_does_not_say_delete() -> None:
    assert "--delete" not in manifest()["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--delete" in manifest(delete=True)["spec"]["template"]["spec"]["containers"][0]["args"]


def test_lora_job_understands_what_the_job_says(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = manifest()["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[:2] == ["prune", "/store/artifacts"]
    assert run(["prune", str(tmp_path), *arguments[2:]]) == 0, capsys.readouterr().err


LINES = [
    {
        "kind": "artifact",
        "path": "finance/old/0000000000000001",
        "bytes": 2048,
        "digest": DIGEST,
        "action": "unneeded",
        "why": "",
    },
    {
        "kind": "artifact",
        "path": "finance/fin-v2/5f2c5f2c5f2c5f2c",
        "bytes": 10,
        "digest": DIGEST,
        "action": "kept",
        "why": "LoRAAdapter fin-v2 names it",
    },
]


def working(cluster: WholeCluster, *, failed: str = "") -> list[list[str]]:
    """Job controller and kubelet: every Job ends at once; returns the arguments it was started with."""
    started: list[list[str]] = []

    def react(stored: Json) -> None:
        if stored["kind"] != JOB.kind or stored.get("status", {}).get("conditions"):
            return
        name, arguments = stored["metadata"]["name"], stored["spec"]["template"]["spec"]["containers"][0]["args"]
        started.append(arguments)
        lines = [
            {
                **line,
                "action": "removed" if line["action"] == "unneeded" and "--delete" in arguments else line["action"],
            }
            for line in LINES
        ]
        end = {"name": "prune", "state": {"terminated": {"exitCode": 1 if failed else 0, "message": failed}}}
        pod = job_pod(f"{name}-x", job_name=name, phase="Succeeded", containerStatuses=[end])
        pod["spec"] = {"containers": [{"name": "prune"}]}
        cluster.put(POD, pod)
        cluster.logs[f"{name}-x", "prune"] = [json.dumps(line) for line in lines]
        condition = (
            {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
            if failed
            else {"type": "Complete", "status": "True"}
        )
        cluster.set_status(JOB, name, {"conditions": [condition]})

    cluster.put(ADAPTER, ready_adapter())
    cluster.put(CLAIM, {"metadata": {"name": "models"}})
    cluster.put(LORA_DEPLOYMENT, stable_deployment())
    meta = {"name": "r", "labels": {"loraops.dev/deployment": "fin-assistant"}}
    cluster.put(
        CONTROLLER_REVISION, {"metadata": meta, "data": {"revision": "77", "artifactDigest": "sha256:" + "77" * 32}}
    )
    template = {
        "spec": {"containers": [{"name": "operator", "env": [{"name": "LORA_JOB_IMAGE", "value": "reg/lora-job:1"}]}]}
    }
    labels = {"app.kubernetes.io/name": "lora-operator", "app.kubernetes.io/component": "controller"}
    cluster.put_somewhere(
        DEPLOYMENT, "lora-operator", namespace="lora-system", labels=labels, spec={"template": template}
    )
    cluster.react = react
    return started


def test_by_default_it_only_looks(loractl: Terminal, cluster: WholeCluster) -> None:
    started = working(cluster)
    result = loractl("prune")
    assert result.exit_code == 0, result.output
    assert len(started) == 1
    assert "--delete" not in started[0]
    assert "named by nobody: 1 directory, 2.0 KiB; 1 kept; nothing was removed" in result.stdout
    assert "finance/old/0000000000000001" in result.stdout


def test_several_stores_are_told_apart(loractl: Terminal, cluster: WholeCluster) -> None:
    started = working(cluster)
    other = ready_adapter("fin-v3")
    other["spec"]["artifact"]["store"]["pvc"]["path"] = "elsewhere"
    cluster.put(ADAPTER, other)
    shown = loractl("prune").stdout
    assert [arguments[1] for arguments in started] == ["/store/artifacts", "/store/elsewhere"]
    assert "pvc://models/artifacts" in shown
    assert "pvc://models/elsewhere" in shown
    assert (
        loractl("prune", "-o", "name").stdout.splitlines()[0] == "pvc://models/artifacts/finance/old/0000000000000001"
    )


def test_the_names_of_all_three_kinds_travel_with_it(loractl: Terminal, cluster: WholeCluster) -> None:
    started = working(cluster)
    loractl("prune")
    assert "fin-v2/5f2c5f2c5f2c5f2c" in started[0]
    assert {"sha256:" + "77" * 32, "sha256:" + "cd" * 32} <= set(started[0])


def test_the_image_is_the_operators(loractl: Terminal, cluster: WholeCluster) -> None:
    working(cluster)
    loractl("prune")
    jobs = [one for (plural, _, _), one in cluster.objects.items() if plural == "jobs"]
    assert jobs[0]["spec"]["template"]["spec"]["containers"][0]["image"] == "reg/lora-job:1"


def test_delete_without_a_terminal_needs_a_yes(loractl: Terminal, cluster: WholeCluster) -> None:
    started = working(cluster)
    result = loractl("prune", "--delete")
    assert result.exit_code == 2
    assert "add --yes" in result.stderr
    assert started == []


def test_delete_with_a_yes_removes(loractl: Terminal, cluster: WholeCluster) -> None:
    started = working(cluster)
    result = loractl("prune", "--delete", "--yes")
    assert result.exit_code == 0
    assert "--delete" in started[0]
    assert "removed 1 directory, 2.0 KiB; 1 kept" in result.stdout


@pytest.mark.parametrize(("answer", "jobs", "code"), [pytest.param("y", 2, 0, marks=pytest.mark.full), ("n", 1, 1)])
def test_at_a_terminal_it_shows_and_asks_first(
    screen_of: Open, cluster: WholeCluster, answer: str, jobs: int, code: int
) -> None:
    started = working(cluster)
    screen = screen_of("prune", "--delete")
    assert "/0000000000000001" in screen.until("Remove 1 directory, 2.0 KiB? [y/N]")
    screen.type(f"{answer}\n")
    assert screen.end() == code
    assert ["--delete" in arguments for arguments in started] == [False, True][:jobs]
    assert ("removed 1 directory" in screen.text) == (answer == "y")


def test_a_job_that_fails_is_told_in_its_own_words(loractl: Terminal, cluster: WholeCluster) -> None:
    working(cluster, failed="lora-job: SourceNotFound: store /store/artifacts: there is no such directory")
    result = loractl("prune")
    assert result.exit_code == 1
    assert "there is no such directory" in result.stderr


def test_a_claim_that_is_not_there_is_told_at_once_with_the_nearest(loractl: Terminal, cluster: WholeCluster) -> None:
    started = working(cluster)
    result = loractl("prune", "--store", "pvc://modells/artifacts")
    assert (result.exit_code, started) == (2, [])
    assert "PersistentVolumeClaim modells is not in namespace finance; there is models" in result.stderr


def test_an_adapter_whose_claim_is_gone_does_not_keep_the_other_stores_from_being_looked_at(
    loractl: Terminal, cluster: WholeCluster
) -> None:
    started = working(cluster)
    lost = ready_adapter("fin-v3")
    lost["spec"]["artifact"]["store"]["pvc"]["claimName"] = "gone"
    cluster.put(ADAPTER, lost)
    result = loractl("prune")
    assert (result.exit_code, len(started)) == (0, 1)
    assert "pvc://gone/artifacts is left out: PersistentVolumeClaim gone is not in namespace finance" in result.stderr


def test_who_may_not_list_claims_may_still_look(loractl: Terminal, cluster: WholeCluster) -> None:
    working(cluster)
    cluster.refused.add("list persistentvolumeclaims")
    assert loractl("prune").exit_code == 0


def test_without_any_store_it_asks_for_one(loractl: Terminal) -> None:
    result = loractl("prune")
    assert result.exit_code == 2
    assert "--store pvc://CLAIM/PATH" in result.stderr
