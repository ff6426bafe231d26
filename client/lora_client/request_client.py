"""One-shot requests, and the operator's answers to them."""

from uuid import uuid4

from lora_client.adapter import Adapter
from lora_client.deployment import Deployment, Request, Revision
from lora_client.errors import TimedOut
from lora_client.names import ADAPTER, CONTROLLER_REVISION, GROUP, LABEL_DEPLOYMENT, LORA_DEPLOYMENT, Verb
from lora_client.requests import check_revision, default_revision, parse_revisions, request_patch
from lora_client.resource_client import ResourceClient, split_deployment_id

__all__ = ["RequestClient"]


class RequestClient(ResourceClient):
    """What people ask the operator for. Changes annotations and `spec.suspend`, nothing else."""

    async def request(
        self,
        name: str,
        verb: Verb,
        *,
        revision: str | None = None,
        namespace: str | None = None,
        answer_seconds: float | None = 10.0,
    ) -> Request:
        """Asks the operator for something once: promote, promote-full, pause, resume, abort, retry, rollback-to.

        Args:
            revision: None takes the one that is meant (requests.py); for rollback-to a unique beginning is enough.
            answer_seconds: how long the operator's answer is waited for; None does not wait, and the result is empty.

        Raises:
            Refused: it makes no sense now, e.g. promote without a rollout.
            TimedOut: the operator did not answer; the request stays and is answered later.
        """
        deployment = await self.get_deployment(name, namespace=namespace)
        revisions = await self.revisions(name, namespace=namespace) if verb is Verb.ROLLBACK_TO else []
        if revision is None:
            revision = default_revision(verb, deployment, revisions=revisions)
        elif verb is Verb.ROLLBACK_TO:
            revision = check_revision(revision, deployment, revisions=revisions)
        patch = request_patch(verb, revision=revision, nonce=uuid4().hex[:8])
        value = patch["metadata"]["annotations"][verb.annotation]
        await self.api.patch(LORA_DEPLOYMENT, namespace=deployment.namespace, name=name, body=patch)
        if answer_seconds is None:
            return Request(verb=str(verb), value=value, time="", result="")
        return await self._answer(deployment, verb, value=value, seconds=answer_seconds)

    async def _answer(self, deployment: Deployment, verb: Verb, *, value: str, seconds: float) -> Request:
        def answered(found: Deployment) -> bool:
            answer = found.requests.get(str(verb))
            return answer is not None and answer.value == value

        try:
            found = await self.wait_for(
                "deployments", deployment.name, answered, namespace=deployment.namespace, timeout_seconds=seconds
            )
        except TimedOut as error:
            raise TimedOut(
                f"the operator did not answer {verb} within {seconds:g} s; the request stays and is answered when it runs: "
                "look with kubectl get pods -A -l app.kubernetes.io/name=lora-operator"
            ) from error
        answer: Request = found.requests[str(verb)]
        return answer

    async def rollback_deployment(
        self, deployment_id: str, *, revision: str | None = None, answer_seconds: float | None = 10.0
    ) -> Request:
        """Back to `revision`; None: to what served before (during a rollout: to what serves now).

        The left revision is held: it does not start again until the spec names another or retry is asked.
        """
        namespace, name, _ = split_deployment_id(deployment_id)
        return await self.request(
            name, Verb.ROLLBACK_TO, revision=revision, namespace=namespace, answer_seconds=answer_seconds
        )

    async def revisions(self, name: str, *, namespace: str | None = None) -> list[Revision]:
        """Stored versions of a LoRADeployment, newest first: what rollback-to can go back to."""
        found = await self.api.list(
            CONTROLLER_REVISION, namespace=namespace or self.namespace, labels=f"{LABEL_DEPLOYMENT}={name}"
        )
        return parse_revisions(found)

    async def retry_adapter(self, name: str, *, namespace: str | None = None) -> None:
        """One more attempt of the Job that failed."""
        adapter = await self.get_adapter(name, namespace=namespace)
        body = {"metadata": {"annotations": {f"{GROUP}/retry": uuid4().hex[:8]}}}
        await self.api.patch(ADAPTER, namespace=adapter.namespace, name=name, body=body)

    async def suspend_adapter(self, name: str, *, suspended: bool, namespace: str | None = None) -> Adapter:
        """Stops a build (its Jobs are deleted), or lets it go on."""
        adapter = await self.get_adapter(name, namespace=namespace)
        body = {"spec": {"suspend": suspended}}
        return Adapter(await self.api.patch(ADAPTER, namespace=adapter.namespace, name=name, body=body))
