"""What this version does not do yet, in one place: an issue that builds a feature deletes its row.

Never silently ignored: the field is named, with what works today.
"""

from collections.abc import Callable

from lora_operator.api.adapter import Adapter
from lora_operator.api.errors import Invalid
from lora_operator.api.reasons import Reason
from lora_operator.api.source import Source

__all__ = ["first_unsupported"]

Row = tuple[str, Callable[[Adapter], object | None], str]  # field, what was found (None: fine), what works


def _scheme(source: Source) -> str | None:
    return None if source.scheme == "pvc" else source.scheme


def _adapter_scheme(adapter: Adapter) -> str | None:
    return next((scheme for item in adapter.recipe.adapters if (scheme := _scheme(item.source))), None)


ROWS: tuple[Row, ...] = (
    ("spec.base.source", lambda adapter: _scheme(adapter.recipe.base), "pvc"),
    ("spec.adapters[].source", _adapter_scheme, "pvc"),
)


def first_unsupported(adapter: Adapter) -> Invalid | None:
    """The first field that asks for more than this version does, or None."""
    for field, found_in, works in ROWS:
        found = found_in(adapter)
        if found is not None:
            return Invalid(
                field=field, found=found, expected=f"{works} in this version", reason=Reason.NOT_SUPPORTED_YET
            )
    return None
