"""The fake API server with the rest of server-side apply: what a manager leaves out is removed, and managedFields tell who owns what."""

import copy
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lora_client.names import Kind
from tests.fakes.api_server import FakeApiServer, Json, Key

Path = tuple[str, ...]


class OwningApiServer(FakeApiServer):
    """Owners are those that FakeApiServer keeps, a path of spec each; a list is one field."""

    def _apply(self, request: web.Request, kind: Kind, key: Key, body: Json) -> web.Response:
        manager, dry = request.query["fieldManager"], request.query.get("dryRun") == "All"
        before = dict(self._owners.get(key, {}))
        response = super()._apply(request, kind, key, body)
        if dry or response.status >= 400:
            return response
        applied = set(_leaves(body.get("spec", {})))
        given_up = [path for path, owner in before.items() if owner == manager and path not in applied]
        stored = copy.deepcopy(self.objects[key])
        for path in given_up:
            self._owners[key].pop(path, None)
            _remove(stored["spec"], path)
        stored["metadata"]["managedFields"] = _managed(self._owners[key])
        self.objects[key]["metadata"]["managedFields"] = stored["metadata"]["managedFields"]
        return self._written(kind, stored, code=response.status) if given_up else response


def _leaves(value: Any, path: Path = ()) -> list[Path]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, (*path, str(key)))]
    return [path]


def _remove(value: Json, path: Path) -> None:
    """Takes the leaf away, and what only led to it."""
    below = value.get(path[0])
    if len(path) > 1 and isinstance(below, dict):
        _remove(below, path[1:])
    if len(path) == 1 or below == {}:
        value.pop(path[0], None)


def _managed(owners: Mapping[Path, str]) -> list[Json]:
    """One entry a manager, as the API server writes it."""
    found: dict[str, Json] = {}
    for path, manager in owners.items():
        level = found.setdefault(manager, {})
        for part in ("spec", *path):
            level = level.setdefault(f"f:{part}", {})
    return [{"manager": name, "operation": "Apply", "fieldsV1": fields} for name, fields in found.items()]
