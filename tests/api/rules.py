"""Every rule of the two schemas: an object it accepts, one it refuses, and words of the refusal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.api.objects import ABSENT, ADAPTER, DEPLOYMENT, DIGEST, PVC


@dataclass(frozen=True)
class Rule:
    """`says` must occur in the refusal. `before`: changes of the stored object, for rules about an update."""

    sentence: str
    manifest: Mapping[str, Any]
    accepts: Mapping[str, Any]
    refuses: Mapping[str, Any]
    says: str
    before: Mapping[str, Any] | None = field(default=None)


def adapter(sentence: str, *, accepts: Mapping[str, Any], refuses: Mapping[str, Any], says: str) -> Rule:
    return Rule(sentence, ADAPTER, accepts, refuses, says)


def deployment(sentence: str, *, accepts: Mapping[str, Any], refuses: Mapping[str, Any], says: str) -> Rule:
    return Rule(sentence, DEPLOYMENT, accepts, refuses, says)


def update(sentence: str, *, accepts: Mapping[str, Any], refuses: Mapping[str, Any], before: Mapping[str, Any]) -> Rule:
    says = "found a change in base, adapters, merge, quantization or artifact, which are immutable"
    return Rule(sentence, ADAPTER, accepts, refuses, says, before)


ONE_SOURCE = "expected exactly one of pvc, s3, huggingFace, oci"
RELATIVE = "expected a path relative to the root of the claim; remove the leading slash and every"
WEIGHTS = "spec.validation.weights"
BASE = "spec.base.source"
SECOND = {"name": "second", "source": PVC}
MAIN = ADAPTER["spec"]["adapters"][0]
STEPS = "spec.strategy.canary.steps"
AB = {"split": {"stable": 70, "candidate": 30}, "successMetrics": ["conversion"]}
GATEWAY = {"gateway": {"parentRefs": [{"name": "public"}]}}
METRICS = "spec.analysis.metrics"
RATE = {"name": "errors", "builtin": "errorRate"}

ADAPTER_RULES = (
    adapter(
        "a name has at most 45 characters",
        accepts={"metadata.name": "a" * 45},
        refuses={"metadata.name": "a" * 46},
        says="expected at most 45 characters of a-z, 0-9 and -, beginning with a letter",
    ),
    adapter(
        "a name begins with a letter and has no dot",
        accepts={"metadata.name": "v1-2"},
        refuses={"metadata.name": "1.v2"},
        says="found 1.v2, expected at most 45 characters",
    ),
    adapter(
        "a base has a source",
        accepts={BASE: PVC},
        refuses={BASE: ABSENT},
        says="spec.base.source: Required value",
    ),
    adapter(
        "a base has not no place",
        accepts={BASE: {"huggingFace": {"repo": "owner/name", "revision": "main"}}},
        refuses={BASE: {}},
        says=f"found none, {ONE_SOURCE}",
    ),
    adapter(
        "a base has not two places",
        accepts={BASE: {"oci": {"reference": "registry.example.com/base@" + DIGEST}}},
        refuses={BASE: {**PVC, "oci": {"reference": "registry.example.com/base:1"}}},
        says=f"spec.base.source: Invalid value: found several, {ONE_SOURCE}",
    ),
    adapter(
        "an adapter has exactly one place",
        accepts={
            "spec.adapters.0.source": {"s3": {"bucket": "models", "prefix": "v1", "endpoint": "http://minio:9000"}}
        },
        refuses={"spec.adapters.0.source": {**PVC, "s3": {"bucket": "models", "prefix": "v1"}}},
        says=f"spec.adapters[0].source: Invalid value: found several, {ONE_SOURCE}",
    ),
    adapter(
        "a path has no leading slash",
        accepts={f"{BASE}.pvc.path": "models/base"},
        refuses={f"{BASE}.pvc.path": "/models/base"},
        says=f'spec.base.source.pvc.path: Invalid value: "/models/base": found /models/base, {RELATIVE}',
    ),
    adapter(
        "a path does not climb out of its claim",
        accepts={f"{BASE}.pvc.path": "models/..base/v1.."},
        refuses={f"{BASE}.pvc.path": "models/../../etc"},
        says=RELATIVE,
    ),
    adapter(
        "the store's path is relative",
        accepts={"spec.artifact.store.pvc.path": "artifacts/finance"},
        refuses={"spec.artifact.store.pvc.path": "/artifacts"},
        says=f'spec.artifact.store.pvc.path: Invalid value: "/artifacts": found /artifacts, {RELATIVE}',
    ),
    adapter(
        "a suite's path is relative",
        accepts={"spec.validation.suites": [{"pvc": {"claimName": "models", "path": "suites/own.jsonl"}}]},
        refuses={"spec.validation.suites": [{"pvc": {"claimName": "models", "path": "suites/../own.jsonl"}}]},
        says=RELATIVE,
    ),
    adapter(
        "a claim has the name of a claim",
        accepts={f"{BASE}.pvc.claimName": "models-v2.nfs"},
        refuses={f"{BASE}.pvc.claimName": "Models"},
        says="spec.base.source.pvc.claimName",
    ),
    adapter(
        "a bucket has the name of a bucket",
        accepts={BASE: {"s3": {"bucket": "my-models", "prefix": ""}}},
        refuses={BASE: {"s3": {"bucket": "My Models", "prefix": ""}}},
        says="spec.base.source.s3.bucket",
    ),
    adapter(
        "an S3 endpoint is a URL",
        accepts={BASE: {"s3": {"bucket": "models", "prefix": "", "endpoint": "https://s3.example.com"}}},
        refuses={BASE: {"s3": {"bucket": "models", "prefix": "", "endpoint": "s3.example.com"}}},
        says="spec.base.source.s3.endpoint",
    ),
    adapter(
        "a repository is owner/name",
        accepts={BASE: {"huggingFace": {"repo": "HuggingFaceTB/SmolLM2-135M"}}},
        refuses={BASE: {"huggingFace": {"repo": "https://example.com/x"}}},
        says="spec.base.source.huggingFace.repo",
    ),
    adapter(
        "a digest is sha256 and 64 hex digits",
        accepts={"spec.base.digest": DIGEST},
        refuses={"spec.base.digest": "sha256:abc"},
        says="spec.base.digest",
    ),
    adapter(
        "there is at least one adapter",
        accepts={"spec.adapters": [MAIN]},
        refuses={"spec.adapters": []},
        says="spec.adapters: Invalid value: 0: spec.adapters in body should have at least 1 items",
    ),
    adapter(
        "there are at most eight adapters",
        accepts={"spec.adapters": [{**MAIN, "name": f"a{n}"} for n in range(8)]},
        refuses={"spec.adapters": [{**MAIN, "name": f"a{n}"} for n in range(9)]},
        says="spec.adapters: Too many: 9: must have at most 8 items",
    ),
    adapter(
        "adapters have different names",
        accepts={"spec.adapters": [MAIN, SECOND]},
        refuses={"spec.adapters": [MAIN, MAIN]},
        says='spec.adapters[1]: Duplicate value: {"name":"main"}',
    ),
    adapter(
        "SLERP has two adapters, not one",
        accepts={"spec.merge.strategy": "SLERP", "spec.adapters": [MAIN, SECOND]},
        refuses={"spec.merge.strategy": "SLERP"},
        says="adapters: found one, expected exactly two",
    ),
    adapter(
        "SLERP has two adapters, not three",
        accepts={"spec.merge.strategy": "TIES", "spec.adapters": [MAIN, SECOND, {**MAIN, "name": "third"}]},
        refuses={"spec.merge.strategy": "SLERP", "spec.adapters": [MAIN, SECOND, {**MAIN, "name": "third"}]},
        says="adapters: found more than two, expected exactly two",
    ),
    adapter(
        "a strategy is one of six",
        accepts={"spec.merge.strategy": "DARETIES"},
        refuses={"spec.merge.strategy": "linear"},
        says='supported values: "Linear", "SLERP", "TaskArithmetic", "TIES", "DARELinear", "DARETIES"',
    ),
    adapter(
        "a dtype is one of four",
        accepts={"spec.merge.dtype": "BFloat16"},
        refuses={"spec.merge.dtype": "bf16"},
        says='supported values: "Auto", "BFloat16", "Float16", "Float32"',
    ),
    adapter(
        "t is between 0 and 1",
        accepts={"spec.merge.t": 0.25},
        refuses={"spec.merge.t": 1.5},
        says="spec.merge.t",
    ),
    adapter(
        "density is at most 1",
        accepts={"spec.merge.density": 1},
        refuses={"spec.merge.density": 1.1},
        says="spec.merge.density",
    ),
    adapter(
        "density is above 0, at which nothing would be kept",
        accepts={"spec.merge.density": 0.01},
        refuses={"spec.merge.density": 0},
        says="spec.merge.density",
    ),
    adapter(
        "a seed is not negative",
        accepts={"spec.merge.seed": 9007199254740991},
        refuses={"spec.merge.seed": -1},
        says="spec.merge.seed",
    ),
    adapter(
        "a quantization is one of five",
        accepts={"spec.quantization.format": "W4A16"},
        refuses={"spec.quantization.format": "GGUF"},
        says='supported values: "None", "BnbInt8", "BnbNF4", "FP8Dynamic", "W4A16"',
    ),
    adapter(
        "a validation mode is one of four",
        accepts={"spec.validation.mode": "None"},
        refuses={"spec.validation.mode": "basic"},
        says='supported values: "None", "Basic", "Standard", "Comprehensive"',
    ),
    adapter(
        "weights add up to no more than 1",
        accepts={WEIGHTS: {"basic": 0.4, "domain": 0.3, "safety": 0.2, "performance": 0.1}},
        refuses={WEIGHTS: {"basic": 0.4, "domain": 0.3, "safety": 0.2, "performance": 0.100002}},
        says="found basic + domain + safety + performance above 1, expected 1",
    ),
    adapter(
        "weights add up to no less than 1, whole numbers or not",
        accepts={WEIGHTS: {"basic": 1, "domain": 0, "safety": 0, "performance": 0}},
        refuses={WEIGHTS: {"basic": 0.5, "domain": 0, "safety": 0, "performance": 0}},
        says="found basic + domain + safety + performance below 1, expected 1",
    ),
    adapter(
        "weights are off by less than a millionth",
        accepts={WEIGHTS: {"basic": 0.3333333, "domain": 0.3333333, "safety": 0.3333333, "performance": 0}},
        refuses={WEIGHTS: {"basic": 0.33333, "domain": 0.33333, "safety": 0.33333, "performance": 0}},
        says="change the weights so that they add up to 1",
    ),
    adapter(
        "weights are given for all four dimensions",
        accepts={WEIGHTS: {"basic": 0, "domain": 0, "safety": 1, "performance": 0}},
        refuses={WEIGHTS: {"safety": 1}},
        says="spec.validation.weights.basic: Required value",
    ),
    adapter(
        "a gate is between 0 and 1",
        accepts={"spec.validation.gates.minScore": 0.8},
        refuses={"spec.validation.gates.minScore": 80},
        says="spec.validation.gates.minScore",
    ),
    adapter(
        "a basis is Point or LowerBound",
        accepts={"spec.validation.gates.basis": "LowerBound"},
        refuses={"spec.validation.gates.basis": "lower-bound"},
        says='supported values: "Point", "LowerBound"',
    ),
    adapter(
        "a suite comes from exactly one place",
        accepts={"spec.validation.suites": [{"configMap": {"name": "own"}}]},
        refuses={
            "spec.validation.suites": [{"configMap": {"name": "own"}, "pvc": {"claimName": "models", "path": "s"}}]
        },
        says="found both, expected exactly one of configMap, pvc",
    ),
    adapter(
        "an artifact is kept or deleted",
        accepts={"spec.artifact.retain": "Delete"},
        refuses={"spec.artifact.retain": "Remove"},
        says='supported values: "Keep", "Delete"',
    ),
    adapter(
        "a version is usable as a label",
        accepts={"spec.version": "2.1.0"},
        refuses={"spec.version": "2.1 final"},
        says="spec.version",
    ),
    adapter(
        "resources are quantities, as numbers or as text",
        accepts={"spec.job.merge.resources": {"limits": {"nvidia.com/gpu": 1, "memory": "8Gi"}}},
        refuses={"spec.job.merge.resources": {"limits": {"memory": "8 gigabytes"}}},
        says="spec.job.merge.resources.limits.memory",
    ),
    adapter(
        "environment variables have different names",
        accepts={"spec.job.validate.env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
        refuses={"spec.job.validate.env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        says="spec.job.validate.env[1]: Duplicate value",
    ),
    adapter(
        "a timeout is at least a second",
        accepts={"spec.job.merge.timeoutSeconds": 1},
        refuses={"spec.job.merge.timeoutSeconds": 0},
        says="spec.job.merge.timeoutSeconds",
    ),
    adapter(
        "fields are known",
        accepts={"spec.suspend": True},
        refuses={"spec.suspended": True},
        says='unknown field "spec.suspended"',
    ),
)

UPDATE_RULES = (
    update(
        "the base is immutable, what describes the adapter is not",
        before={},
        accepts={"spec.description": "another", "spec.tags": ["a"], "spec.suspend": True},
        refuses={f"{BASE}.pvc.path": "other-base"},
    ),
    update(
        "the adapters are immutable, the validation is not",
        before={},
        accepts={"spec.validation.mode": "Comprehensive", "spec.validation.gates.minScore": 0.9},
        refuses={"spec.adapters.0.weight": 0.5},
    ),
    update(
        "the order of the adapters is immutable",
        before={"spec.adapters": [MAIN, SECOND]},
        accepts={"spec.adapters": [MAIN, SECOND]},
        refuses={"spec.adapters": [SECOND, MAIN]},
    ),
    update(
        "the merge is immutable, the Jobs are not",
        before={"spec.merge": {"scale": 1}},
        accepts={"spec.job.merge.timeoutSeconds": 60, "spec.merge": {"scale": 1}},
        refuses={"spec.merge.scale": 0.5},
    ),
    update(
        "a merge that was left out is the default one",
        before={},
        accepts={"spec.merge": {"strategy": "Linear", "dtype": "Auto"}},
        refuses={"spec.merge": {"strategy": "TIES"}},
    ),
    update(
        "the quantization is immutable, the version is not",
        before={},
        accepts={"spec.quantization.format": "None", "spec.version": "2"},
        refuses={"spec.quantization.format": "BnbNF4"},
    ),
    update(
        "the artifact is immutable",
        before={},
        accepts={"spec.artifact.retain": "Keep"},
        refuses={"spec.artifact.retain": "Delete"},
    ),
)

DEPLOYMENT_RULES = (
    deployment(
        "a name has at most 45 characters",
        accepts={"metadata.name": "a" * 45},
        refuses={"metadata.name": "a" * 46},
        says="expected at most 45 characters of a-z, 0-9 and -, beginning with a letter",
    ),
    deployment(
        "a deployment refers to a LoRAAdapter by its name",
        accepts={"spec.adapterRef.name": "fin-v2"},
        refuses={"spec.adapterRef.name": "trading/fin-v2"},
        says="spec.adapterRef.name",
    ),
    deployment(
        "a runtime has a profile",
        accepts={"spec.runtime": {"profile": "my-own"}},
        refuses={"spec.runtime": {}},
        says="spec.runtime.profile: Required value",
    ),
    deployment(
        "replicas are not negative",
        accepts={"spec.replicas": 0},
        refuses={"spec.replicas": -1},
        says="spec.replicas",
    ),
    deployment(
        "a served model name has no slash",
        accepts={"spec.runtime.servedModelName": "Fin_Assistant.v1"},
        refuses={"spec.runtime.servedModelName": "finance/assistant"},
        says="spec.runtime.servedModelName",
    ),
    deployment(
        "a local copy has a size",
        accepts={"spec.runtime.localCopy.sizeLimit": "20Gi"},
        refuses={"spec.runtime.localCopy.sizeLimit": "big"},
        says="spec.runtime.localCopy.sizeLimit",
    ),
    deployment(
        "resources are quantities",
        accepts={"spec.runtime.resources": {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "500m"}}},
        refuses={"spec.runtime.resources": {"limits": {"nvidia.com/gpu": "one"}}},
        says="spec.runtime.resources.limits.nvidia.com/gpu",
    ),
    deployment(
        "serving pods stay offline",
        accepts={"spec.runtime.env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]},
        refuses={"spec.runtime.env": [{"name": "HF_HUB_OFFLINE", "value": "0"}]},
        says="found HF_HUB_OFFLINE, expected another name",
    ),
    deployment(
        "labels of the operator's own are refused",
        accepts={"spec.runtime.podLabels": {"team": "trading", "app.kubernetes.io/version": "1"}},
        refuses={"spec.runtime.podLabels": {"loraops.dev/revision": "1"}},
        says="found a label that the operator sets itself",
    ),
    deployment(
        "annotations of the operator's own are refused",
        accepts={"spec.runtime.podAnnotations": {"example.com/a": "b"}},
        refuses={"spec.runtime.podAnnotations": {"loraops.dev/promote": "b"}},
        says="found an annotation loraops.dev/…, expected others",
    ),
    deployment(
        "volumes have names that are free",
        accepts={"spec.runtime.volumes": [{"name": "certs", "configMap": {"name": "certs"}}]},
        refuses={"spec.runtime.volumes": [{"name": "tmp", "emptyDir": {}}]},
        says="expected a name other than claim, model, cache, hub, tmp and shm",
    ),
    deployment(
        "two volumes are not mounted in one place",
        accepts={"spec.runtime.volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}]},
        refuses={"spec.runtime.volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/a"}]},
        says="spec.runtime.volumeMounts[1]: Duplicate value",
    ),
    deployment(
        "a pull policy is one of three",
        accepts={"spec.runtime.imagePullPolicy": "Never"},
        refuses={"spec.runtime.imagePullPolicy": "Sometimes"},
        says='supported values: "Always", "IfNotPresent", "Never"',
    ),
    deployment(
        "a strategy is one of four",
        accepts={"spec.strategy.type": "BlueGreen"},
        refuses={"spec.strategy.type": "blue_green"},
        says='supported values: "Replace", "BlueGreen", "Canary", "ABTest"',
    ),
    deployment(
        "members of other strategies may stay",
        accepts={"spec.strategy": {"type": "Replace", "blueGreen": {}, "canary": {"steps": []}, "abTest": AB}},
        refuses={"spec.strategy": {"type": "Replace", "blueGreen": {"switchDelaySeconds": -1}}},
        says="spec.strategy.blueGreen.switchDelaySeconds",
    ),
    deployment(
        "a step does one thing, not two",
        accepts={STEPS: [{"setWeight": 5}, {"pause": {}}, {"analyse": {"seconds": 300}}]},
        refuses={STEPS: [{"setWeight": 5, "pause": {}}]},
        says="found several, expected exactly one of setWeight, pause, analyse",
    ),
    deployment(
        "a step does something",
        accepts={STEPS: [{"setWeight": 0}]},
        refuses={STEPS: [{}]},
        says="spec.strategy.canary.steps[0]: Invalid value: found none, expected exactly one of setWeight, pause, analyse",
    ),
    deployment(
        "a weight is at most 100",
        accepts={STEPS: [{"setWeight": 100}]},
        refuses={STEPS: [{"setWeight": 101}]},
        says="spec.strategy.canary.steps[0].setWeight",
    ),
    deployment(
        "a pause waits in one way",
        accepts={STEPS: [{"pause": {"seconds": 60}}]},
        refuses={STEPS: [{"pause": {"seconds": 60, "onTimeout": "Abort"}}]},
        says="found seconds beside timeoutSeconds or onTimeout, expected one way of waiting",
    ),
    deployment(
        "onTimeout needs a timeout",
        accepts={STEPS: [{"pause": {"timeoutSeconds": 60, "onTimeout": "Promote"}}]},
        refuses={STEPS: [{"pause": {"onTimeout": "Promote"}}]},
        says="found onTimeout without timeoutSeconds, expected both",
    ),
    deployment(
        "an A/B test says what it tests",
        accepts={"spec.strategy": {"type": "ABTest", "abTest": AB}, "spec.traffic": GATEWAY},
        refuses={"spec.strategy": {"type": "ABTest"}, "spec.traffic": GATEWAY},
        says="strategy.abTest: found nothing, expected split and successMetrics",
    ),
    deployment(
        "an A/B test needs a router that can assign requests",
        accepts={
            "spec.strategy": {"type": "ABTest", "abTest": AB},
            "spec.traffic": {"ingress": {"className": "nginx"}},
        },
        refuses={"spec.strategy": {"type": "ABTest", "abTest": AB}},
        says="traffic: found service, expected gateway or ingress",
    ),
    deployment(
        "a split adds up to no more than 100",
        accepts={"spec.strategy.abTest": AB},
        refuses={"spec.strategy.abTest": {**AB, "split": {"stable": 70, "candidate": 70}}},
        says="found stable + candidate above 100, expected 100; change one of them",
    ),
    deployment(
        "a split adds up to no less than 100",
        accepts={"spec.strategy.abTest": {**AB, "split": {"stable": 0, "candidate": 100}}},
        refuses={"spec.strategy.abTest": {**AB, "split": {"stable": 1, "candidate": 1}}},
        says="found stable + candidate below 100, expected 100; change one of them",
    ),
    deployment(
        "an A/B test matches by header or cookie",
        accepts={"spec.strategy.abTest": {**AB, "match": {"cookie": {"name": "variant", "value": "b"}}}},
        refuses={
            "spec.strategy.abTest": {
                **AB,
                "match": {"cookie": {"name": "v", "value": "b"}, "header": {"name": "v", "value": "b"}},
            }
        },
        says="found both, expected exactly one of header, cookie",
    ),
    deployment(
        "traffic comes one way, not two",
        accepts={"spec.traffic": GATEWAY},
        refuses={"spec.traffic": {**GATEWAY, "service": {}}},
        says="spec.traffic: Invalid value: found several, expected exactly one of gateway, ingress, service",
    ),
    deployment(
        "traffic comes some way",
        accepts={"spec.traffic": {"ingress": {"className": "nginx", "host": "fin.example.com", "path": "/"}}},
        refuses={"spec.traffic": {}},
        says="found none, expected exactly one of gateway, ingress, service",
    ),
    deployment(
        "a route hangs on at least one Gateway",
        accepts={"spec.traffic": GATEWAY},
        refuses={"spec.traffic": {"gateway": {"parentRefs": []}}},
        says="spec.traffic.gateway.parentRefs",
    ),
    deployment(
        "a host name is a host name",
        accepts={"spec.traffic": {"gateway": {"parentRefs": [{"name": "public"}], "hostnames": ["*.example.com"]}}},
        refuses={
            "spec.traffic": {"gateway": {"parentRefs": [{"name": "public"}], "hostnames": ["http://example.com"]}}
        },
        says="spec.traffic.gateway.hostnames[0]",
    ),
    deployment(
        "figures come from one place",
        accepts={"spec.analysis.source": {"prometheus": {"address": "http://prometheus:9090"}}},
        refuses={"spec.analysis.source": {"prometheus": {"address": "http://prometheus:9090"}, "scrape": {}}},
        says="found both, expected exactly one of scrape, prometheus",
    ),
    deployment(
        "a Prometheus has a URL",
        accepts={"spec.analysis.source": {"prometheus": {"address": "https://prometheus"}}},
        refuses={"spec.analysis.source": {"prometheus": {"address": "prometheus:9090"}}},
        says="spec.analysis.source.prometheus.address",
    ),
    deployment(
        "a metric is builtin or a query",
        accepts={METRICS: [RATE, {"name": "conversion", "query": "sum(x)"}]},
        refuses={METRICS: [{"name": "errors"}]},
        says="found none, expected exactly one of builtin, query",
    ),
    deployment(
        "metrics have different names",
        accepts={METRICS: [RATE, {**RATE, "name": "more"}]},
        refuses={METRICS: [RATE, RATE]},
        says='Duplicate value: {"name":"errors"}',
    ),
    deployment(
        "of is for latency",
        accepts={METRICS: [{"name": "latency", "builtin": "latencyP95", "of": "TTFT"}]},
        refuses={METRICS: [{**RATE, "of": "TTFT"}]},
        says="found of without builtin latencyP95, expected it there only",
    ),
    deployment(
        "alpha is a probability of an error",
        accepts={"spec.analysis.alpha": 0.01},
        refuses={"spec.analysis.alpha": 0.9},
        says="spec.analysis.alpha",
    ),
    deployment(
        "a deadline is at least a second",
        accepts={"spec.progressDeadlineSeconds": 1},
        refuses={"spec.progressDeadlineSeconds": 0},
        says="spec.progressDeadlineSeconds",
    ),
    deployment(
        "fields are known",
        accepts={"spec.forceDeploy": True},
        refuses={"spec.strategy.canary.step": []},
        says='unknown field "spec.strategy.canary.step"',
    ),
)
