"""The project's own assertions: what of them counts as held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from mipyme_backup.drills.steps import assertion


def holds() -> None: ...


def is_true() -> bool:
    return True


def is_false() -> bool:
    return False


def counts_none() -> int:
    return 0


def yields() -> Iterator[str]:
    yield "the shop has no orders"


async def waits() -> None:
    raise AssertionError("the shop has no orders")


async def yields_and_waits() -> AsyncIterator[str]:
    yield "the shop has no orders"


@pytest.mark.parametrize("check", [holds, is_true])
def test_what_holds(check: object) -> None:
    assert problems(check) == []


@pytest.mark.parametrize("check", [is_false, counts_none, yields, yields_and_waits])
def test_what_returns_a_value_was_not_run_or_does_not_hold(check: object) -> None:
    (problem,) = problems(check)

    assert problem.startswith("it returned ")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_coroutine_was_not_run() -> None:
    (problem,) = problems(waits)

    assert "coroutine" in problem


def problems(check: object) -> list[str]:
    return [*assertion(f"{__name__}.{check.__name__}")]  # type: ignore[attr-defined]
