"""The operator's part in a test of the client: adapters become ready, deployments become stable, requests are answered."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from lora_client.names import ADAPTER, CONTROLLER_REVISION, LORA_DEPLOYMENT, POD
from tests.client.objects import conditions, finished, stored_revision, version
from tests.fakes.api_server import FakeApiServer

Json = dict[str, Any]
DIGEST = "sha256:" + "0" * 64
SCORE = {"overallScore": 0.9, "grade": "excellent", "gates": []}


@dataclass
class SimulatedOperator:
    """`adapters` and `deployments`: what becomes of each, by name; good unless said."""

    api: FakeApiServer
    adapters: dict[str, str] = field(default_factory=dict)  # good | refused | stuck
    deployments: str = "good"  # good | crash
    every_adapter: str = "good"  # what becomes of those that `adapters` does not name

    def attach(self) -> "SimulatedOperator":
        """Reacts to every write from now on."""
        self.api.react = self._react
        return self

    def _react(self, obj: Json) -> None:
        meta = obj["metadata"]
        if obj.get("status", {}).get("observedGeneration") == meta["generation"] and not meta.get("annotations"):
            return
        if obj["kind"] == "LoRAAdapter":
            self._adapter(obj)
        elif obj["kind"] == "LoRADeployment":
            self._deployment(obj)
        elif obj["kind"] == "Pod":
            running = {"phase": "Running", "containerStatuses": [{"name": "files", "state": {"running": {}}}]}
            self.api.set_status(POD, meta["name"], running, namespace=meta["namespace"])

    def _adapter(self, obj: Json) -> None:
        meta, what = obj["metadata"], self.adapters.get(obj["metadata"]["name"], self.every_adapter)
        if what == "stuck":
            return
        status: Json = {
            "phase": "Failed",
            "conditions": conditions(ready="False", reason="WrongBase", message="names 'x'", stalled=True),
        }
        if what == "good":
            ready = conditions(ready="True", reason="Ready")
            artifact = {"digest": DIGEST, "uri": f"pvc://models/artifacts/{meta['name']}"}
            status = {"phase": "Ready", "conditions": ready, "artifact": artifact, "validation": SCORE}
        self.api.set_status(ADAPTER, meta["name"], status, namespace=meta["namespace"])

    def _deployment(self, obj: Json) -> None:
        meta, status, adapter = obj["metadata"], dict(obj.get("status") or {}), obj["spec"]["adapterRef"]["name"]
        status.pop("observedGeneration", None)  # every write of this operator is about the stored spec
        namespace, name = meta["namespace"], meta["name"]
        requests = dict(status.get("lastRequests") or {})
        asked = (meta.get("annotations") or {}).get("loraops.dev/rollback-to", "")
        if asked and requests.get("rollback-to", {}).get("value") != asked:
            requests["rollback-to"] = {"value": asked, "time": "2026-01-01T00:00:00Z", "result": "Accepted"}
            status |= {"stable": version(asked.partition("/")[0], adapter="back"), "lastRequests": requests}
            self.api.set_status(LORA_DEPLOYMENT, name, status, namespace=namespace)
            return
        revision = hashlib.sha256(adapter.encode()).hexdigest()[:8]
        if self.deployments == "crash":
            abort = {"revision": revision, "reason": "PodFailed", "message": "ValueError: no such layer"}
            new = {"phase": "Aborted", "abort": abort, "conditions": conditions(ready="False", reason="Aborted")}
        else:
            number = len(status.get("history", ())) + 1
            self.api.put(
                CONTROLLER_REVISION,
                stored_revision(name, revision, number=number, adapter=adapter),
                namespace=namespace,
            )
            new = {
                "phase": "Stable",
                "stable": version(revision, adapter=adapter),
                "endpoints": [f"http://{name}.{namespace}.svc/v1/chat/completions"],
                "history": [finished(revision, name=name, adapter=adapter), *status.get("history", ())],
                "conditions": conditions(ready="True", reason="Stable"),
            }
        self.api.set_status(LORA_DEPLOYMENT, name, {**status, **new}, namespace=namespace)
