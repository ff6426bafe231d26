"""Credentials from a program: `users[].user.exec` of a kubeconfig, as kubectl runs it (client.authentication.k8s.io/v1, v1beta1).

The program gets the question in $KUBERNETES_EXEC_INFO and answers with an ExecCredential on stdout: a token, or a certificate and its
key. Nothing is cached: a connection asks once, and again when the cluster answered 401.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_client.errors import NoCluster
from lora_client.kubeconfig import Entry

__all__ = ["PluginAnswer", "run_plugin"]

LAST_WORDS = 500


@dataclass(frozen=True)
class PluginAnswer:
    """Either a token, or a certificate and its key (PEM); empty where it gave none."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""


async def run_plugin(user: Entry, cluster: Entry) -> PluginAnswer:
    """Runs it.

    Raises:
        NoCluster: it cannot be started, failed, or answered nothing that logs in.
    """
    asked: Mapping[str, Any] = user.content["exec"]
    where = f"user {user.name} of {user.file}: exec {asked.get('command', '')}"
    interactive = sys.stdin is not None and sys.stdin.isatty() and asked.get("interactiveMode") != "Never"
    if asked.get("interactiveMode") == "Always" and not interactive:
        raise NoCluster(f"{where} needs a terminal (interactiveMode: Always); run this at one, or log in another way")
    environment = {**os.environ, **{str(one["name"]): str(one["value"]) for one in asked.get("env") or ()}}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(_question(asked, cluster, interactive=interactive))
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        # At a terminal the program speaks to the person itself: "open this page and enter the code".
        process = await asyncio.create_subprocess_exec(
            _command(asked, user), *map(str, asked.get("args") or ()), env=environment, stdout=pipe,
            stdin=None if interactive else nothing, stderr=None if interactive else pipe,
        )  # fmt: skip
    except OSError as error:
        hint = f"; {' '.join(str(asked['installHint']).split())}" if asked.get("installHint") else "; install it"
        raise NoCluster(f"{where}: {error.strerror}{hint}") from None
    out, err = await process.communicate()
    if process.returncode:
        words = " ".join((err or b"").decode(errors="replace").split())[-LAST_WORDS:]
        raise NoCluster(f"{where} ended with {process.returncode}: {words or 'no words'}; log in again")
    return _answer(out, where=where)


def _command(asked: Mapping[str, Any], user: Entry) -> str:
    """A command with a slash is relative to the kubeconfig, one without is looked up in PATH."""
    command = str(asked.get("command") or "")
    return str(user.file.parent / command) if "/" in command else command


def _question(asked: Mapping[str, Any], cluster: Entry, *, interactive: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if asked.get("provideClusterInfo"):
        kept = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
        extensions = {str(one.get("name")): one.get("extension") for one in cluster.content.get("extensions") or ()}
        spec["cluster"] = {key: cluster.content[key] for key in kept if key in cluster.content}
        spec["cluster"]["config"] = extensions.get("client.authentication.k8s.io/exec")
    return {"apiVersion": str(asked.get("apiVersion") or ""), "kind": "ExecCredential", "spec": spec}


def _answer(text: bytes, *, where: str) -> PluginAnswer:
    try:
        status = json.loads(text)["status"]
        found = PluginAnswer(
            token=str(status.get("token") or ""),
            certificate=str(status.get("clientCertificateData") or "").encode(),
            key=str(status.get("clientKeyData") or "").encode(),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoCluster(
            f"{where}: its answer is no ExecCredential with a status; update it, or log in another way"
        ) from None
    if not found.token and not (found.certificate and found.key):
        raise NoCluster(f"{where}: its answer holds neither a token nor a certificate with its key; log in again")
    return found
