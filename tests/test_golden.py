"""Fits are those of `golden.py`, within `tol`, and cost no more passes.

A fit is within `tol` of the minimum F*, give or take a factor of ten. Two fits a and b of one
problem then have values that differ by 10 tol F* at most. The square root of the distance in
`reference` is a norm of a - b up to third order, and each fit is √(10 tol F*) from the optimum
in it: together 2 √(10 tol F*), which is a bound on probabilities and on coefficients.
"""

import numpy as np
import pytest
from golden import CASES, LARGEST, measure, read, reference, sketch
from numpy.testing import assert_allclose

ROWS, ARRAYS = read()
# A sketch is as long as what it is of on average, and hardly ever so many times as long.
LONGER = 1.5

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_the_files_hold_the_table():
    assert list(ROWS) == [case.name for case in CASES]


@every_case
def test_value(case):
    found, golden = measure(case), ROWS[case.name]
    assert (found.C, found.solver) == (case.parameters["C"], golden["solver"])
    assert found.gap <= case.tol
    value = reference(case).value(found.coef, found.intercept)
    assert_allclose(value, golden["value"], rtol=10 * case.tol)


@every_case
def test_coefficients(case):
    found, F = measure(case), reference(case)
    coef, intercept = (ARRAYS[f"{case.name}|{part}"] for part in ("coef", "intercept"))
    most = 2**2 * 10 * case.tol * ROWS[case.name]["value"]
    if found.coef.size <= LARGEST:
        assert F.distance((coef, intercept), (found.coef, found.intercept)) <= most
    else:  # the part of the coefficients in the distance
        change = sketch(found.coef) - coef
        assert 0.5 * F.l2 * np.sum(change**2) <= LONGER**2 * most


@pytest.mark.parametrize(
    "case", [case for case in CASES if "Cs" in case.parameters], ids=lambda case: case.name
)
def test_scores(case):
    """Log losses of held-out rows are within 10 √tol, relatively."""
    golden = ARRAYS[f"{case.name}|scores"]
    assert_allclose(measure(case).scores, golden, rtol=10 * np.sqrt(case.tol))


@every_case
def test_passes(case):
    """At most a tenth and one pass more."""
    assert measure(case).passes <= 1.1 * ROWS[case.name]["passes"] + 1
