"""The story itself, in order. Each chapter uses only what a user has: manifests, kubectl, HTTP.

1 v1 merged, validated, served   2 asked beside its base   3 v2 replaces v1 under load   4 a broken adapter is refused
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from rich.markup import escape

from demo.ask import ask_base, ask_gateway
from demo.load import Load, LoadResult
from demo.place import Place
from demo.tell import Story

__all__ = ["run_story"]

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMESPACE = "finance"
DEPLOYMENT = "fin-assistant"
HOST = "fin.example.com"
BUILD_SECONDS = (
    4 * 3600
)  # two Jobs of at most job.*.timeoutSeconds (2 hours): the operator gives up first, and says why
ROLLOUT_SECONDS = 600


def run_story(place: Place, *, story: Story) -> None:
    """Everything from an empty machine to the summary."""
    place.prepare()
    story.say("Everything below can be watched from this directory in another terminal:")
    story.type_this(place.shell)
    story.type_this(f"loractl -n {NAMESPACE} status finance-v1 --watch")
    with story.step("Adapter v1: merge, validate, publish"):
        first = _build("finance-v1", place=place, story=story)
    with story.step("Serve v1 behind the Gateway"):
        _serve("finance-v1", place=place, story=story)
    with story.step("Ask the base model and the merged model the same questions"):
        answers = _ask(place=place, story=story)
    with story.step("Adapter v2: merge, validate, publish"):
        second = _build("finance-v2", place=place, story=story)
    with story.step("v2 replaces v1 while requests keep coming"):
        load = asyncio.run(_replace_under_load("finance-v2", place=place, story=story))
        story.say(f"{load.answered} requests answered, {load.failed} failed, slowest {load.slowest:.1f} s")
    with story.step("A broken adapter (trained on another base) is refused"):
        refusal = _refuse("finance-broken", place=place, story=story)
    _summary([first, second], answers=answers, load=load, refusal=refusal, place=place, story=story)


def _manifest(name: str) -> Path:
    return EXAMPLES / f"{name}.yaml"


def _build(name: str, *, place: Place, story: Story) -> dict[str, Any]:
    manifest = _manifest(f"adapter-{name.removeprefix('finance-')}")
    story.say(f"kubectl apply -f examples/{manifest.name}")
    place.kubectl.apply(manifest)
    adapter = place.kubectl.wait(
        "loraadapter", name, namespace=NAMESPACE, until=_settled, seconds=BUILD_SECONDS, seen=story.seen
    )
    if adapter["status"]["phase"] not in {"Ready", "Rejected"}:
        raise ValueError(f"LoRAAdapter {name} ended as {adapter['status']['phase']}: {_ready(adapter).get('message')}")
    for gate in adapter["status"].get("validation", {}).get("gates", []):
        colour = "green" if gate["status"] == "PASS" else "yellow"
        story.say(
            f"gate {gate['name']:<10} [{colour}]{gate['status']}[/]  observed {gate['observed']}, threshold {gate['threshold']}"
        )
    if adapter["status"]["phase"] == "Rejected":
        story.say(
            "A soft gate failed. examples/deployment.yaml sets forceDeploy, so it is served all the same, and that is recorded."
        )
    return adapter


def _settled(resource: dict[str, Any]) -> bool:
    """The operator has seen this generation and has nothing more to do by itself."""
    status = resource.get("status", {})
    done = {"Ready", "Rejected", "Failed", "Stable", "Aborted"}
    return status.get("observedGeneration") == resource["metadata"]["generation"] and status.get("phase") in done


def _serves(deployment: dict[str, Any], adapter: str) -> bool:
    """The declared adapter is stable; a rollout that was given up says why instead of being waited for."""
    status = deployment.get("status", {})
    if _settled(deployment) and status["phase"] == "Aborted":
        raise ValueError(f"the rollout of {adapter} was given up: {_ready(deployment).get('message')}")
    return _settled(deployment) and status["phase"] == "Stable" and status.get("stable", {}).get("adapter") == adapter


def _ready(resource: dict[str, Any]) -> dict[str, Any]:
    return next((c for c in resource["status"].get("conditions", []) if c["type"] == "Ready"), {})


def _serve(adapter: str, *, place: Place, story: Story) -> None:
    place.kubectl.apply(_deployment_for(adapter, place=place))
    place.kubectl.wait(
        "loradeployment",
        DEPLOYMENT,
        namespace=NAMESPACE,
        until=lambda found: _serves(found, adapter),
        seconds=ROLLOUT_SECONDS,
        seen=story.seen,
    )


def _deployment_for(adapter: str, *, place: Place) -> dict[str, Any]:
    """examples/deployment.yaml with `adapterRef` pointing at `adapter`: the one line a user would edit."""
    shown = place.kubectl("create", "--dry-run=client", "-o", "json", "-f", str(_manifest("deployment")))
    manifest = dict(json.loads(shown))
    manifest["spec"]["adapterRef"]["name"] = adapter
    return manifest


def _ask(*, place: Place, story: Story) -> list[tuple[str, str, str]]:
    questions = json.loads((EXAMPLES / "finance_lora" / "demo_questions.json").read_text())
    asked = [str(item["question"]) for item in questions]
    merged = [ask_gateway(url=place.gateway_url, host=HOST, model=DEPLOYMENT, question=question) for question in asked]
    base = ask_base(model=place.base_model, questions=asked)
    for question, before, after in zip(asked, base, merged, strict=True):
        story.say(f"[bold]Q[/]      {escape(question)}")
        story.say(f"base   {escape(before)}")
        story.say(f"merged [green]{escape(after)}[/]\n")
    return list(zip(asked, base, merged, strict=True))


async def _replace_under_load(adapter: str, *, place: Place, story: Story) -> LoadResult:
    async with Load(url=place.gateway_url, host=HOST, model=DEPLOYMENT, every=0.5) as result:
        await asyncio.sleep(3)  # some answers from the old version first
        await asyncio.to_thread(_serve, adapter, place=place, story=story)
        await asyncio.sleep(3)  # and some from the new one
    return result


def _refuse(name: str, *, place: Place, story: Story) -> str:
    """Applies the broken adapter, points the deployment at it, and shows that the old version goes on serving."""
    story.say("kubectl apply -f examples/adapter-broken.yaml")
    place.kubectl.apply(_manifest("adapter-broken"))
    broken = place.kubectl.wait(
        "loraadapter", name, namespace=NAMESPACE, until=_settled, seconds=BUILD_SECONDS, seen=story.seen
    )
    place.kubectl.apply(_deployment_for(name, place=place))
    place.kubectl.wait(
        "loradeployment",
        DEPLOYMENT,
        namespace=NAMESPACE,
        until=lambda found: _ready(found).get("reason") == "AdapterNotReady",
        seconds=60,
        seen=story.seen,
    )
    answer = ask_gateway(url=place.gateway_url, host=HOST, model=DEPLOYMENT, question="T+2?")
    story.say(escape(f"still serving: {answer[:60]!r}"))
    place.kubectl.apply(_deployment_for("finance-v2", place=place))
    return f"{_ready(broken).get('reason')}: {_ready(broken).get('message')}"


def _summary(
    adapters: list[dict[str, Any]],
    *,
    answers: list[tuple[str, str, str]],
    load: LoadResult,
    refusal: str,
    place: Place,
    story: Story,
) -> None:
    rows = []
    for adapter in adapters:
        status = adapter["status"]
        merge, validation = status.get("merge", {}), status.get("validation", {})
        rows.append([
            adapter["metadata"]["name"],
            status["artifact"]["digest"][:19],
            f"{merge.get('tensorsMerged')} in {merge.get('seconds')} s",
            f"{validation.get('overallScore')} ({validation.get('grade')})",
        ])  # fmt: skip
    story.table("Builds", ["adapter", "artifact", "tensors merged", "score (grade)"], rows)
    story.table(
        "What was seen",
        ["what", "result"],
        [
            ["questions whose answer changed", f"{sum(a != b for _, a, b in answers)} of {len(answers)}"],
            ["v1 → v2 under load", f"{load.answered} answered, {load.failed} failed, slowest {load.slowest:.1f} s"],
            ["broken adapter", refusal],
        ],
    )
    story.table("Times", ["step", "seconds"], [[title, f"{took:.1f}"] for title, took in story.times])
    story.say(
        "The gates in examples/adapter-*.yaml are set from this 135M model's measured values; the defaults (0.8, 0.95) are for real ones."
    )
    story.say("Look around (in this directory):")
    story.type_this(place.shell)
    story.type_this(f"loractl -n {NAMESPACE} status")
    story.type_this(f"kubectl -n {NAMESPACE} describe lorad {DEPLOYMENT}")
    story.say("Ask it:")
    body = {"model": DEPLOYMENT, "messages": [{"role": "user", "content": answers[0][0]}]}
    story.type_this(
        f"curl -s -H 'Host: {HOST}' -H 'Content-Type: application/json' {place.gateway_url}/v1/chat/completions -d '{json.dumps(body)}'"
    )
    story.say("Clean up:")
    story.type_this("make demo-down")
