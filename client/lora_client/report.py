"""The validation report: the summary lies in the adapter's status, the whole report beside the artifact on its claim."""

from collections.abc import Callable

from lora_client.adapter import Adapter
from lora_client.api import Api
from lora_client.claim_pod import ROOT, claim_pod
from lora_client.errors import Invalid, Refused
from lora_client.executing import CommandFailed
from lora_client.job_image import find_job_image
from lora_client.sources import parse_claim_path

__all__ = ["FORMATS", "read_report"]

FORMATS = {"json": ".json", "html": ".html", "rows": ".rows.jsonl"}
PRINT = """
import pathlib, sys
try:
    data = pathlib.Path(sys.argv[1]).read_bytes()
except OSError as error:
    sys.exit(error.strerror)
sys.stdout.buffer.write(data)
"""


async def read_report(
    api: Api,
    adapter: Adapter,
    *,
    format: str = "json",  # noqa: A002 (what people call it)
    image: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> bytes:
    """A file of the last validation, read through a pod: `json` (docs/validation), `html`, or `rows` (one line per test item).

    Args:
        image: of the pod; None finds the job image (job_image.py).
        say: told what is being waited for.

    Raises:
        Refused: the adapter was not validated, or the file is gone from the claim.
        TimedOut, Unavailable: the pod did not start.
    """
    if format not in FORMATS:
        raise Invalid(f"format: found {format!r}, expected {', '.join(FORMATS)}")
    uri = str(adapter.validation.get("reportUri") or "")
    if not uri:
        raise Refused(
            f"LoRAAdapter {adapter.namespace}/{adapter.name} has no report yet; it is {adapter.phase}: {adapter.message}"
        )
    place = parse_claim_path(uri, where="status.validation.reportUri")
    path = f"{place.path.removesuffix('.json')}{FORMATS[format]}"
    chosen = await find_job_image(api, namespace=adapter.namespace, given=image, adapter=adapter.name)
    async with claim_pod(
        api, namespace=adapter.namespace, claim=place.claim, image=chosen, read_only=True, say=say
    ) as pod:
        say(f"pod {pod.name} reads the report")
        try:
            return await pod.run("python", "-c", PRINT, f"{ROOT}/{path}")
        except CommandFailed as error:
            raise Refused(
                f"report pvc://{place.claim}/{path} cannot be read: {error.words}; if it was removed, a change of "
                "spec.validation makes a new one"
            ) from error
