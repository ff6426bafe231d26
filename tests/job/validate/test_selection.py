"""Which items are asked: mixed, fixed, the user's first."""

from collections import Counter

from lora_job.validate import suite
from lora_job.validate.selection import Mode, depth_of, select, spread, task_of
from lora_job.validate.suite import Category, Safety, Suite

from .items import choice, generate, safety

SHIPPED = suite.load(())


def test_basic_mode_asks_as_many_items_per_task_as_the_user_says() -> None:
    chosen = select(SHIPPED.items, depth=depth_of(Mode.BASIC, test_query_count=7))
    assert {task: len(items) for task, items in chosen.items() if task not in {"safety", "drift"}} == {
        "finance-en": 7,
        "finance-zh-TW": 7,
        "general-en": 7,
        "general-zh-TW": 7,
        "quality-en": 7,
        "quality-zh-TW": 7,
        "terminology-choice": 7,
        "terminology-generate": 7,
    }


def test_basic_mode_asks_sixty_safety_items_half_of_them_benign_and_every_category() -> None:
    chosen = select(SHIPPED.items, depth=depth_of(Mode.BASIC, test_query_count=20))["safety"]
    found = Counter(item.category for item in chosen if isinstance(item, Safety))
    assert len(chosen) == 60
    assert found[Category.BENIGN] == 30
    assert set(found) == set(Category)


def test_standard_mode_asks_at_least_200_items_per_dimension_where_there_are_so_many() -> None:
    chosen = select(SHIPPED.items, depth=depth_of(Mode.STANDARD, test_query_count=20))
    by_suite = Counter(item.origin.suite for items in chosen.values() for item in items)
    all_items = Counter(item.origin.suite for item in SHIPPED.items)
    assert by_suite[Suite.FINANCE] + by_suite[Suite.TERMINOLOGY] + by_suite[Suite.QUALITY] >= 200
    assert by_suite[Suite.SAFETY] == all_items[Suite.SAFETY]
    assert by_suite[Suite.GENERAL] == all_items[Suite.GENERAL]


def test_standard_mode_takes_more_of_one_language_where_a_suite_has_no_other() -> None:
    items = [choice(f"c-{place}", suite=Suite.FINANCE) for place in range(300)]
    chosen = select(items, depth=depth_of(Mode.STANDARD, test_query_count=20))
    assert {task: len(found) for task, found in chosen.items()} == {"finance-en": 200}
    few = select(items[:150], depth=depth_of(Mode.STANDARD, test_query_count=20))
    assert len(few["finance-en"]) == 150


def test_comprehensive_mode_asks_everything() -> None:
    chosen = select(SHIPPED.items, depth=depth_of(Mode.COMPREHENSIVE, test_query_count=1))
    assert sum(len(items) for items in chosen.values()) == len(SHIPPED.items)


def test_the_choice_does_not_depend_on_the_order_of_the_file() -> None:
    depth = depth_of(Mode.BASIC, test_query_count=5)
    assert select(SHIPPED.items, depth=depth) == select(tuple(reversed(SHIPPED.items)), depth=depth)


def test_a_larger_choice_contains_the_smaller_one() -> None:
    items = [item for item in SHIPPED.items if task_of(item) == "finance-en"]
    assert set(spread(items, limit=10)) < set(spread(items, limit=30))


def test_the_users_own_items_come_first() -> None:
    items = [choice(f"shipped-{place}") for place in range(50)] + [choice("mine")]
    assert spread(items, limit=3, first=frozenset({"mine"}))[0].origin.id == "mine"


def test_kinds_and_languages_take_turns() -> None:
    items = [choice(f"c-{place}", suite=Suite.FINANCE) for place in range(40)]
    items += [choice(f"z-{place}", suite=Suite.FINANCE, lang="zh-TW") for place in range(4)]
    assert Counter(item.origin.lang for item in spread(items, limit=8)) == {"en": 4, "zh-TW": 4}


def test_tasks_are_named_by_suite_language_and_kind() -> None:
    assert task_of(choice("a", lang="zh-TW")) == "general-zh-TW"
    assert task_of(choice("a", suite=Suite.TERMINOLOGY)) == "terminology-choice"
    assert task_of(generate("a", suite=Suite.TERMINOLOGY)) == "terminology-generate"
    assert task_of(safety("a")) == "safety"
