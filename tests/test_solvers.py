"""Every solver finds the same optimum; gradient descent is the textbook's."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import problems
import pytest
from core import SMOOTH, checks_of, make_objective, zero_mean
from numpy.testing import assert_allclose, assert_array_equal
from reference import Reference, one_hot
from scipy import sparse
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV, neg_log_loss_scorer
from skfc._conjugate_gradients import newton_step
from skfc._driver import Run
from skfc._method import Method
from skfc._preconditioner import PRECONDITIONERS, choose, make
from skfc._tuned import TUNED, override
from skfc.solvers import GO_ON, Change, _newton, _sgd
from skfc.solvers._gd import largest_curvature
from skfc.solvers._lbfgs import inverse_product, lbfgs, pair
from skfc.solvers._newton import damped_step, newton
from skfc.solvers._sgd import rows_of_batch

TOL = 1e-8
# What optimality_gap_ promises: right within a factor of ten.
HONEST = 10


def known(make, **options):
    """A problem whose optimum is known before anything is solved."""
    p = make(**options)
    Y = p.y if p.y.ndim == 2 else one_hot(p.y)
    reference = Reference(p.X, Y, p.weight, C=p.C)
    best = p.coef, p.intercept, reference.value(p.coef, p.intercept)
    return (p.X, p.y, p.weight, p.C), reference, best


def drawn(C, **options):
    """A problem that the reference solves."""
    X, y = problems.overlapping(**options)
    weight = np.linspace(0.0, 2.0, len(y))
    reference = Reference(X, one_hot(y), weight, C=C)
    return (X, y, weight, C), reference, reference.minimise()


# name: the problem (X, y, weights and C), the reference, and the optimum (coef, intercept, F)
PROBLEMS = {
    "raw": lambda: drawn(1.0),
    "raw, no penalty": lambda: known(problems.known_unpenalised),
    "soft labels": lambda: known(problems.known_penalised),
    "two classes": lambda: drawn(10.0, n_classes=2, raw=False),
    "scaled": lambda: drawn(1.0, raw=False),
    "scaled, strong penalty": lambda: drawn(1e-3, raw=False),
}


def memory_map(X, path):
    np.save(path / "X.npy", X)
    return np.load(path / "X.npy", mmap_mode="r")


CONTAINERS = {
    "C": lambda X, path: np.ascontiguousarray(X),
    "F": lambda X, path: np.asfortranarray(X),
    "CSR": lambda X, path: sparse.csr_array(X),
    "memory map": memory_map,
}


@pytest.fixture(scope="module")
def optimum():
    """Problems by name with their optimum, each solved once: problem, reference, optimum."""
    return cache(lambda name: PROBLEMS[name]())


@pytest.fixture
def fits(monkeypatch):
    """The `Fit`s of everything that is fitted in a test."""
    found, run = [], Run.run

    def recorded(self):
        found.extend(run(self))
        return found[-len(self.fits) :]

    monkeypatch.setattr(Run, "run", recorded)
    return found


def assert_optimal(model, fit, reference, best, tol):
    """`tol` is met, and the gap that the model states is that before its last step.

    A proven gap is an upper bound, which may be far above. The last step leads down.
    """
    coef, intercept, value = best
    end = reference.distance((coef, intercept), (model.coef_, model.intercept_)) / value
    gap = (fit.value - value) / value
    rounding = 1e-12 if model.coef_.dtype == np.float64 else tol
    assert model.optimality_gap_ <= tol
    assert end <= gap + rounding
    if fit.proven:
        assert gap <= model.optimality_gap_ + rounding
    else:
        assert gap <= HONEST * model.optimality_gap_ + rounding
        assert model.optimality_gap_ <= HONEST * gap + rounding


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
@pytest.mark.parametrize("solver", SMOOTH)
def test_one_optimum(solver, preconditioner, name, optimum, fits):
    if preconditioner is None and name.startswith(("raw", "soft")):
        name = "scaled"  # what the textbook's gradient asks for
    (X, y, weight, C), reference, best = optimum(name)
    model = SoftmaxFCClassifier(
        solver=solver, preconditioner=preconditioner, C=C, tol=TOL, max_iter=5000
    ).fit(X, y, sample_weight=weight)
    assert model.solver_ == solver
    assert_optimal(model, fits[-1], reference, best, TOL)
    end = reference.value(model.coef_, model.intercept_)
    assert_allclose(model.loss_curve_[-1], end, rtol=1e-10)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, TOL), (np.float32, 1e-4)])
@pytest.mark.parametrize("solver", SMOOTH)
def test_one_optimum_in_every_container(solver, dtype, tol, container, optimum, tmp_path, fits):
    (X, y, weight, C), reference, best = optimum("raw")
    X = CONTAINERS[container](X.astype(dtype), tmp_path)
    before = X.copy()
    model = SoftmaxFCClassifier(solver=solver, C=C, tol=tol).fit(X, y, sample_weight=weight)
    assert model.coef_.dtype == dtype
    assert_optimal(model, fits[-1], reference, best, tol)
    assert (before != X).sum() == 0


CHECKED = [
    *(SoftmaxFCClassifier(solver=solver) for solver in SMOOTH),
    SoftmaxFCClassifier(solver="newton-cg", preconditioner="diagonal"),
    SoftmaxFCClassifier(solver="gd", preconditioner="diagonal", momentum=0.5),
    # A check of scikit-learn 1.8 fits twice, and the number of epochs depends on the order.
    SoftmaxFCClassifier(solver="sgd", batch_size=8, tol=1e-10, random_state=0),
]


@checks_of(CHECKED)
def test_estimator_checks(estimator, check):
    check(estimator)


# On data that lie a hundred standard deviations from zero it says that it has not converged.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_checks_of_the_textbook():
    check_estimator(SoftmaxFCClassifier(solver="gd", preconditioner=None))


# -- threads and processes --------------------------------------------------------------


@pytest.mark.parametrize("container", ["C", "CSR"])
@pytest.mark.parametrize("solver", SMOOTH)
def test_fits_in_threads(solver, container, tmp_path):
    X, y = problems.overlapping(2000, 10)
    X = CONTAINERS[container](X, tmp_path)
    models = [
        SoftmaxFCClassifier(solver=solver, C=C, random_state=0) for C in (0.01, 1.0, 100.0, np.inf)
    ]
    # How many threads BLAS has decides how it rounds, and fits that run together share them.
    with threadpool_limits(1, user_api="blas"):
        alone = [model.fit(X, y).coef_ for model in models]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda model: model.fit(X, y).coef_, models))
    for a, b in zip(alone, together, strict=True):
        assert_array_equal(b, a)


@pytest.mark.parametrize("solver", SMOOTH)
def test_searches_on_two_processes(solver):
    X, y = problems.overlapping()
    search = GridSearchCV(
        SoftmaxFCClassifier(solver=solver, random_state=0), {"C": [0.1, 1.0, 10.0]},
        scoring=neg_log_loss_scorer, cv=3,
    )  # fmt: skip
    alone = search.fit(X, y).cv_results_["mean_test_score"]
    together = search.set_params(n_jobs=2).fit(X, y).cv_results_["mean_test_score"]
    assert_allclose(together, alone, rtol=1e-9)


# -- gradient descent -------------------------------------------------------------------


@pytest.fixture(scope="module")
def scaled():
    return problems.overlapping(raw=False)


def descend(X, y, C, rate, momentum, n_iter):
    """The textbook: from zero, along the gradient of the mean objective."""
    X1, Y = np.column_stack([X, np.ones(len(X))]), one_hot(y)
    penalty = np.append(np.full(X.shape[1], 1 / (C * len(X))), 0.0)[:, None]
    x = look = np.zeros((X1.shape[1], Y.shape[1]))
    for _ in range(n_iter):
        gradient = X1.T @ (softmax(X1 @ look, axis=1) - Y) / len(X) + penalty * look
        ahead = look - rate * gradient
        x, look = ahead, ahead + momentum * (ahead - x)
    return look[:-1].T, look[-1]


def limited(X, y, n_iter, **parameters):
    """A model after `n_iter` iterations, whether it has converged or not."""
    model = SoftmaxFCClassifier(max_iter=n_iter, tol=0.0, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


# Units and offsets of X, and a rate that they allow.
UNITS = {"scaled": (1.0, 0.0, 0.3), "own units": (problems.RAW_SCALE[[2, 3, 4, 5]], 3.0, 2e-3)}


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("n_iter", [0, 1, 2, 40])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_the_textbook(scaled, momentum, n_iter, units):
    """In the coefficients of X as it is, whatever its units are."""
    X, y = scaled
    scale, offset, rate = UNITS[units]
    X = X * scale + offset
    model = limited(
        X, y, n_iter, solver="gd", preconditioner=None, C=0.5, learning_rate=rate,
        momentum=momentum,
    )  # fmt: skip
    coef, intercept = descend(X, y, 0.5, rate, momentum, n_iter)
    assert model.n_iter_ == n_iter
    assert_allclose(model.coef_, coef, atol=1e-12)
    assert_allclose(model.intercept_, intercept, atol=1e-12)


def test_two_steps_of_the_textbook_by_hand():
    """Rows 0 and 2 of two classes, C=0.5, rate 1/2: all the numbers are on paper.

    From zero the residuals are (-1/2, 1/2) and (1/2, -1/2), so that the gradient in the
    coefficients is (1/2, -1/2) and that in the intercepts zero: W = (-1/4, 1/4). The logits of
    the second row are then (-1/2, 1/2), and p of its own class is s = 1 / (1 + 1/e). The next
    gradient is (1 - s, s - 1) of the loss and W of the penalty, 1 / (C n) = 1, in the
    coefficients, and (1 - s - 1/2, s - 1/2) / 2 in the intercepts.
    """
    X, y = np.array([[0.0], [2.0]]), np.array([0, 1])
    options = {"solver": "gd", "preconditioner": None, "learning_rate": 0.5, "momentum": 0}
    first, second = (limited(X, y, k, C=0.5, **options) for k in (1, 2))
    assert_allclose(first.coef_, [[-0.25], [0.25]], atol=1e-15)
    assert_allclose(first.intercept_, [0.0, 0.0], atol=1e-15)
    s = 1 / (1 + np.exp(-1))
    w, b = -0.25 - 0.5 * ((1 - s) - 0.25), -0.25 * (0.5 - s)
    assert_allclose(second.coef_, [[w], [-w]], atol=1e-15)
    assert_allclose(second.intercept_, [b, -b], atol=1e-15)


@pytest.mark.parametrize("C", [1e-4, 1.0, np.inf])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("shape", [(300, 4, 3), (100, 1, 2), (60, 40, 6), (30, 200, 3)])
def test_the_bound_of_the_curvature(shape, fit_intercept, C):
    """Against the eigenvalues of ½ (I - 11ᵀ/T) ⊗ XᵀSX/s + λ, in the units of X."""
    X, y = problems.overlapping(*shape)
    X1 = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    weight = np.linspace(0.5, 1.5, len(y))
    total, T = weight.sum(), shape[2]
    bound = np.kron((np.eye(T) - 1 / T) / 2, X1.T @ (X1 * weight[:, None]) / total)
    penalty = np.full(X1.shape[1], 1 / (C * total))
    if fit_intercept:
        penalty[-1] = 0
    largest = np.linalg.eigvalsh(bound + np.kron(np.eye(T), np.diag(penalty)))[-1]
    found = largest_curvature(make_objective(X, y, weight, C, fit_intercept=fit_intercept))
    assert largest * (1 - 1e-9) <= found <= largest * (1 + TUNED.accuracy)


def test_the_rate_without_a_number(scaled):
    """The first step from zero is the gradient over the bound."""
    X, y = scaled
    model = limited(X, y, 1, solver="gd", preconditioner=None, momentum=0)
    rate = 1 / largest_curvature(make_objective(X, y))
    coef, intercept = descend(X, y, 1.0, rate, 0, 1)
    assert_allclose(model.coef_, coef, rtol=1e-12)
    assert_allclose(model.intercept_, intercept, rtol=1e-12)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("C", [1e-2, 1.0, np.inf])
@pytest.mark.parametrize("momentum", ["auto", 0.0, 0.9])
@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
def test_the_objective_falls(preconditioner, momentum, C, raw):
    """Always at a rate of "auto": by 1 / L without momentum, elsewhere by its search."""
    X, y = problems.overlapping(raw=raw)
    model = limited(X, y, 60, solver="gd", preconditioner=preconditioner, momentum=momentum, C=C)
    curve = model.loss_curve_
    assert (np.diff(curve) <= 2e-14 * curve[:-1]).all()  # what the search takes for rounding
    assert curve[-1] < curve[0]


def count(X, y, **parameters):
    """Iterations down to a gap of 1e-4."""
    model = SoftmaxFCClassifier(solver="gd", C=np.inf, tol=1e-4, max_iter=20_000, **parameters)
    return model.fit(X, y).n_iter_


def test_momentum_takes_the_root_of_the_iterations(scaled):
    X, y = scaled
    X = X * [1, 1, 1, 10]  # a condition number of some hundreds
    plain = count(X, y, preconditioner=None, momentum=0)
    assert count(X, y, preconditioner=None) < 5 * np.sqrt(plain) < plain / 5


def test_a_preconditioner_takes_the_units_out(scaled):
    X, y = scaled
    raw = problems.overlapping()[0]
    for name in set(PRECONDITIONERS) - {None}:
        iterations = count(raw, y, preconditioner=name)
        assert iterations == count(X, y, preconditioner=name) < 50


def test_plain_gradients_of_huge_raw_data():
    """A warning that says how far it is, and finite coefficients."""
    X, y = problems.overlapping()
    for scale in (1.0, 1e10, 1e150, 1e200):
        model = SoftmaxFCClassifier(solver="gd", preconditioner=None, max_iter=30)
        with pytest.warns(ConvergenceWarning):
            model.fit(X * scale, y)
        assert np.isfinite(model.coef_).all()
        assert np.isfinite(model.predict_proba(X)).all()


def test_a_rate_that_is_too_large(scaled):
    X, y = scaled
    model = SoftmaxFCClassifier(solver="gd", preconditioner=None, learning_rate=1e3, C=1e-3)
    with pytest.raises(ValueError, match=r"learning_rate=1000\.0.*Lower it"):
        model.fit(X, y)
    with pytest.warns(ConvergenceWarning):  # without a penalty it only goes to and fro
        model.set_params(C=np.inf).fit(X, y)
    assert np.isfinite(model.coef_).all()


@pytest.mark.parametrize("solver", [s for s in SMOOTH if not SMOOTH[s].options])
def test_other_solvers_leave_rate_and_momentum_aside(scaled, solver):
    model = SoftmaxFCClassifier(solver=solver).fit(*scaled)
    other = SoftmaxFCClassifier(solver=solver, learning_rate=0.1, momentum=0.5).fit(*scaled)
    assert_array_equal(other.coef_, model.coef_)


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("learning_rate", 0, ValueError), ("learning_rate", -1.0, ValueError),
        ("learning_rate", np.inf, ValueError), ("learning_rate", np.nan, ValueError),
        ("learning_rate", "optimal", TypeError), ("learning_rate", None, TypeError),
        ("learning_rate", True, TypeError), ("momentum", 1.0, ValueError),
        ("momentum", -0.1, ValueError), ("momentum", np.nan, ValueError),
        ("momentum", "nesterov", TypeError), ("momentum", None, TypeError),
    ],
)  # fmt: skip
def test_bad_rates_and_momenta(scaled, name, bad, error):
    for solver in SMOOTH:
        with pytest.raises(error, match=f"{name}.*'auto' or a number.*{bad}"):
            SoftmaxFCClassifier(solver=solver, **{name: bad}).fit(*scaled)


# -- mini-batches -------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
def test_mini_batches_find_the_optimum(preconditioner, name, optimum, fits):
    if preconditioner is None and name.startswith(("raw", "soft")):
        name = "scaled"
    (X, y, weight, C), reference, best = optimum(name)
    model = SoftmaxFCClassifier(
        solver="sgd", batch_size=30, preconditioner=preconditioner, C=C, tol=TOL, max_iter=5000,
        random_state=0,
    ).fit(X, y, sample_weight=weight)  # fmt: skip
    assert_optimal(model, fits[-1], reference, best, TOL)
    curve = model.loss_curve_
    assert (np.diff(curve) <= 2e-14 * curve[:-1]).all()


@pytest.mark.parametrize("container", CONTAINERS)
def test_mini_batches_of_every_container(container, optimum, tmp_path, fits):
    (X, y, weight, C), reference, best = optimum("raw")
    X = CONTAINERS[container](X, tmp_path)
    model = SoftmaxFCClassifier(solver="sgd", batch_size=32, C=C, tol=TOL, random_state=0)
    model.fit(X, y, sample_weight=weight)
    assert_optimal(model, fits[-1], reference, best, TOL)


@pytest.mark.parametrize("preconditioner", ["kronecker", "diagonal"])
def test_pairs_of_epochs_mend_a_preconditioner_that_misses_curvature(preconditioner, monkeypatch):
    """As those of L-BFGS do: raw digits are far from the minimum after 100 epochs without."""
    X, y = load_digits(return_X_y=True)
    model = SoftmaxFCClassifier(
        solver="sgd", batch_size=112, preconditioner=preconditioner, random_state=0, max_iter=100
    )
    model.fit(X, y)
    assert model.n_iter_ < 100
    value = model.loss_curve_[-1]
    monkeypatch.setattr(_sgd, "remembered", lambda *_: [])
    with pytest.warns(ConvergenceWarning, match="max_iter=100"):
        model.fit(X, y)
    assert model.loss_curve_[-1] > 1.005 * value


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_mini_batches_of_the_textbook(scaled, momentum):
    """A number as the rate: a loop over the same batches, in the coefficients of X as it is."""
    X, y = scaled
    X, n = X * problems.RAW_SCALE[[2, 3, 4, 5]] + 3.0, len(y)
    model = limited(
        X, y, 3, solver="sgd", preconditioner=None, C=0.5, learning_rate=2e-3, momentum=momentum,
        batch_size=25, random_state=0,
    )  # fmt: skip
    X1, Y = np.column_stack([X, np.ones(n)]), one_hot(y)
    penalty = np.append(np.full(X.shape[1], 1 / (0.5 * n)), 0.0)[:, None]
    theta = np.zeros((X1.shape[1], Y.shape[1]))
    rng = np.random.default_rng(np.random.RandomState(0).randint(2**31 - 1))
    for _ in range(3):
        velocity = 0.0 * theta
        for rows in np.array_split(rng.permutation(n), round(n / 25)):
            look = theta + momentum * velocity
            residual = softmax(X1[rows] @ look, axis=1) - Y[rows]
            gradient = X1[rows].T @ residual / len(rows) + penalty * look
            velocity = momentum * velocity - 2e-3 * gradient
            theta = theta + velocity
    assert_allclose(model.coef_, theta[:-1].T - theta[:-1].T.mean(axis=0), atol=1e-12)
    assert_allclose(model.intercept_, theta[-1] - theta[-1].mean(), atol=1e-12)


def test_the_order_is_drawn(scaled):
    X, y = scaled
    options = {"solver": "sgd", "batch_size": 25}
    one, same, other = (
        limited(X, y, 2, **options | {"random_state": seed}).coef_
        for seed in (0, np.random.RandomState(0), 1)
    )
    assert_array_equal(same, one)
    assert not np.array_equal(other, one)


@pytest.mark.parametrize("size", ["auto", "all"])
def test_a_batch_of_all_rows_is_gradient_descent(scaled, size):
    X, y = scaled
    size = len(y) if size == "all" else size
    model = SoftmaxFCClassifier(solver="sgd", batch_size=size, momentum=0.7).fit(X, y)
    full = SoftmaxFCClassifier(solver="gd", momentum=0.7).fit(X, y)
    assert model.solver_ == "sgd"
    assert_array_equal(model.coef_, full.coef_)


def test_a_constant_rate_ends_in_a_cloud(scaled):
    """With a warning, and a gap that is no less than the true one; a lower rate ends nearer."""
    X, y = scaled
    reference = Reference(X, one_hot(y))
    best, gaps = reference.value(*reference.minimise()[:2]), []
    for rate in (0.2, 0.02):
        model = SoftmaxFCClassifier(
            solver="sgd", batch_size=25, learning_rate=rate, momentum=0, random_state=0
        )
        with pytest.warns(
            ConvergenceWarning, match=r"epochs of mini-batches.*Lower learning_rate"
        ):
            model.fit(X, y)
        gaps.append(reference.value(model.coef_, model.intercept_) / best - 1)
        assert model.optimality_gap_ > gaps[-1] / HONEST
        assert TUNED.patience < model.n_iter_ < 1000
    assert gaps[1] < 0.3 * gaps[0]
    with pytest.raises(ValueError, match=r"learning_rate=1000\.0.*Lower it"):
        model.set_params(learning_rate=1e3, C=1e-3, preconditioner=None).fit(X, y)


@pytest.mark.parametrize("bad", [0, -1, 2.5, "all", None, True])
def test_bad_batch_sizes(scaled, bad):
    with pytest.raises((TypeError, ValueError), match=f"'batch_size'.*'auto' or an int.*{bad}"):
        SoftmaxFCClassifier(batch_size=bad).fit(*scaled)


def test_wide_batches_have_no_blocks(rng):
    for N, name in ((200, "block-diagonal"), (600, "kronecker")):
        objective = make_objective(rng.standard_normal((4000, N)), np.arange(4000) % 10)
        assert choose(objective) == "block-diagonal"
        assert choose(objective, in_batches=True) == name


def test_rows_of_a_batch():
    def size(n, N, T=3, values=None):
        rows = SimpleNamespace(shape=(n, N), n_values=values or n * N, n_classes=T)
        return rows_of_batch(SimpleNamespace(rows=rows, shape=(N + 1, T)))

    assert size(4000, 50) == 512
    assert size(160_000, 50) == 10_000
    assert size(16_000_000, 512) * 512 * 8 == 2**24
    assert size(16_000, 100_000, values=16_000 * 100) == 3333


def test_many_heavy_tailed_rows(rng):
    """L-BFGS is given up where it is slow and the Hessian of all rows costs a few passes."""
    X = rng.standard_t(1.5, (4000, 5))
    X[:, 4] = np.exp(np.clip(X[:, 4], -12, 12))
    logits = np.clip(X, -30, 30) @ rng.standard_normal((5, 4))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    with override(few_numbers=10**5):  # as if the rows were many
        method = Method().choose(make_objective(X, y))
        assert (method.solver, method.other) == ("lbfgs", "newton-cg")
        model = SoftmaxFCClassifier().fit(X, y)
    assert model.solver_ == "newton-cholesky"
    assert model.n_iter_ <= TUNED.patience
    exact = SoftmaxFCClassifier(solver="newton-cholesky").fit(X, y)
    assert_allclose(model.loss_curve_[-1], exact.loss_curve_[-1], rtol=10 * model.tol)


# -- L-BFGS -------------------------------------------------------------------------------


@pytest.fixture
def two_problems(rng):
    """An objective of two problems, and iterates (P, 2 T) of it."""
    X, y = problems.overlapping(80, 3, raw=False)
    objective = make_objective(X, y, C=[0.5, 50.0])
    thetas = [zero_mean(rng.standard_normal(objective.shape), 3) for _ in range(5)]
    return objective, [objective.at(0.3 * theta) for theta in thetas]


def dense_inverse(objective, preconditioner, b):
    """The inverse of M of problem b as a matrix (P T, P T)."""
    columns, (P, K) = objective.columns([b]), objective.shape
    out = []
    for e in np.eye(P * len(columns)):
        v = np.zeros((P, K))
        v[:, columns] = e.reshape(P, -1)
        out.append(preconditioner.solve(v)[:, columns].ravel())
    return np.column_stack(out)


@pytest.mark.parametrize("name", ["hessian", "kronecker", "diagonal"])
def test_the_two_loops_are_the_dense_recursion(two_problems, name, rng):
    """H <- (I - rho s yᵀ) H (I - rho y sᵀ) + rho s sᵀ, from the inverse of M (BFGS)."""
    objective, iterates = two_problems
    preconditioner = make(objective, name)
    preconditioner.update(objective, iterates[0])
    pairs = [pair(objective, a, b) for a, b in pairwise(iterates)]
    # Where no step was taken a pair says nothing, and the recursion leaves it out.
    s, y, rho = pairs[1]
    pairs[1] = s, y, rho * [1.0, 0.0]
    v = zero_mean(rng.standard_normal(objective.shape), 3)
    found = inverse_product(objective, preconditioner, pairs, v)
    for b in range(2):
        columns, H = objective.columns([b]), dense_inverse(objective, preconditioner, b)
        for k, (s, y, _) in enumerate(pairs):
            if (b, k) == (1, 1):
                continue
            s, y = s[:, columns].ravel(), y[:, columns].ravel()
            rho = 1 / (s @ y)
            left = np.eye(len(s)) - rho * np.outer(s, y)
            H = left @ H @ left.T + rho * np.outer(s, s)
        expected = (H @ v[:, columns].ravel()).reshape(len(v), -1)
        assert_allclose(found[:, columns], expected, atol=1e-10 * np.abs(expected).max())


def test_the_last_pair_is_fulfilled(two_problems):
    """The secant equation: the inverse turns the last change of the gradient into the step."""
    objective, iterates = two_problems
    preconditioner = make(objective, "kronecker")
    preconditioner.update(objective, iterates[0])
    pairs = [pair(objective, a, b) for a, b in pairwise(iterates)]
    s, y, _ = pairs[-1]
    found = inverse_product(objective, preconditioner, pairs, y)
    assert_allclose(found, s, atol=1e-10 * np.abs(s).max())


def test_problems_leave_lock_step_one_by_one(two_problems):
    """Those that go on take the steps that they would have taken alone."""
    objective, _ = two_problems

    def iterates(objective, n, keep=None):
        preconditioner = make(objective, "kronecker")
        solver = lbfgs(objective, preconditioner, np.zeros(objective.shape))
        seen, change = [], None
        for k in range(n):
            seen.append(solver.send(change).evaluation)
            change = Change(keep=keep) if k == 3 and keep is not None else GO_ON
        solver.close()
        return seen

    for b in (0, 1):
        together = iterates(objective, 8, keep=np.array([b]))
        alone = iterates(objective.problems(np.array([b]))[0], 8)
        assert together[3].theta.shape == objective.shape
        for one, other in zip(together[4:], alone[4:], strict=True):
            assert_allclose(one.theta, other.theta, rtol=1e-8, atol=1e-10)
            assert_allclose(one.value, other.value, rtol=1e-12)


# -- Newton -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kronecker", "block-diagonal", "diagonal"])
def test_newton_steps_promise_no_more_than_there_is(name):
    """Rows that are wrong for sure have a gradient and no curvature: steps are damped."""
    X, y = np.eye(60), np.arange(60) % 3
    objective = make_objective(X, y, C=1e6)
    wrong = np.zeros(objective.shape)
    # Rows of an identity, standardised: one feature each has a value far from the others.
    wrong[np.arange(30), y[:30]] = -20.0 * X.std(axis=0)[0]
    for theta, damped in ((wrong, True), (-wrong, False)):
        evaluation = objective.at(theta)
        found, damping, most = damped_step(
            objective, make(objective, name), evaluation, 0, False, least=2
        )
        assert 0 < found.decrement[0] <= evaluation.value[0]
        # In a good preconditioner the later of its steps are left out instead.
        assert (damping > 0) == (damped and name == "diagonal")
        ends = [objective.at(theta - t * found.step).value[0] for t in (1.0, 0.1)]
        assert min(ends) < evaluation.value[0]
        assert found.decrement[0] <= most[0] <= evaluation.value[0]


@pytest.mark.parametrize("damping", [0, 1, 3])
def test_a_damped_step_bounds_the_decrement_without_damping(damping):
    """A penalty f times as strong has a Hessian at most f times as large."""
    X, y = problems.overlapping(200, 6, raw=False)
    objective = make_objective(X, y, C=1e-2)
    evaluation = objective.at(np.zeros(objective.shape))
    preconditioner = make(objective, "diagonal")
    found, _, most = damped_step(objective, preconditioner, evaluation, damping, False, least=50)
    preconditioner.update(objective, evaluation)
    newton_decrement = newton_step(
        objective, objective.hessian(evaluation), evaluation.gradient, preconditioner.solve,
        share=1e-6, least=50, most=100,
    ).decrement  # fmt: skip
    assert found.decrement[0] <= newton_decrement[0] * (1 + 1e-6)
    assert newton_decrement[0] <= most[0] * (1 + TUNED.share_to_come)
    if not damping:
        assert most[0] == found.decrement[0]


def test_steps_that_go_too_far_are_damped(monkeypatch):
    """A feature lit in one row, some decided too well: a Newton step goes far beyond."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((300, 3)), np.zeros((300, 20))])
    X[np.arange(20), 3 + np.arange(20)] = 1.0
    y = rng.integers(3, size=300)
    objective = make_objective(X, y, C=1e4)
    coef = np.zeros((3, 23))
    coef[y[:20], 3 + np.arange(20)] = np.linspace(2.0, 30.0, 20)
    theta = objective.rows.frame.from_user(coef, np.zeros(3))
    seen = []

    def step(*args, **kwargs):
        found = damped_step(*args, **kwargs)
        seen.append(found[1])
        return found

    monkeypatch.setattr("skfc.solvers._newton.damped_step", step)
    solver = newton(objective, make(objective, "block-diagonal"), theta)
    iterate = next(solver)
    while iterate.decrement[0] > 1e-10 * iterate.evaluation.value[0] and len(seen) < 60:
        iterate = solver.send(GO_ON)
    solver.close()
    assert any(seen)
    assert len(seen) < 25


def test_a_step_that_fails_is_tried_in_a_new_preconditioner(monkeypatch):
    """Where a step of an old preconditioner lowers nothing, that is no end yet."""
    X, y = problems.overlapping(200, 6, raw=False)
    objective = make_objective(X, y)
    preconditioner = make(objective, "diagonal")
    preconditioner.price = 1e9  # never due of itself
    solver = newton(objective, preconditioner, np.zeros(objective.shape))
    first = next(solver)
    for _ in range(2):
        iterate = solver.send(GO_ON)
    assert not preconditioner.is_fresh(iterate.evaluation)
    assert iterate.newton is None  # nor does its decrement confirm anything

    def no_step(line, wolfe=None):
        return np.zeros(1)

    monkeypatch.setattr("skfc.solvers._newton.search", no_step)
    again = solver.send(GO_ON)
    assert preconditioner.is_fresh(again.evaluation)
    assert not again.stalled.any()
    assert again.newton is not None
    assert again.evaluation.value == iterate.evaluation.value < first.evaluation.value
    damped = solver.send(GO_ON)  # the new one has found none either
    assert not damped.stalled.any()
    assert damped.newton is None
    assert solver.send(GO_ON).stalled.all()  # nor has a damped one


def test_newton_steps_that_promise_as_little_as_the_last_take_more_products(monkeypatch):
    """Raw numbers beside rare categories: a few products see nothing of some of these."""
    rng, n = np.random.default_rng(2), 3000
    age = np.where(rng.random(n) < 0.1, 53.5, rng.integers(18, 90, n))
    income, codes, town = (
        rng.lognormal(10, 1, n),
        rng.integers(0, 99_999, n),
        rng.integers(0, 8, n),
    )
    categories = [
        sparse.csr_array((np.ones(n), np.unique(c, return_inverse=True)[1], np.arange(n + 1)))
        for c in (town, codes)
    ]
    X = sparse.hstack([np.column_stack([age, income]), *categories]).tocsr()
    y = np.where(income > 30_000, 0, np.where(age > 50, 1, 2))
    steps, search = [], _newton.search

    def count(*arguments):
        steps.append(search(*arguments))
        return steps[-1]

    monkeypatch.setattr(_newton, "search", count)
    SoftmaxFCClassifierCV(Cs=10, cv=5).fit(X, y)
    assert len(steps) < 12 * 50  # fits of folds; 984 without the rule
