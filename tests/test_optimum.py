"""Optima of `SoftmaxFCClassifier`: known ones, those that others find, and how near a fit is.

A fit is within `tol` of the minimum, give or take a factor of ten. Two fits of one
problem are then close: their objectives to 10 tol, and by the identity in `reference`
their probabilities to a multiple of √tol.
"""

import warnings
from itertools import product

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Reference, assert_same_optimum, one_hot
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV

TOL = 1e-10
METRICS = ["auto", "hessian", "block-diagonal", "kronecker", "diagonal"]


def fit(X, y, weight=None, **options):
    return SoftmaxFCClassifier(**{"tol": TOL, **options}).fit(X, y, sample_weight=weight)


@pytest.fixture(scope="module")
def data():
    return problems.overlapping()


# -- known optima -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("preconditioner", METRICS)
def test_known_optimum_without_penalty(preconditioner, seed):
    known = problems.known_unpenalised(seed=seed)
    model = fit(known.X, known.y, known.weight, C=known.C, preconditioner=preconditioner)
    F = Reference(known.X, one_hot(known.y), known.weight, C=known.C)
    best = F.value(known.coef, known.intercept)
    distance = F.distance((known.coef, known.intercept), (model.coef_, model.intercept_))
    assert distance <= 10 * TOL * best
    assert_allclose(F.value(model.coef_, model.intercept_), best, rtol=10 * TOL)
    # The gauge of the answer is that of the optimum, so coefficients can be compared.
    spread = known.X.std(axis=0)
    assert_allclose(model.coef_ * spread, known.coef * spread, atol=100 * np.sqrt(TOL))
    assert_allclose(model.intercept_, known.intercept, atol=100 * np.sqrt(TOL))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("preconditioner", METRICS)
def test_known_optimum_with_penalty(preconditioner, fit_intercept):
    known = problems.known_penalised(fit_intercept=fit_intercept)
    model = fit(
        known.X, known.y, C=known.C, preconditioner=preconditioner, fit_intercept=fit_intercept
    )
    F = Reference(known.X, known.y, C=known.C, fit_intercept=fit_intercept)
    best = F.value(known.coef, known.intercept)
    distance = F.distance((known.coef, known.intercept), (model.coef_, model.intercept_))
    assert distance <= 10 * TOL * best
    assert fit_intercept or not model.intercept_.any()


def test_textbook_gradients_reach_the_same_optimum():
    X, y = problems.overlapping(raw=False)
    assert_same_optimum(fit(X, y, preconditioner=None), fit(X, y), X)


def test_published_kind_of_figures():
    """Maximum likelihood with a known log-likelihood, class 0 as the base."""
    known = problems.known_unpenalised(n_samples=200, n_features=5, n_classes=7, seed=4)
    model = fit(known.X, known.y, known.weight, C=np.inf, tol=1e-12)
    log_proba = model.predict_log_proba(known.X)[np.arange(len(known.y)), known.y]
    P = known.weight
    assert_allclose(known.weight @ log_proba, np.sum(P * np.log(P)), rtol=1e-11)
    spread = known.X.std(axis=0)
    base = (model.coef_ - model.coef_[0]) * spread
    assert_allclose(base, (known.coef - known.coef[0]) * spread, atol=100 * np.sqrt(1e-12))


# -- against LogisticRegression ---------------------------------------------------------

BUNDLED = {"iris": load_iris, "wine": load_wine, "digits": load_digits}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", BUNDLED)
def test_optimum_is_not_above_that_of_logistic_regression(name, scaled, C, weighted, rng):
    X, y = BUNDLED[name](return_X_y=True)
    if name == "digits":
        X, y = X[:300, 20:40], y[:300]
    X = StandardScaler().fit_transform(X) if scaled else X
    weight = rng.uniform(0.5, 2, len(y)) if weighted else None
    model = fit(X, y, weight, C=C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its line search gives up near the optimum
        other = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=300)
        other.fit(X, y, sample_weight=weight)
    F = Reference(X, one_hot(y), weight, C=C)
    best = F.value(other.coef_, other.intercept_)
    value = F.value(model.coef_, model.intercept_)
    assert value <= best * (1 + 1e-8)
    assert_allclose(model.loss_curve_[-1], value, rtol=1e-10)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("scaled", [False, True])
def test_two_classes_are_the_binomial_model_at_twice_c(scaled, C):
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X) if scaled else X
    model = fit(X, y, C=C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = LogisticRegression(C=2 * C, solver="newton-cholesky", tol=1e-12, max_iter=300)
        other.fit(X, y)
    assert model.coef_.shape == (2, X.shape[1])
    half = np.vstack([-other.coef_, other.coef_]) / 2
    half_bias = np.append(-other.intercept_, other.intercept_) / 2
    F = Reference(X, one_hot(y), C=C)
    best = F.value(half, half_bias)
    assert F.value(model.coef_, model.intercept_) <= best * (1 + 1e-8)
    # F is strongly convex in the coefficients: F - F* >= λ/2 ‖W - W*‖².
    reach = 2 * np.sqrt(2 * 1e-8 * best / F.l2)
    difference = model.coef_[1] - model.coef_[0] - other.coef_[0]
    assert np.linalg.norm(difference) <= np.sqrt(2) * reach
    assert_array_equal(model.decision_function(X) > 0, model.predict(X) == 1)
    log_odds = model.predict_log_proba(X) @ [-1, 1]
    assert_allclose(model.decision_function(X), log_odds, rtol=1e-9, atol=1e-9)


# -- tol and the gap --------------------------------------------------------------------

GAP_DATA = {
    "raw": problems.overlapping(),
    "many classes": problems.overlapping(600, 5, 12, seed=1),
    "wide": problems.overlapping(40, 30, 3, seed=2),
    "iris": load_iris(return_X_y=True),
    "wine": load_wine(return_X_y=True),
}


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("name", GAP_DATA)
def test_tol_and_gap_are_relative_distances_to_the_minimum(name, C, tol):
    X, y = GAP_DATA[name]
    F = Reference(X, one_hot(y), C=C)
    best = F.minimise()[2]
    model = fit(X, y, C=C, tol=tol)
    gap = F.value(model.coef_, model.intercept_) / best - 1
    assert model.optimality_gap_ <= tol
    assert gap <= 10 * tol
    # What is left near 1e-13 is rounding of the two values.
    # An estimate within a factor of ten, or a proven bound, which may be larger.
    assert gap / 10 - 1e-13 <= model.optimality_gap_ <= max(10 * gap, tol) + 1e-13


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("C", [1e2, 1e3, 1e4])
def test_a_loose_fit_of_rows_all_but_decided_is_not_ended_early(C, seed):
    """The few rows that are left hide in a metric that the others have made."""
    X, y = load_digits(return_X_y=True)
    X = np.vstack([X, X]) + 2 * np.random.default_rng(seed).standard_normal((2 * len(X), 64))
    X, y = StandardScaler().fit_transform(X), np.tile(y, 2)
    best = fit(X, y, C=C).loss_curve_[-1]
    for tol in (1e-1, 1e-2, 1e-3):
        model = fit(X, y, C=C, tol=tol)
        gap = model.loss_curve_[-1] / best - 1
        assert gap <= 10 * tol
        assert gap <= 10 * model.optimality_gap_


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_the_end_is_not_where_one_huge_value_hides_it(load, solver):
    """A feature is of no use while one row has its curvature; then that row is decided."""
    table, y = load(return_X_y=True)
    for C, size, row in product((1.0, 1e4), (1e3, 1e5, 1e6), (7, -2)):
        X = table.copy()
        X[row, 3] = np.sign(row) * size * X[:, 3].std()
        F = Reference(X, one_hot(y), C=C)
        best = F.minimise()[2]
        model = fit(X, y, C=C, solver=solver, tol=1e-6)
        assert model.loss_curve_[-1] / best - 1 <= 1e-5  # logits of 10⁷ have seven digits less
        gap = F.value(model.coef_, model.intercept_) / best - 1
        assert gap <= 10 * model.optimality_gap_ + 1e-10


@pytest.mark.parametrize("preconditioner", [*METRICS, None])
@pytest.mark.parametrize("max_iter", [0, 1, 3])
def test_gap_of_an_unfinished_fit(data, preconditioner, max_iter):
    X, y = data
    if preconditioner is None:
        X = StandardScaler().fit_transform(X)
    F = Reference(X, one_hot(y))
    best = F.minimise()[2]
    with pytest.warns(UserWarning, match="max_iter"):
        model = fit(X, y, preconditioner=preconditioner, max_iter=max_iter, tol=1e-14)
    gap = F.value(model.coef_, model.intercept_) / best - 1
    assert model.n_iter_ == max_iter
    assert len(model.loss_curve_) == max_iter + 1
    assert gap / 10 - 1e-13 <= model.optimality_gap_ <= 10 * gap + 1e-13


def test_loss_curve_falls_from_the_start_to_the_end(data):
    X, y = data
    model = fit(X, y)
    assert isinstance(model.n_iter_, int)
    assert len(model.loss_curve_) == model.n_iter_ + 1
    assert (np.diff(model.loss_curve_) <= 1e-14).all()
    value = Reference(X, one_hot(y)).value(model.coef_, model.intercept_)
    assert_allclose(model.loss_curve_[-1], value, rtol=1e-12)


@pytest.mark.parametrize("seed", [0, 2])
def test_one_value_of_a_million_among_many_features(seed):
    """The fit without its row, which gives that row a loss of zero, is attainable."""
    rng = np.random.default_rng(seed)
    X, W = rng.standard_normal((4000, 64)), rng.standard_normal((64, 10))
    W[0] *= 3
    y = (X @ W + rng.gumbel(size=(4000, 10))).argmax(axis=1)
    others = SoftmaxFCClassifier().fit(np.delete(X, 5, axis=0), np.delete(y, 5))
    y[5] = others.coef_[:, 0].argmax()
    X[5, 0] = 1e8
    clf = SoftmaxFCClassifier().fit(X, y)
    attainable = others.loss_curve_[-1] * 3999 / 4000
    assert clf.loss_curve_[-1] <= attainable * (1 + 10 * clf.tol)


@pytest.mark.filterwarnings("ignore:C_=")
def test_scores_of_a_search_are_those_of_separate_fits():
    """To 1e-4, with one value so far out that they are near -60: fits end near their minimum."""
    rng = np.random.default_rng(20)
    X = rng.normal(size=(150, 5))
    y = (X @ rng.normal(size=(3, 5)).T + rng.gumbel(size=(150, 3))).argmax(axis=1)
    X[7, 2] = 1e3
    search = SoftmaxFCClassifierCV(Cs=5, cv=3).fit(X, y)
    for k, (train, test) in enumerate(StratifiedKFold(3).split(X, y)):
        for i, C in enumerate(search.Cs_):
            alone = SoftmaxFCClassifier(C=C).fit(X[train], y[train])
            score = -alone.log_loss(X[test], y[test])
            assert search.scores_[k, i] == pytest.approx(score, rel=1e-4)


def test_a_rare_class_that_a_rare_feature_marks():
    """Where it is impossible for all rows, its intercept has no curvature: damping holds it."""
    rng, n, p = np.random.default_rng(140), 1500, 70
    X = rng.normal(size=(n, p))
    y = (X @ rng.normal(size=(6, p)).T / np.sqrt(p / 4) + rng.gumbel(size=(n, 6))).argmax(axis=1)
    rare, order = np.zeros((n, 2)), rng.permutation(n)
    rare[order[:12], 0] = 1
    rare[order[12:24], 1] = 1
    y[order[:5]], y[order[12:22]] = 6, 7
    X = np.column_stack([X, rare])
    X, weight = (X - X.mean(axis=0)) / X.std(axis=0), rng.exponential(size=n) ** 3
    fits = [
        SoftmaxFCClassifier(C=1e4, **options).fit(X, y, sample_weight=weight)
        for options in ({}, {"solver": "newton-cg", "preconditioner": "diagonal"})
    ]
    a, b = (fit.loss_curve_[-1] for fit in fits)
    assert a == pytest.approx(b, rel=1e-5)
