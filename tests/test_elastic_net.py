"""Elastic nets: their optimum, their zeros, and a gap that is a proof."""

from itertools import pairwise

import numpy as np
import problems
import pytest
from core import PROXIMAL, checks_of, make_objective, standardised
from numpy.testing import assert_allclose, assert_array_equal
from reference import one_hot
from scipy import sparse
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.datasets import load_digits, load_wine
from sklearn.feature_selection import SelectFromModel
from sklearn.model_selection import GridSearchCV

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV, _blockwise, l1_min_C
from skfc._coordinate_descent import Lasso, factor_of, minimise
from skfc._duality import Dual
from skfc._gap_blockwise import divergence_of_labels, divergence_of_targets
from skfc._objective import Objective
from skfc._penalty import ElasticNet
from skfc._rows import merge_columns, to_row_space
from skfc._rows._blocks import BlockSums
from skfc._screening import Screened
from skfc._tuned import TUNED, override
from skfc.solvers import SOLVERS, _newton_cd
from skfc.solvers._model_steps import (
    by_coordinate_descent,
    curvature_to_zero,
    promised_alone,
)
from skfc.solvers._newton_cd import descend
from skfc.solvers._proximal import proximal_step

every_ratio = pytest.mark.parametrize("l1_ratio", [0.1, 0.5, 1.0])
TOL = 1e-9


def value(model, X, y, weight=None, *, l1_ratio=None):
    """The objective of a fitted model divided by C and the weight, from its definition."""
    X = X.toarray() if sparse.issparse(X) else np.asarray(X, dtype=float)
    Y = y if y.ndim == 2 else one_hot(y)
    weight = np.ones(len(X)) if weight is None else weight
    coef, logits = model.coef_.astype(float), X @ model.coef_.T.astype(float) + model.intercept_
    loss = weight @ (logsumexp(logits, axis=1) - (Y * logits).sum(axis=1))
    unit = X.std(axis=0) if model.standardize else np.ones(X.shape[1])
    r = model.l1_ratio if l1_ratio is None else l1_ratio
    penalty = r * np.abs(coef * unit).sum() + (1 - r) / 2 * ((coef * unit) ** 2).sum()
    return (loss + penalty / model.C) / weight.sum()


def distance(model, X, y, weight=None):
    """How far zero is from the subdifferential, at the most, in units of the threshold."""
    X = X.toarray() if sparse.issparse(X) else X
    weight = np.ones(len(X)) if weight is None else weight
    P = softmax(X @ model.coef_.T + model.intercept_, axis=1)
    Y = y if y.ndim == 2 else one_hot(y)
    R = (P - Y) * weight[:, None]
    W, r = model.coef_, model.l1_ratio
    slope = model.C * R.T @ X + (1 - r) * W
    off = np.where(W == 0, np.maximum(np.abs(slope) - r, 0), np.abs(slope + r * np.sign(W)))
    free = np.abs(R.sum(axis=0)).max() / weight.sum() if model.fit_intercept else 0.0
    return off.max() / r, free


def fitted(X, y, weight=None, **parameters):
    parameters = {"tol": 1e-12, "l1_ratio": 1.0} | parameters
    return SoftmaxFCClassifier(**parameters).fit(X, y, weight)


def data(kind):
    """X, y and weights."""
    X, y = problems.overlapping(200, 6, 4, raw="raw" in kind)
    rng = np.random.default_rng(3)
    weight = rng.uniform(0, 2, len(y)) if "weights" in kind else None
    if "soft" in kind:
        y = 0.8 * one_hot(y) + 0.2 * rng.dirichlet(np.ones(4), len(y))
    if "sparse" in kind:
        X = np.where(rng.random(X.shape) < 0.4, X, 0.0)
    return X, y, weight


KINDS = ["raw", "scaled", "raw weights", "soft weights", "sparse"]


# -- the optimum --------------------------------------------------------------------------------


@every_ratio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1.05, 10.0, 1e3, 1e5])
def test_zero_is_in_the_subdifferential(kind, l1_ratio, factor):
    """A coordinate's distance d gains at least d² / (2 h), with h its largest curvature."""
    X, y, weight = data(kind)
    C = factor * l1_min_C(X, y, l1_ratio=l1_ratio, sample_weight=weight)
    model = fitted(X, y, weight, l1_ratio=l1_ratio, C=C)
    off, free = distance(model, X, y, weight)
    weight = np.ones(len(X)) if weight is None else weight
    gain = model.tol * value(model, X, y, weight) * weight.sum()
    h = 0.25 * weight @ X**2 + (1 - l1_ratio) / C
    assert model.solver_ == "newton-cd"
    assert model.optimality_gap_ <= model.tol
    assert off <= C / l1_ratio * np.sqrt(2 * h.max() * gain)
    assert free <= np.sqrt(0.5 * gain / weight.sum())


@every_ratio
@pytest.mark.parametrize("kind", ["scaled", "soft weights", "sparse"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_solvers_agree(kind, l1_ratio, fit_intercept):
    X, y, weight = data(kind)
    options = {"l1_ratio": l1_ratio, "C": 0.3, "fit_intercept": fit_intercept, "max_iter": 10**5}
    models = [fitted(X, y, weight, solver=solver, tol=1e-7, **options) for solver in PROXIMAL]
    first, second = (value(model, X, y, weight) for model in models)
    assert_allclose(first, second, rtol=1e-7)
    assert_allclose(models[0].loss_curve_[-1], first, rtol=1e-10)


@pytest.mark.parametrize("kind", ["raw", "scaled", "sparse"])
def test_a_small_l1_ratio_approaches_the_sum_of_squares(kind):
    X, y, _ = data(kind)
    """F_0(w_r) - F_0(w_0) <= r (D(w_0) - D(w_r)), where the objective is F_r = F_0 + r D."""

    def change(model):
        return np.sum(np.abs(model.coef_) - model.coef_**2 / 2) / len(X)

    limit = fitted(X, y, l1_ratio=0.0, tol=1e-12)
    for r in (1e-2, 1e-4, 1e-6):
        model = fitted(X, y, l1_ratio=r, tol=1e-12)
        plain = value(limit, X, y)
        above = value(model, X, y, l1_ratio=0.0) - plain
        assert -1e-12 * plain <= above <= r * (change(limit) - change(model)) + 2e-12 * plain


@pytest.mark.parametrize("solver", PROXIMAL)
def test_without_absolute_values_too(solver):
    X, y, _ = data("scaled")
    model = fitted(X, y, l1_ratio=0.0, solver=solver, max_iter=10**4)
    other = fitted(X, y, l1_ratio=0.0)
    assert model.solver_ == solver
    assert_allclose(value(model, X, y), value(other, X, y), rtol=TOL)


@every_ratio
def test_below_the_smallest_C_all_is_zero(l1_ratio):
    for kind in KINDS:
        X, y, weight = data(kind)
        for options in ({}, {"standardize": True}, {"fit_intercept": False}):
            C = l1_min_C(X, y, l1_ratio=l1_ratio, sample_weight=weight, **options)
            below = fitted(X, y, weight, l1_ratio=l1_ratio, C=C, **options)
            assert below.n_iter_ == 0
            assert 0 <= below.optimality_gap_ <= below.tol
            assert not below.coef_.any()
            above = fitted(X, y, weight, l1_ratio=l1_ratio, C=1.02 * C, **options)
            assert above.coef_.any()
            if below.fit_intercept:
                Y = y if y.ndim == 2 else one_hot(y)
                share = np.average(Y, axis=0, weights=weight)
                assert_allclose(softmax(below.intercept_), share)


@every_ratio
@pytest.mark.parametrize("solver", ["newton-cd", "proximal"])
def test_just_above_the_smallest_C_a_coefficient_is_not_zero(solver, l1_ratio, rng):
    """Although rare features gain less than `tol`: gradients end near their thresholds, too."""
    X = (rng.random((2000, 20)) < 0.005).astype(float)
    y = rng.integers(0, 5, 2000)
    smallest = l1_min_C(X, y, l1_ratio=l1_ratio)
    for factor, tol in ((1.3, 1e-2), (1.1, 1e-3), (1.1, 1e-6)):
        C = factor * smallest
        model = SoftmaxFCClassifier(C=C, l1_ratio=l1_ratio, tol=tol, solver=solver).fit(X, y)
        assert model.coef_.any()
        assert distance(model, X, y)[0] <= factor * np.sqrt(tol)


def test_the_smallest_C_of_what_no_C_changes():
    y = np.arange(9) % 3
    assert l1_min_C(np.ones((9, 2)), y) == np.inf
    with pytest.raises(ValueError, match="l1_ratio"):
        l1_min_C(np.ones((9, 2)), y, l1_ratio=0)


@every_ratio
def test_separable_classes_at_a_large_C(l1_ratio):
    """The curvature of nearly all rows vanishes on the way."""
    X, y = load_digits(return_X_y=True)
    model = fitted(X, y, C=1e3, l1_ratio=l1_ratio, standardize=True, tol=1e-6, max_iter=40)
    assert model.optimality_gap_ <= 1e-6
    assert model.loss_curve_[-1] < 1e-3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
def test_extreme_columns(seed, l1_ratio):
    """Columns of 1e13 beside others, whose thresholds are lost in the rounding of gradients."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((150, 12))
    X[:, 0] = rng.lognormal(size=150)
    logits = 2 * X[:, :3]
    X = X * 10.0 ** rng.permutation(np.linspace(-6, 13, 12))
    X[:, 4] += 10 * np.abs(X[:, 4]).max()
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    options = {"C": 10.0 ** rng.uniform(-2, 4), "l1_ratio": l1_ratio}
    model = fitted(X, y, tol=1e-2, **options)
    best = fitted(X, y, tol=1e-4, **options)
    assert model.optimality_gap_ <= model.tol
    least = best.loss_curve_[-1]
    assert model.loss_curve_[-1] - least <= (model.optimality_gap_ + 1e-9) * least


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
def test_sentinels_hide_no_other_column(l1_ratio, rng):
    """Their curvature is 1e16 times that of the others, and says nothing about those.

    A weight that keeps the logits of sentinels finite makes nothing of the other values, which
    may as well be zero.
    """
    X = rng.standard_normal((400, 5))
    y = (2 * X[:, :3] + rng.gumbel(size=(400, 3))).argmax(axis=1)
    missing = rng.random((400, 2)) < 0.05
    X[:, [0, 3]] = np.where(missing, 1e9, X[:, [0, 3]])
    model = fitted(X, y, l1_ratio=l1_ratio, tol=1e-6)
    X[:, [0, 3]] = np.where(missing, 1e9, 0)
    other = fitted(X, y, l1_ratio=l1_ratio, tol=1e-6)
    assert_allclose(model.loss_curve_[-1], other.loss_curve_[-1], rtol=2e-6)


# -- the gap ------------------------------------------------------------------------------------


@every_ratio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_gap_is_never_below_the_true_one(kind, l1_ratio, fit_intercept, rng):
    """On the way to the optimum, and at random weights and intercepts."""
    X, y, weight = data(kind)
    y = y.T if y.ndim == 2 else y
    plain = make_objective(X, y, weight, C=0.3, n_classes=4, fit_intercept=fit_intercept)
    strength, factors = plain.penalty.l2, plain.penalty.factors
    l1 = l1_ratio * strength
    objective = Objective(plain.rows, ElasticNet(strength - l1, factors, l1))
    dual = Dual.of(objective)
    solve = SOLVERS["newton-cd"].generate(objective, None, np.zeros(objective.shape))
    iterates = [next(solve) for _ in range(12)]
    best, last = (iterate.evaluation.value[0] for iterate in iterates[-2:])
    best = min(best, last)
    assert iterates[-1].decrement[0] <= 1e-9 * best
    for size in (1e-6, 1e-3, 1.0, 30.0):
        noise = size * rng.standard_normal(objective.shape)
        noise *= rng.random(noise.shape) < 0.5
        evaluation = objective.smooth.at(iterates[-1].evaluation.theta + noise)
        true = evaluation.value + objective.penalty.absolute(evaluation.theta) - best
        assert dual.gap(evaluation) >= true - 1e-13
    for iterate in iterates:
        assert iterate.decrement >= iterate.evaluation.value - best - 1e-13


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("kind", ["nearly equal", "far out"])
def test_the_gap_of_weights_that_go_far(kind, l1_ratio, rng):
    """Weights of 1e6 in standardised units, of columns whose thresholds rounding hides.

    What they gain beside their absence is part of the gap of the model without them.
    """
    X = rng.standard_normal((300, 3))
    y = (2 * X + rng.gumbel(size=(300, 3))).argmax(axis=1)
    useful = (2.0 * (y == 0) + rng.standard_normal(300)) * (rng.random(300) < 0.2)
    plain = X * [1e9, 1, 1]
    if kind == "nearly equal":
        last = plain[:, 0] + 1e3 * useful  # 1e-6 of a deviation
    else:  # a row of class 0 has nearly all of the deviation
        last = np.where(np.arange(300) == np.argmax(y == 0), 1e9, useful)
    whole = np.column_stack([plain, last])
    options = {"l1_ratio": l1_ratio, "tol": 1e-3}
    without, model = fitted(plain, y, **options), fitted(whole, y, **options)
    gain = without.loss_curve_[-1] / model.loss_curve_[-1] - 1
    assert gain > 0.01
    smooth = make_objective(whole, y, C=1.0)
    strength, factors = smooth.penalty.l2, smooth.penalty.factors
    l1 = l1_ratio * strength
    objective = Objective(smooth.rows, ElasticNet(strength - l1, factors, l1))
    theta = np.zeros(objective.shape)
    frame = objective.rows.frame
    theta[:3] = without.coef_.T / frame.inverse[:3, None]
    theta[-1] = without.intercept_ + without.coef_ @ (frame.shift[:3] / frame.inverse[:3])
    evaluation = objective.smooth.at(theta)
    value_there = evaluation.value + objective.penalty.absolute(theta)
    assert_allclose(value_there, without.loss_curve_[-1], rtol=1e-6)
    gap = Dual.of(objective).gap(evaluation)
    assert gap >= value_there - model.loss_curve_[-1]


def test_the_gap_closes(rng):
    """It is no more than a small multiple of the true gap's root, even with poor intercepts."""
    X, y, _ = data("scaled")
    model = fitted(X, y, C=0.3)
    assert model.optimality_gap_ <= model.tol
    short = fitted_quietly(X, y, max_iter=3)
    true = value(short, X, y) / value(fitted(X, y), X, y) - 1
    assert true <= short.optimality_gap_ < np.inf


def fitted_quietly(X, y, **parameters):
    with pytest.warns(UserWarning, match="max_iter"):
        return fitted(X, y, **parameters)


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_the_excess_is_a_sum_of_values(l2, rng):
    penalty = ElasticNet(np.array([l2]), rng.uniform(0.1, 3, (5, 1)), np.array([0.7]))
    theta, gradient = rng.standard_normal((2, 6, 3))
    gradient *= penalty.largest_share(gradient)
    inner = (theta[:5] * gradient[:5]).sum()
    parts = penalty.value(theta) + penalty.conjugate(gradient) + inner
    assert_allclose(penalty.excess(theta, gradient), parts, rtol=1e-12)
    # At the slope of the penalty there is none.
    slope = np.zeros_like(theta)
    penalty.add_gradient(slope, theta)
    slope[:5] += np.sign(theta[:5]) * penalty.thresholds
    if l2:
        assert_allclose(penalty.excess(theta, -slope), 0, atol=1e-13)


@pytest.mark.parametrize("mix", [0.0, 0.3])
def test_the_divergence_of_labels_is_that_of_targets(mix, rng):
    log_p = log_softmax(rng.standard_normal((4, 50)) * rng.choice([0.1, 1, 100], 50), axis=0)
    y, rest = np.eye(4)[rng.integers(0, 4, 50)].T, np.array([0.1, 0.2, 0.3, 0.4])
    mixed, shares = (1 - mix) * np.exp(log_p) + mix * rest[:, None], (0.0, 0.3, 0.999, 1.0)
    found = divergence_of_labels(y, log_p, mixed, mix, shares)
    for one, other in zip(found, divergence_of_targets(y, log_p, mixed, mix, shares), strict=True):
        assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_the_proximal_map(rng):
    """Its optimality condition: (theta - v) / step is a subgradient at v."""
    penalty = ElasticNet(np.ones(1), rng.uniform(0.1, 3, (5, 1)), np.array([0.7]))
    theta = 2 * rng.standard_normal((6, 3))
    v = penalty.shrink(theta, 0.4)
    assert_array_equal(v[5], theta[5])
    assert (v[:5] == 0).any()
    assert penalty.distance(v, (v - theta) / 0.4).max() <= 1e-12
    for _ in range(20):
        other = v + rng.standard_normal(v.shape)
        rise = penalty.absolute(other) - penalty.absolute(v)
        assert rise >= ((theta - v) * (other - v))[:5].sum() / 0.4 - 1e-12


@pytest.fixture(params=["dense", "single entries"])
def wide(request, rng):
    """More features than rows, which a sum of squares lets turn or merge."""
    X = rng.standard_normal((40, 130)) + 1.0
    y = (X[:, :3] + rng.standard_normal((40, 3))).argmax(axis=1)
    if request.param == "dense":
        assert to_row_space(X, 3, None) is not None
        return X, y
    alone = sparse.csr_array((rng.random(400), (rng.integers(0, 40, 400), np.arange(400))))
    X = sparse.csr_array(sparse.hstack([sparse.csr_array(X[:, :10]), alone]))
    assert merge_columns(X) is not None
    return X, y


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
def test_wide_data_keep_their_axes(wide, l1_ratio):
    """Features are neither turned nor merged: zeros are those of the features given."""
    X, y = wide
    model = fitted(X, y, l1_ratio=l1_ratio, C=0.5)
    textbook = fitted(X, y, l1_ratio=l1_ratio, C=0.5, solver="proximal", max_iter=10**5, tol=1e-8)
    assert 0 < (model.coef_ != 0).sum() < 0.5 * model.coef_.size
    assert max(distance(model, X, y)) < 1e-5
    assert_allclose(value(model, X, y), value(textbook, X, y), rtol=1e-8)


# -- what must not change it ----------------------------------------------------------------------


def assert_same_optimum(first, second, X, y, weight=None, *, tol=TOL):
    """Values agree to `tol`, coefficients to its root, and the zeros exactly.

    But for the null direction, of which next to nothing depends where the ratio is small.
    """
    assert_allclose(value(first, X, y, weight), value(second, X, y, weight), rtol=tol)
    scale = X.std(axis=0)
    one, other = ((m.coef_ - m.coef_.mean(axis=0)) * scale for m in (first, second))
    assert_allclose(one, other, atol=np.sqrt(tol) * np.abs(one).max())
    assert_array_equal(first.coef_ == 0, second.coef_ == 0)


@every_ratio
@pytest.mark.parametrize(
    "changes",
    [
        {"least_working_set": 1},
        {"least_working_set": 10**6},
        {"mixed": 0.0},
        {"stronger": 1e9},
        {"sweeps": 1},
        {"small_block_bytes": 10**3, "min_block_rows": 10, "block_operations": 1},
    ],
    ids=str,
)
def test_how_steps_are_found_changes_nothing(changes, l1_ratio):
    X, y, weight = data("raw weights")
    model = fitted(X, y, weight, l1_ratio=l1_ratio, C=0.5)
    with override(**changes):
        other = fitted(X, y, weight, l1_ratio=l1_ratio, C=0.5)
    assert_same_optimum(model, other, X, y, weight)


@every_ratio
@pytest.mark.parametrize("least", [1, 150])
@pytest.mark.parametrize("most", [0, 15], ids=["none", "few"])
def test_products_with_the_hessian_serve_as_well(most, least, l1_ratio):
    """Where no Hessian is a matrix, and where only that of few weights is."""
    X, y, _ = data("scaled")
    model = fitted(X, y, l1_ratio=l1_ratio, C=0.5)
    assert most == 0 or (model.coef_ != 0).sum() > most
    with override(most_coordinates=most, least_working_set=least):
        other = fitted(X, y, l1_ratio=l1_ratio, C=0.5, tol=1e-6)
    assert_allclose(value(other, X, y), value(model, X, y), rtol=1e-6)
    assert other.optimality_gap_ <= 1e-6


@pytest.mark.parametrize(("l1_ratio", "products"), [(0.01, True), (1.0, False)])
def test_squares_that_make_a_model_easy_spare_the_matrix(l1_ratio, products, monkeypatch):
    """Of more weights than `hessian_size`, there are products while they solve the models."""
    X, y, _ = data("scaled")
    model, sizes, step = fitted(X, y, l1_ratio=l1_ratio), [], _newton_cd.by_coordinate_descent

    def recorded(model, evaluation, mask, *rest):
        sizes.append(mask.sum())
        return step(model, evaluation, mask, *rest)

    monkeypatch.setattr(_newton_cd, "by_coordinate_descent", recorded)
    with override(hessian_size=15):
        other = fitted(X, y, l1_ratio=l1_ratio, tol=1e-9)
    assert (other.coef_ != 0).sum() > 15
    assert (max(sizes, default=0) <= 15) == products
    assert_allclose(value(other, X, y), value(model, X, y), rtol=1e-9)


@every_ratio
@pytest.mark.parametrize("changes", [{}, {"fit_intercept": False}], ids=str)
@pytest.mark.parametrize("kind", ["labels", "soft weights"])
def test_screening_changes_nothing(kind, changes, l1_ratio, rng, monkeypatch):
    """Rare features are left out, fits and gaps are those of all features."""
    X = sparse.random(300, 60, density=0.3, random_state=0, format="csr")
    X = sparse.hstack([X, sparse.random(300, 60, density=0.02, random_state=1)]).tocsr()
    y, weight = X[:, :4].toarray().argmax(axis=1), None
    if kind == "soft weights":
        y, weight = 0.8 * one_hot(y) + 0.2 * rng.dirichlet(np.ones(4), 300), rng.uniform(0, 2, 300)
    parameters = {"l1_ratio": l1_ratio, "C": 0.2 * l1_ratio} | changes
    widths, of = [], Screened.of
    monkeypatch.setattr(Screened, "of", lambda o: widths.append(of(o)) or widths[-1])
    model = fitted(X, y, weight, **parameters)
    start = SoftmaxFCClassifier(tol=1e-12, warm_start=True, **parameters)
    again = start.fit(X, y, weight).fit(X, y, weight)
    monkeypatch.setattr(Screened, "of", lambda o: None)
    whole = fitted(X, y, weight, **parameters)
    assert widths[0].objective.rows.shape[1] < 100
    assert (model.coef_ != 0).any()
    for other in (model, again):
        assert other.optimality_gap_ <= other.tol
        assert_array_equal(other.coef_ != 0, whole.coef_ != 0)
        assert_allclose(value(other, X, y, weight), value(whole, X, y, weight), rtol=2e-12)


@every_ratio
def test_weights_are_repeated_rows(l1_ratio):
    X, y, _ = data("raw")
    times = np.arange(len(y)) % 4
    model = fitted(X, y, times, l1_ratio=l1_ratio)
    other = fitted(np.repeat(X, times, axis=0), np.repeat(y, times), l1_ratio=l1_ratio)
    assert_same_optimum(model, other, X, y, times)


@every_ratio
def test_permuted_classes_permute_the_answer(l1_ratio):
    X, y, _ = data("raw")
    order = np.array([2, 0, 3, 1])
    model, other = fitted(X, y, l1_ratio=l1_ratio), fitted(X, order[y], l1_ratio=l1_ratio)
    other.coef_, other.intercept_ = other.coef_[order], other.intercept_[order]
    assert_same_optimum(model, other, X, y)


@every_ratio
def test_standardised_coefficients_know_no_units(l1_ratio):
    X, y, _ = data("raw")
    unit = 10.0 ** np.arange(-3, 3)
    options = {"l1_ratio": l1_ratio, "standardize": True, "C": 0.1}
    model, other = fitted(X, y, **options), fitted(X * unit, y, **options)
    other.coef_ = other.coef_ * unit
    assert_same_optimum(model, other, X, y)


@every_ratio
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sparse_rows(l1_ratio, dtype):
    """Columns that one row has keep their own coefficients."""
    X, y, _ = data("sparse")
    X = np.hstack([X, np.eye(len(X))[:, :50]])
    options = {"l1_ratio": l1_ratio, "C": 3.0}
    model = fitted(X, y, **options)
    other = fitted(sparse.csr_array(X.astype(dtype)), y, **options)
    assert other.coef_.dtype == dtype
    if dtype == np.float64:
        assert_same_optimum(model, other, X, y)
    assert_allclose(other.coef_, model.coef_, atol=1e-4)


def test_single_precision():
    X, y, _ = data("raw")
    with override(few_single=0):
        model = fitted(X.astype(np.float32), y, tol=1e-4)
    assert model.coef_.dtype == np.float32
    assert_allclose(value(model, X, y), value(fitted(X, y), X, y), rtol=2e-4)


@pytest.mark.parametrize("pixels", [False, True])
def test_a_constant_column_has_no_coefficient(pixels):
    X, y = load_digits(return_X_y=True)
    model = fitted(X if pixels else X / 16, y, C=0.01, tol=1e-6)
    assert not model.coef_[:, X.std(axis=0) == 0].any()
    assert np.signbit(model.coef_[model.coef_ == 0]).sum() == 0


def test_a_warm_start_begins_there():
    X, y, _ = data("raw")
    model = fitted(X, y, C=1.0, warm_start=True)
    cold = model.n_iter_
    model.set_params(C=1.1).fit(X, y)
    assert model.n_iter_ < cold
    assert_same_optimum(model, fitted(X, y, C=1.1), X, y)


# -- the parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_hessian_in_some_weights(kind, fit_intercept, rng):
    from core import dense_hessian

    X, y, weight = data("sparse weights")
    weight = rng.uniform(0.5, 2, len(y))
    rows = sparse.csr_array(X) if kind == "csr" else X
    objective = make_objective(rows, y, weight, C=1e12, fit_intercept=fit_intercept)
    theta = rng.standard_normal(objective.shape)
    H = dense_hessian(objective, X, theta)
    mask = rng.random(objective.shape) < 0.5
    classes, features = np.nonzero(mask.T)
    state = objective.at(theta).state
    proba = objective.rows.sum(_blockwise.keep_probabilities, state=state).state
    found = objective.rows.hessian_on(proba, features, classes, np.float64)
    assert_allclose(found, H[features, classes][:, features, classes], atol=1e-10)


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_the_hessian_of_decided_rows(kind):
    """p (1 - p) keeps its digits where p is next to one."""
    X, y, _ = data("sparse")
    objective = make_objective(sparse.csr_array(X) if kind == "csr" else X, y % 2, C=1e12)
    theta = np.zeros(objective.shape)
    theta[-1] = [40.0, -40.0]
    state = objective.at(theta).state
    proba = objective.rows.sum(_blockwise.keep_probabilities, state=state).state
    H = objective.rows.hessian_on(proba, np.array([0, 0]), np.array([0, 1]), np.float64)
    assert H[1, 1] > 0
    assert_allclose(H, H[1, 1] * np.array([[1, -1], [-1, 1]]), rtol=1e-10)


@pytest.mark.parametrize("m", [1, 5, 30])
def test_coordinate_descent_minimises_the_model(m, rng):
    """But for the little that is added to the diagonal of the Hessian."""
    scale = 10.0 ** rng.uniform(-2, 2, m)
    scale[::7] = 1.0
    A = rng.standard_normal((m + 3, m)) * scale
    H, gradient, start = A.T @ A, 10 * rng.standard_normal(m), rng.standard_normal(m)
    thresholds = 10.0 ** rng.uniform(-1, 1, m)
    thresholds[::7] = 0.0
    u = minimise(H, gradient, start, thresholds, 1e-9, TUNED.patience)
    slope, t = gradient + H @ (u - start), thresholds
    off = np.where(u == 0, np.maximum(np.abs(slope) - t, 0), np.abs(slope + t * np.sign(u)))
    added = 2 * TUNED.rounding_of_gram * H.diagonal() * np.abs(u - start)
    assert (off <= 1e-9 * np.maximum(t, 1) + added).all()


@pytest.mark.parametrize("least", [1e-20, 1e-79])
def test_a_matrix_that_rounding_has_left_indefinite_has_a_factor(least):
    """Entries beside a curvature that is next to nothing are rounding, and far larger."""
    A = np.array([[1.0, 1e-12, 0.5], [1e-12, least, -1e-12], [0.5, -1e-12, 1.0]])
    root = np.sqrt(np.diag(A))
    (factor, _), jitter = factor_of(A / root[:, None] / root, 1e-13)
    lower = np.tril(factor)
    assert np.isfinite(lower).all()
    assert (np.diag(lower) > 0).all()
    unit = A / root[:, None] / root + np.diag(jitter + np.zeros(3))
    assert_allclose(lower @ lower.T, unit, atol=1e-12)


@pytest.mark.parametrize("change", [1e-3, 1e-4, 1e-5])
def test_weights_of_nearly_equal_columns_go_far(change, rng):
    """Signs are lost on the way, and the minimum on those that are left is found all the same."""
    X = rng.standard_normal((100, 6))
    X = np.hstack([X, X[:, :2] + change * rng.standard_normal((100, 2))])
    H, thresholds = X.T @ X / 100, np.full(8, 1e-9)
    thresholds[2:6] = 1e-2
    best = rng.standard_normal(8)
    best[:2] /= change
    best[6:] = -best[:2]
    slope, start = -np.sign(best) * thresholds - H @ best, -1e-3 * best
    found = minimise(H, slope + H @ start, start, thresholds, 0.01, TUNED.patience)

    def model(u):
        return slope @ u + 0.5 * u @ H @ u + thresholds @ np.abs(u)

    on = np.flatnonzero(found)
    gradient = (slope + H @ found + np.sign(found) * thresholds)[on]
    left = 0.5 * gradient @ np.linalg.solve(H[np.ix_(on, on)], gradient)
    assert left <= 1e-6 * (model(start) - model(found))


@pytest.mark.parametrize("kind", ["raw", "raw weights"])
def test_the_hessian_in_most_weights_is_that_of_pairs_of_features(kind, rng):
    X, y, weight = data(kind)
    objective = make_objective(X, y, weight)
    evaluation = objective.at(rng.standard_normal(objective.shape))
    proba = objective.rows.sum(_blockwise.keep_probabilities, state=evaluation.state).state
    classes, features = np.nonzero(rng.random(objective.shape[::-1]) < 0.8)
    of_weights = BlockSums.hessian_on(objective.rows, proba, features, classes, np.float64)
    of_pairs = objective.rows.hessian_on(proba, features, classes, np.float64)
    assert len(features) < objective.shape[0] * objective.shape[1]
    assert_allclose(of_pairs, of_weights, rtol=1e-12, atol=1e-14 * abs(of_weights).max())


def test_under_a_stronger_penalty_some_rows_give_the_curvature(monkeypatch):
    X, y = problems.overlapping(4000, 6, 4, raw=True)
    seen, step = [], _newton_cd.by_coordinate_descent

    def recorded(model, evaluation, mask, rows, *options):
        seen.append((float(model.penalty.l1[0]), rows.shape[0]))
        return step(model, evaluation, mask, rows, *options)

    monkeypatch.setattr(_newton_cd, "by_coordinate_descent", recorded)
    model = SoftmaxFCClassifier(l1_ratio=0.5, C=0.1, tol=1e-9).fit(X, y)
    asked = min(strength for strength, _ in seen)
    assert model.optimality_gap_ <= 1e-9
    assert seen[-1][1] == len(X)
    assert {n < 0.7 * len(X) for strength, n in seen if strength > asked} == {True}


def test_where_a_step_has_gained_a_tenth_some_rows_give_the_curvature(monkeypatch):
    X, y = problems.overlapping(4000, 6, 4, raw=False)
    X *= 5
    seen, step = [], _newton_cd.by_coordinate_descent

    def recorded(model, evaluation, mask, rows, *options):
        value = float((evaluation.value + model.penalty.absolute(evaluation.theta))[0])
        seen.append((value, rows.shape[0] < 0.7 * len(X)))
        return step(model, evaluation, mask, rows, *options)

    monkeypatch.setattr(_newton_cd, "by_coordinate_descent", recorded)
    C = 5 * l1_min_C(X, y)  # no stronger penalty on the way
    model = SoftmaxFCClassifier(l1_ratio=1.0, C=C, tol=1e-9).fit(X, y)
    values, sampled = zip(*seen, strict=True)
    assert model.optimality_gap_ <= 1e-9
    assert sampled[1:] == tuple(a > 1.1 * b for a, b in pairwise(values))
    assert set(sampled) == {True, False}
    assert not sampled[0]


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_a_row_that_is_wrong_for_certain_is_no_promise(kind, rng):
    """A feature that it alone has: its model has no curvature, and its step would be endless."""
    X, y, _ = data("scaled")
    X = np.column_stack([X, np.zeros(len(X))])
    X[0, -1] = 1.0
    right, wrong = int(y[0]), (int(y[0]) + 1) % 4
    plain = make_objective(sparse.csr_array(X) if kind == "csr" else X, y, C=3.0)
    strength, factors = plain.penalty.l2, plain.penalty.factors
    objective = Objective(plain.rows, ElasticNet(0 * strength, factors, strength))
    theta = np.zeros(objective.shape)
    theta[-2, wrong] = 2.0
    smooth = objective.smooth
    evaluation = smooth.at(theta)
    proba = objective.rows.sum(_blockwise.keep_probabilities, state=evaluation.state).state
    mask = np.ones(objective.shape, bool)
    step = by_coordinate_descent(objective, evaluation, mask, objective.rows, proba, rough=False)
    moved = standardised(objective, X)[0, -2] * step[-2]
    assert theta[-2, wrong] * standardised(objective, X)[0, -2] > 20
    assert 0 < moved[right] < 10
    length, after = descend(smooth, objective.penalty, evaluation, step)
    assert length == 1.0
    assert_allclose(after.theta[-2, wrong], 0, atol=0.5)


@pytest.mark.parametrize("below", [1e-12, 1e-60])
def test_a_proximal_step_does_not_lead_up(below):
    """However far the bound of the curvature is below it: 25 doublings were all."""
    X, y, _ = data("scaled")
    plain = make_objective(X, y, C=3.0)
    strength, factors = plain.penalty.l2, plain.penalty.factors
    objective = Objective(plain.rows, ElasticNet(0 * strength, factors, strength))
    before = objective.smooth.at(np.zeros(objective.shape))
    after, _ = proximal_step(objective.smooth, objective.penalty, before, below)
    moved = np.abs(after.theta).max()
    assert after.value + objective.penalty.absolute(after.theta) <= before.value
    assert (0 < moved < 10) if below == 1e-12 else moved == 0


def test_the_model_promises_of_single_weights():
    gradient, theta = np.array([3.0, 0.5, -3.0, 3.0]), np.array([0.0, 0.0, 2.0, 2.0])
    promised = promised_alone(np.full(4, 0.5), gradient, np.ones(4))
    assert_allclose(promised, [4.0, 0.0, 4.0, 4.0])
    assert promised_alone(np.ones(1), np.ones(1), np.zeros(1)) == 0
    assert_allclose(curvature_to_zero(gradient, theta, np.ones(4)), [np.inf] * 3 + [2.0])
    for h, end in ((2.0, 0.0), (4.0, 1.0)):
        found = minimise(np.array([[h]]), gradient[3:], theta[3:], np.ones(1), 1e-9, 9)
        assert_allclose(found, end, atol=1e-9)


# -- in scikit-learn ----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "gd"])
def test_other_solvers_refuse(solver):
    X, y, _ = data("raw")
    with pytest.raises(ValueError, match=r"takes no l1_ratio > 0; got l1_ratio=0.5"):
        SoftmaxFCClassifier(solver=solver, l1_ratio=0.5).fit(X, y)
    with pytest.raises(ValueError, match=r"takes no l1_ratio > 0"):
        SoftmaxFCClassifierCV(solver=solver, l1_ratios=[0, 0.5]).fit(X, y)


@pytest.mark.parametrize("solver", PROXIMAL)
def test_proximal_solvers_need_a_penalty(solver):
    X, y, _ = data("raw")
    with pytest.raises(ValueError, match="needs a penalty"):
        SoftmaxFCClassifier(solver=solver, C=np.inf).fit(X, y)


def test_without_a_penalty_the_ratio_says_nothing():
    X, y, _ = data("raw")
    model, other = fitted(X, y, C=np.inf), fitted(X, y, C=np.inf, l1_ratio=0.0)
    assert_array_equal(model.coef_, other.coef_)


@pytest.mark.parametrize("l1_ratio", [-0.1, 1.1, np.nan, "half", None, True])
def test_wrong_ratios(l1_ratio):
    X, y, _ = data("raw")
    with pytest.raises((ValueError, TypeError), match="l1_ratio"):
        SoftmaxFCClassifier(l1_ratio=l1_ratio).fit(X, y)
    with pytest.raises((ValueError, TypeError), match="l1_ratios"):
        SoftmaxFCClassifierCV(l1_ratios=[[l1_ratio]] if l1_ratio is True else [l1_ratio]).fit(X, y)


@checks_of([SoftmaxFCClassifier(l1_ratio=0.5)])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def test_searches_and_selection_of_features():
    X, y = load_wine(return_X_y=True)
    grid = {"C": [0.01, 0.1, 1.0], "l1_ratio": [0.0, 0.5, 1.0]}
    search = GridSearchCV(SoftmaxFCClassifier(), grid, cv=3, scoring="neg_log_loss").fit(X, y)
    cv = SoftmaxFCClassifierCV(Cs=grid["C"], l1_ratios=grid["l1_ratio"], cv=3)
    with pytest.warns(UserWarning, match="largest of Cs"):
        cv.fit(X, y)
    assert {"C": cv.C_, "l1_ratio": cv.l1_ratio_} == search.best_params_
    assert cv.scores_.shape == (3, 3, 3)
    assert cv.coefs_paths_.shape == (3, 3, 3, 3, 13)
    assert cv.best_index_ == grid["C"].index(cv.C_)
    by_C_first = search.cv_results_["mean_test_score"].reshape(3, 3)
    assert_allclose(cv.scores_.mean(axis=0).T, by_C_first, rtol=1e-2)
    kept = SelectFromModel(SoftmaxFCClassifier(l1_ratio=1, C=0.1)).fit(X, y).get_support()
    assert 0 < kept.sum() < 13


def test_a_path_equals_separate_fits():
    X, y, _ = data("scaled")
    half = np.arange(len(y)) < 100
    Cs = l1_min_C(X[half], y[half]) * np.array([1.0, 3.0, 30.0, 300.0])
    cv = SoftmaxFCClassifierCV(Cs=Cs, l1_ratios=[0.5], cv=[(half, ~half)], tol=1e-12).fit(X, y)
    assert cv.coefs_paths_.shape == (1, 4, 4, 6)
    for i, C in enumerate(Cs):
        alone = fitted(X[half], y[half], C=C, l1_ratio=0.5)
        assert_array_equal(cv.coefs_paths_[0, i] == 0, alone.coef_ == 0)
        assert_allclose(cv.coefs_paths_[0, i], alone.coef_, atol=1e-4)


def test_sparse_coefficients_predict_the_same():
    X, y, _ = data("scaled")
    model = fitted(X, y, C=0.1)
    before = model.predict_proba(X)
    assert_allclose(model.sparsify().predict_proba(X), before)
    assert model.coef_.nnz < 24
    assert_allclose(model.densify().predict_proba(X), before)


def test_early_stopping_keeps_zeros_and_bounds_the_gap():
    """The coefficients kept are those of an iterate, and the gap is that of those."""
    X, y = load_digits(return_X_y=True)
    model = SoftmaxFCClassifier(
        C=10.0, l1_ratio=1.0, early_stopping=True, n_iter_no_change=2, random_state=0
    ).fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    kept = int(np.argmin(model.validation_curve_))
    assert_allclose(model.log_loss(X[1::2], y[1::2]), model.validation_curve_[kept], rtol=1e-9)
    assert (model.coef_ == 0).any()
    best = fitted(X[::2], y[::2], C=10.0, tol=1e-9)
    assert value(model, X[::2], y[::2]) <= value(best, X[::2], y[::2]) * (
        1 + model.optimality_gap_ + 1e-9
    ) * (1 + 1e-9)  # fmt: skip


def test_sweeps_are_those_of_the_model_alone(rng):
    """Of the Gram matrix, with no rows behind it: each coordinate in turn at its minimum."""
    A = rng.standard_normal((30, 20))
    H, start, slope = A.T @ A, rng.standard_normal(20), 9 * rng.standard_normal(20)
    found = Lasso(H.copy(), slope, start, np.ones(20), 1e-13).sweep(start)
    v = start.copy()
    for _ in range(TUNED.sweeps):
        for j in range(20):
            left = H[j, j] * v[j] - slope[j] - H[j] @ (v - start)
            v[j] = np.sign(left) * max(abs(left) - 1, 0) / H[j, j]
    assert_allclose(found, v, rtol=1e-9, atol=1e-12)
    assert 0 < (v == 0).sum() < 20
