"""Fits cost no more passes, iterations and products than `ledger.json` says, and a little."""

import pytest
from ledger import CASES, bounds, cost, read

LEDGER = read()


def test_the_file_holds_the_table():
    assert list(LEDGER) == [case.name for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cost(case):
    found, written = cost(case), LEDGER[case.name]
    most = bounds(written)
    assert all(f <= m for f, m in zip(found, most, strict=True)), f"{found}, was {written}"
