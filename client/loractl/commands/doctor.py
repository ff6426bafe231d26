"""doctor: reads what the cluster has, in parallel, and tells what is missing."""

import asyncio
from typing import Any

import typer

from lora_client.errors import Forbidden, NotInstalled
from lora_client.names import ADAPTER, CLAIM, POD, Kind
from loractl.facts import Facts, Finding
from loractl.findings import judge
from loractl.pages import chain_lines
from loractl.rights import RIGHTS, Right
from loractl.session import Session, cluster_command
from loractl.verdict import INFRASTRUCTURE, OK

__all__ = ["register"]

PANEL = "Cluster"
GATEWAY_API = "gateway.networking.k8s.io"
SETTINGS_KEY = "settings.yaml"
OPERATOR = "app.kubernetes.io/name=lora-operator,app.kubernetes.io/component=controller"
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
GATEWAY_CLASS = Kind(GATEWAY_API, "v1", "gatewayclasses", "GatewayClass")
GATEWAY = Kind(GATEWAY_API, "v1", "gateways", "Gateway")
INGRESS_CLASS = Kind("networking.k8s.io", "v1", "ingressclasses", "IngressClass")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
NODE = Kind("", "v1", "nodes", "Node")
STORAGE_CLASS = Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass")
REVIEW = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview")


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    cluster_command(app, panel=PANEL, forms=True)(doctor)


async def doctor(session: Session) -> int:
    """Is the cluster fit: CRDs, operator, rights, router, metrics, GPUs, storage; each finding says how to mend it."""
    facts = await _Reader(session).facts()
    findings = judge(facts, now=session.out.now)
    out = session.out
    if out.structured:
        out.data([{"level": f.level, "about": f.about, "says": f.says, "mend": f.mend} for f in findings])
    else:
        for finding in findings:
            _tell(session, finding)
    missing = sum(finding.level == "missing" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if not out.structured:
        out.line()
        out.line(f"{missing} missing, {warnings} to look at" if missing or warnings else "The cluster is fit.")
    return INFRASTRUCTURE if missing else OK


def _tell(session: Session, finding: Finding) -> None:
    lead = f"{finding.level:<9}{finding.about:<15}"
    for text in (finding.says, finding.mend):
        if not text:
            continue
        width = session.out.width
        lines = list(chain_lines([("", text)], width=None if width is None else max(20, width - len(lead))))
        for line in lines:
            session.out.line(f"{lead}{line.strip()}")
            lead = " " * len(lead)


class _Reader:
    """Lists everything that is judged; a kind that is absent is an empty list, one that is forbidden None."""

    def __init__(self, session: Session) -> None:
        self._api = session.client.api
        self._namespace = session.namespace
        self._denied: list[str] = []

    async def facts(self) -> Facts:
        version = await self._api.document(
            "/version"
        )  # the first call: without a cluster there is one sentence, not twelve
        served, groups, allowed = await asyncio.gather(self._served(), self._groups(), self._allowed())
        everywhere = [CRD, DEPLOYMENT, LEASE, INGRESS_CLASS, NODE, POD, STORAGE_CLASS]
        labels = {DEPLOYMENT: OPERATOR}
        listed = dict(
            zip(
                everywhere,
                await asyncio.gather(*(self._list(kind, None, labels.get(kind, "")) for kind in everywhere)),
                strict=True,
            )
        )
        has_gateways = GATEWAY_API in groups
        return Facts(
            namespace=self._namespace,
            version=version,
            crds=listed[CRD],
            resources_served=served,
            allowed=allowed,
            operators=listed[DEPLOYMENT],
            leases=listed[LEASE],
            gateway_classes=await self._list(GATEWAY_CLASS, None) if has_gateways else [],
            gateways=await self._list(GATEWAY, None) if has_gateways else [],
            ingress_classes=listed[INGRESS_CLASS],
            settings=await self._settings(listed[DEPLOYMENT]),
            nodes=listed[NODE],
            pods=listed[POD],
            storage_classes=listed[STORAGE_CLASS],
            claims=await self._list(CLAIM, self._namespace),
            denied=tuple(self._denied),
        )

    async def _served(self) -> bool:
        try:
            await self._api.list(ADAPTER, namespace=self._namespace)
        except NotInstalled:
            return False
        except Forbidden:
            return True  # a kind that is not served is 404, whatever the rights
        return True

    async def _groups(self) -> set[str]:
        answer = await self._api.document("/apis")
        return {str(group["name"]) for group in answer.get("groups") or ()}

    async def _allowed(self) -> dict[Right, bool]:
        answers = await asyncio.gather(*(self._may(right) for right in RIGHTS))
        return dict(zip(RIGHTS, answers, strict=True))

    async def _may(self, right: Right) -> bool:
        resource, _, subresource = right.resource.partition("/")
        attributes = {
            "namespace": "" if right.everywhere else self._namespace,
            "group": right.group,
            "resource": resource,
            "verb": right.verb,
        } | ({"subresource": subresource} if subresource else {})
        manifest: dict[str, Any] = {
            "apiVersion": REVIEW.api_version,
            "kind": REVIEW.kind,
            "metadata": {"namespace": None},  # it lives in no namespace
            "spec": {"resourceAttributes": attributes},
        }
        answer = await self._api.create(REVIEW, manifest)
        return bool((answer.get("status") or {}).get("allowed"))

    async def _settings(self, operators: Any) -> dict[str, Any] | None:
        import yaml  # noqa: PLC0415 - only here

        for one in operators or ():
            namespace = one["metadata"]["namespace"]
            for found in await self._list(CONFIG_MAP, namespace, "app.kubernetes.io/name=lora-operator") or ():
                text = (found.get("data") or {}).get(SETTINGS_KEY)
                if text is not None:
                    return dict(yaml.safe_load(text) or {})
        return None

    async def _list(self, kind: Kind, namespace: str | None, labels: str = "") -> list[Any] | None:
        try:
            return list(await self._api.list(kind, namespace=namespace, labels=labels))
        except Forbidden:
            self._denied.append(kind.plural)
            return None
