"""report: the last validation of an adapter, whole, from the claim where it lies beside the artifact."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_client.errors import ClientError, Invalid
from loractl.objects import status_of
from loractl.parameters import AdapterName, split_name
from loractl.report_page import report_page, summary_page
from loractl.session import Session, cluster_command
from loractl.verdict import OK

__all__ = ["register"]

PANEL = "Look"
STDOUT = Path("-")


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    cluster_command(app, panel=PANEL, forms=True)(report)


async def report(
    session: Session,
    name: AdapterName,
    *,
    summary: Annotated[bool, typer.Option("--summary", help="Only what status has; needs no pod.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Save the page instead.")] = False,
    to: Annotated[
        Path | None, typer.Option("--to", help="Where --html is saved; - is stdout. Default: NAME-ID.html here.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Save the page and open it in a browser.")] = False,
    image: Annotated[str, typer.Option(help="Of the pod that reads. Default: the one of the adapter's Jobs.")] = "",
) -> int:
    """The last validation of an adapter: scores with intervals, gates, tasks, advice; read by a short-lived pod."""
    page = html or show
    if to is not None and not page:
        raise Invalid("--to is where the page is saved: add --html")
    if summary and page:
        raise Invalid("--summary has no page: leave out --html and --open, or --summary")
    adapter = await session.client.get_adapter(split_name(name)[1])
    validation = status_of(adapter.raw).get("validation")
    if not validation:
        raise Invalid(
            f"LoRAAdapter {adapter.name} has no report yet ({adapter.phase}: {adapter.message}); "
            f"see it with: loractl explain {adapter.name}"
        )
    if summary:
        return _show(session, validation, summary_page(adapter.raw, width=session.out.width))
    if page:
        text = await _read(session, adapter.name, form="html", image=image)
        return _save(session, text, to or Path(f"{adapter.name}-{validation.get('id')}.html"), show=show)
    found = _parsed(await _read(session, adapter.name, form="json", image=image), name=adapter.name)
    return _show(session, found, report_page(adapter.raw, found, width=session.out.width))


def _show(session: Session, content: Any, lines: list[str]) -> int:
    if session.out.structured:
        session.out.data(content)
        return OK
    for line in lines:
        session.out.line(line)
    return OK


async def _read(session: Session, name: str, *, form: str, image: str) -> bytes:
    session.resume = "the pod that read was removed"
    with session.out.steps() as say:
        try:
            return await session.client.report(name, format=form, image=image or None, say=say)
        except ClientError as error:
            error.args = (f"{error}; status has a summary: loractl report{session.place.options} {name} --summary",)
            raise


def _parsed(text: bytes, *, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Invalid(
            f"the report of LoRAAdapter {name} is not JSON ({error}): the file was changed or cut; validate again"
        ) from None
    if not isinstance(found, dict):
        raise Invalid(
            f"the report of LoRAAdapter {name}: found {type(found).__name__}, expected an object; validate again"
        )
    return found


def _save(session: Session, page: bytes, to: Path, *, show: bool) -> int:
    if to == STDOUT:
        sys.stdout.write(page.decode(errors="replace"))
        return OK
    try:
        to.write_bytes(page)
    except OSError as error:
        raise Invalid(f"--to {to}: {error.strerror}; name a file that can be written") from None
    session.out.line(str(to))
    if show:
        import webbrowser  # noqa: PLC0415 - only here

        if not webbrowser.open(to.absolute().as_uri()):
            session.out.say("there is no browser here; open the file yourself")
    return OK
