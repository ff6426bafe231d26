"""Findings about what shifts traffic and what measures it: GatewayClasses, Gateways, IngressClasses, the operator's sources. Pure."""

from collections.abc import Iterator

from loractl.facts import Facts, Finding, Raw
from loractl.objects import condition_is, name_of, namespace_of

__all__ = ["judge_metrics", "judge_routers"]


def judge_routers(facts: Facts) -> Iterator[Finding]:
    """Whether something takes routes of the namespace."""
    plain = (
        "Install a Gateway API implementation (docs/install.md); Replace and BlueGreen work with a plain Service too."
    )
    if not facts.gateway_classes and not facts.ingress_classes:
        if facts.gateway_classes is not None:
            yield Finding(
                "warning",
                "router",
                "no GatewayClass and no IngressClass: traffic can only be switched by a plain Service",
                plain,
            )
        return
    for one in facts.gateway_classes or ():
        if condition_is(one, "Accepted"):
            yield Finding("ok", "router", f"GatewayClass {name_of(one)} is accepted")
        else:
            yield Finding(
                "warning", "router", f"GatewayClass {name_of(one)} is not accepted", "See whether its controller runs."
            )
    if facts.gateway_classes and facts.gateways is not None and not facts.gateways:
        yield Finding(
            "warning", "router", "there is no Gateway", "Create one, and name it in traffic.gateway.parentRefs."
        )
    for one in facts.gateways or ():
        yield from _gateway(one, namespace=facts.namespace)
    for one in facts.ingress_classes or ():
        yield Finding("ok", "router", f"IngressClass {name_of(one)}")


def _gateway(gateway: Raw, *, namespace: str) -> Iterator[Finding]:
    where = f"Gateway {namespace_of(gateway)}/{name_of(gateway)}"
    if not condition_is(gateway, "Programmed"):
        yield Finding(
            "warning",
            "router",
            f"{where} is not programmed",
            f"kubectl -n {namespace_of(gateway)} describe gateway {name_of(gateway)}",
        )
        return
    open_to = [
        str(listener.get("name"))
        for listener in gateway.get("spec", {}).get("listeners") or ()
        if _takes_routes(listener, same=namespace_of(gateway) == namespace)
    ]
    if open_to:
        yield Finding(
            "ok", "router", f"{where} is programmed; listeners open to namespace {namespace}: {', '.join(open_to)}"
        )
    else:
        mend = "Set allowedRoutes.namespaces.from to All or Selector on a listener."
        yield Finding("warning", "router", f"{where}: no listener takes routes of namespace {namespace}", mend)


def _takes_routes(listener: Raw, *, same: bool) -> bool:
    """Selector may fit or not: only a route can tell, so it counts as open."""
    come_from = ((listener.get("allowedRoutes") or {}).get("namespaces") or {}).get("from", "Same")
    return come_from in {"All", "Selector"} or (come_from == "Same" and same)


def judge_metrics(facts: Facts) -> Iterator[Finding]:
    """Pods and routers are read by the operator itself where its settings say at which address."""
    if facts.settings is None:
        return
    entries = facts.settings.get("routers") or ()
    routers = [router for router in entries if router.get("metricsUrl") or router.get("podSelector")]
    for router in routers:
        name = router.get("gatewayClass") or router.get("ingressClass")
        yield Finding("ok", "metrics", f"an analysis counts requests and errors at the router of class {name}")
    paths = {"vllm": "/metrics"}  # as shipped
    for name, profile in (facts.settings.get("profiles") or {}).items():
        paths[str(name)] = str(profile.get("metricsPath", paths.get(str(name), "")))
    known = sorted(name for name, path in paths.items() if path)
    if known:
        says = (
            f"an analysis reads the pods of profile {', '.join(known)} itself; others need analysis.source.prometheus"
        )
        yield Finding("ok", "metrics", says)
    elif not routers:
        mend = (
            "Set metricsPath in a profile, or a router's metricsUrl, in the operator's settings, or give "
            "analysis.source.prometheus in the LoRADeployment."
        )
        yield Finding(
            "warning", "metrics", "no runtime profile has metrics: an analysis can only ask a Prometheus", mend
        )
