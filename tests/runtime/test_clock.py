"""The operator's clock does not jump with the machine's, and finds back to it (T28)."""

from datetime import UTC, datetime, timedelta

import pytest

from lora_operator.runtime.clock import SystemClock

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Machine:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.jump = timedelta()

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.passed) + self.jump

    def clock(self) -> SystemClock:
        return SystemClock(wall=self.wall, monotonic=lambda: self.passed)


def test_it_follows_the_machine() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(100):
        machine.passed += 7.5
        assert clock.now() == machine.wall()


@pytest.mark.parametrize("hours", [1, -1])
def test_a_jump_of_an_hour_changes_a_duration_by_a_hundredth_t28(hours: int) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    machine.jump = timedelta(hours=hours)
    assert clock.now() == before
    for _ in range(60):
        machine.passed += 1
        now = clock.now()
    assert abs((now - before).total_seconds() - 60) <= 0.6 + 1e-6


@pytest.mark.parametrize("hours", [1, -1])
def test_it_finds_back(hours: int) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.jump = timedelta(hours=hours)
    seen = clock.now()
    for _ in range(4000):
        machine.passed += 100
        assert clock.now() > seen, "it never goes back"
        seen = clock.now()
    assert seen == machine.wall()


def test_a_new_process_believes_the_machine() -> None:
    machine = Machine()
    machine.jump = timedelta(hours=1)
    assert machine.clock().now() == START + timedelta(hours=1)
