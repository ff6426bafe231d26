"""The validation report: the summary lies in the adapter's status, the whole report beside the artifact on its claim."""

from lora_client.adapter import Adapter
from lora_client.api import Api
from lora_client.claim_pod import ROOT, claim_pod, find_image
from lora_client.errors import Invalid, Refused
from lora_client.sources import parse_claim_path

__all__ = ["FORMATS", "read_report"]

FORMATS = {"json": ".json", "html": ".html", "rows": ".rows.jsonl"}
PRINT = "import pathlib, sys; sys.stdout.buffer.write(pathlib.Path(sys.argv[1]).read_bytes())"


async def read_report(api: Api, adapter: Adapter, *, format: str = "json", image: str | None = None) -> bytes:  # noqa: A002 (what people call it)
    """A file of the last validation, read through a pod: `json` (docs/validation), `html`, or `rows` (one line per test item).

    Raises:
        Refused: the adapter was not validated, or the file is gone from the claim.
    """
    if format not in FORMATS:
        raise Invalid(f"format: found {format!r}, expected {', '.join(FORMATS)}")
    uri = str(adapter.validation.get("reportUri") or "")
    if not uri:
        raise Refused(
            f"LoRAAdapter {adapter.namespace}/{adapter.name} has no report yet; it is {adapter.phase}: {adapter.message}"
        )
    place = parse_claim_path(uri, where="status.validation.reportUri")
    path = f"{ROOT}/{place.path.removesuffix('.json')}{FORMATS[format]}"
    chosen = await find_image(api, namespace=adapter.namespace, given=image)
    async with claim_pod(api, namespace=adapter.namespace, claim=place.claim, image=chosen, read_only=True) as pod:
        return await pod.run("python", "-c", PRINT, path)
