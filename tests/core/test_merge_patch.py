"""The patch of a status: applying it gives the wanted object, and equal objects give no patch."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lora_operator.core.merge_patch import merge_patch

VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=2), VALUES, max_size=4)


def applied(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386, as the API server does it."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            found = result.get(key)
            result[key] = applied(found if isinstance(found, dict) else {}, value)
        else:
            result[key] = value
    return result


@given(OBJECTS, OBJECTS)
def test_the_patch_leads_to_what_was_wanted(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert applied(before, merge_patch(before, after)) == after


@given(OBJECTS)
def test_nothing_to_say_about_equal_objects(same: dict[str, Any]) -> None:
    assert merge_patch(same, same) == {}


def test_a_zero_is_a_value_and_not_an_absence() -> None:
    assert merge_patch({"weight": 5}, {"weight": 0}) == {"weight": 0}
