"""Margins between classes: either they are balanced, or a direction helps some and harms none."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize

from skfc import _margins
from skfc._margins import Margins, are_balanced, are_pinned, direction


def make_margins(seed, marked=(), n=60, P=3, T=3):
    """Noise of labels, and a last column that only rows of the classes `marked` have, or all."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, P))
    label = (X @ rng.standard_normal((P, T)) + 3 * rng.gumbel(size=(n, T))).argmax(axis=1)
    mark = np.isin(label, marked) if len(marked) else np.ones(n, dtype=bool)
    X = np.column_stack([X, np.ones(n), mark & (rng.random(n) < 0.3)])
    margins = Margins.of(X, label, T)
    return margins, ~margins.others


def rows_of(margins):
    """Rows a of all margins, one by one, in the order of `others`."""
    T, P = margins.others.shape[1], margins.rows.shape[1]
    out = []
    for x, y in zip(margins.rows, margins.label, strict=True):
        for k in range(T):
            a = np.zeros((T, P))
            a[y] += x
            a[k] -= x
            out.append(a[1:].ravel())
    return np.array(out)


def order_of(margins):
    return np.arange(margins.others.size)


def exists(margins, stays):
    """Whether there is such a direction: a linear program of all margins, within a box."""
    A, free = rows_of(margins), (margins.others & ~stays).ravel()
    found = optimize.linprog(
        -A[free].sum(axis=0), A_ub=-A[free], b_ub=np.zeros(free.sum()), bounds=(-1, 1),
        A_eq=A[~free], b_eq=np.zeros((~free).sum()),
    )  # fmt: skip
    return found.fun < -1e-6


def test_sums_and_products_are_those_of_the_rows(rng):
    margins, _ = make_margins(0)
    A, v = rows_of(margins), rng.random(margins.others.shape) * margins.others
    d = rng.standard_normal(A.shape[1])
    assert_allclose(margins.along(d).ravel(), A @ d, atol=1e-12)
    assert_allclose(margins.sum(v), A.T @ v.ravel(), atol=1e-12)
    assert_allclose(margins.gram(v), (A * v.ravel()[:, None]).T @ A, atol=1e-12)
    chosen = np.flatnonzero(margins.others)[[1, 5, 17]]
    assert_allclose(margins.matrix(chosen).toarray(), A[chosen])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("marked", [(), (1,), (0, 2), (0, 1, 2)])
def test_either_margins_are_balanced_or_a_direction_harms_none(seed, marked):
    """Stiemke's alternative, from weights of any size, as a program of all margins has it."""
    margins, own = make_margins(seed, marked)
    weight = margins.others * np.exp(np.random.default_rng(seed).standard_normal(own.shape))
    separable = exists(margins, own)
    assert separable == (len(marked) == 1 or len(marked) == 2)
    assert are_balanced(margins, weight, own) == (not separable)
    found = direction(margins, own, order_of(margins))
    assert (found is not None) == separable
    if separable:
        m = margins.along(found)[margins.others]
        assert m.max() > 1e-3
        assert m.min() >= -1e-9 * m.max()


@pytest.mark.parametrize("seed", range(4))
def test_margins_that_stay_hold_a_direction(seed):
    """Of the rows of a mark of one class, one whose margins stay leaves no direction."""
    margins, own = make_margins(seed, (1,))
    stays = own.copy()
    rows = np.flatnonzero((margins.rows[:, -1] > 0) & (margins.label == 1))
    stays[rows[0]] = True  # its margins over both other classes
    assert exists(margins, own)
    assert not exists(margins, stays)
    assert are_balanced(margins, margins.others.astype(float), stays)
    assert direction(margins, stays, order_of(margins)) is None
    assert not are_pinned(margins, stays)
    stays[margins.label != 1] = True
    assert are_pinned(margins, stays)
    assert not are_pinned(margins, own)


def test_what_stays_makes_a_program_small(monkeypatch):
    """With margins that hold all but one direction, a program has one variable."""
    margins, own = make_margins(0, (1,), n=400, P=10)
    marked = (margins.rows[:, -1] > 0)[:, None]
    sizes, whole = [], _margins.optimize.linprog

    def linprog(c, **options):
        sizes.append(options["A_ub"].shape)
        return whole(c, **options)

    monkeypatch.setattr(_margins.optimize, "linprog", linprog)
    assert direction(margins, own | ~marked, order_of(margins)) is not None
    assert max(size[1] for size in sizes) <= 2
    sizes.clear()
    assert direction(margins, own, order_of(margins)) is not None
    assert {size[1] for size in sizes} == {2 * margins.rows.shape[1]}
    assert max(size[0] for size in sizes) < 800
