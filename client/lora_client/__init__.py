"""lora_client: LoRA adapters on a cluster, from Python. See docs/sdk.md.

Importing it costs nothing: aiohttp is loaded when a request is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_client.adapter import Adapter, Gate
    from lora_client.assignment import assign, bucket, match_headers
    from lora_client.client import LoRAClient
    from lora_client.deployment import Deployment, Finished, Request, Revision, Version
    from lora_client.errors import (
        ClientError,
        Conflict,
        Forbidden,
        Invalid,
        NoCluster,
        NotFound,
        NotInstalled,
        Refused,
        TimedOut,
        Unauthorized,
        Unavailable,
    )
    from lora_client.kubeconfig import Context, list_contexts
    from lora_client.logs import LogLine, Progress
    from lora_client.names import Verb
    from lora_client.resource import Condition
    from lora_client.retrying import Backoff
    from lora_client.sync import SyncLoRAClient
    from lora_client.workflow import AdapterSource, Workflow, WorkflowRequest, WorkflowState

_HOME = {
    "adapter": ["Adapter", "Gate"],
    "assignment": ["assign", "bucket", "match_headers"],
    "client": ["LoRAClient"],
    "kubeconfig": ["Context", "list_contexts"],
    "deployment": ["Deployment", "Finished", "Request", "Revision", "Version"],
    "errors": [
        "ClientError", "Conflict", "Forbidden", "Invalid", "NoCluster", "NotFound", "NotInstalled", "Refused", "TimedOut", "Unauthorized",
        "Unavailable",
    ],
    "logs": ["LogLine", "Progress"],
    "names": ["Verb"],
    "resource": ["Condition"],
    "retrying": ["Backoff"],
    "sync": ["SyncLoRAClient"],
    "workflow": ["AdapterSource", "Workflow", "WorkflowRequest", "WorkflowState"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Adapter", "AdapterSource", "Backoff", "ClientError", "Condition", "Conflict", "Context", "Deployment", "Finished", "Forbidden",
    "Gate", "Invalid", "LoRAClient", "LogLine", "NoCluster", "NotFound", "NotInstalled", "Progress", "Refused", "Request", "Revision",
    "SyncLoRAClient", "TimedOut", "Unauthorized", "Unavailable", "Verb", "Version", "Workflow", "WorkflowRequest", "WorkflowState",
    "assign", "bucket", "list_contexts", "match_headers",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loads a public name when it is asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
