"""What a user of loractl does on the API: what `loractl doctor` asks the API server about, one by one."""

from dataclasses import dataclass

__all__ = ["RIGHTS", "Right"]


@dataclass(frozen=True)
class Right:
    """One thing that a user of loractl does on the API."""

    group: str
    resource: str
    verb: str
    needed_for: str
    everywhere: bool = False  # in all namespaces

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


HELPER_PODS = "workflow with local directories, report"
RIGHTS = (
    *(
        Right("loraops.dev", "loraadapters", verb, "get, status, workflow")
        for verb in ("get", "list", "watch", "create", "patch")
    ),
    *(
        Right("loraops.dev", "loradeployments", verb, "get, status, workflow")
        for verb in ("get", "list", "watch", "create", "patch")
    ),
    Right("apps", "controllerrevisions", "list", "rollback, prune"),
    Right("batch", "jobs", "list", "explain"),
    *(Right("batch", "jobs", verb, "prune") for verb in ("get", "create", "delete")),
    Right("", "pods", "list", "explain, logs"),
    *(Right("", "pods", verb, HELPER_PODS) for verb in ("watch", "create", "delete")),
    Right("", "pods/log", "get", "logs, progress bars"),
    # A command is sent by a websocket's GET; since Kubernetes 1.35 the server asks for create as well.
    *(Right("", "pods/exec", verb, HELPER_PODS) for verb in ("get", "create")),
    Right(
        "apps",
        "deployments",
        "list",
        "prune, report, copies and doctor: where the operator's job image is read",
        everywhere=True,
    ),
    Right("", "events", "list", "explain"),
)
