"""Every solver finds the same optimum; gradient descent is the textbook's."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Reference, one_hot
from scipy import sparse
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from threadpoolctl import threadpool_limits

from skfc import SoftmaxFCClassifier, neg_log_loss_scorer
from skfc._design import make_design
from skfc._metric import make_metric
from skfc._objective import Objective
from skfc._parameters import PRECONDITIONERS
from skfc.solvers import SOLVERS
from skfc.solvers._gd import ACCURACY, largest_curvature
from skfc.solvers._iterate import Start
from skfc.solvers._newton_cg import believable_step, level_of, newton_cg

TOL = 1e-8
# What optimality_gap_ promises: right within a factor of ten.
HONEST = 10


def known(make, **options):
    p = make(**options)
    Y = p.y if p.y.ndim == 2 else one_hot(p.y)
    return p.X, p.y, p.weight, p.C, Y


def drawn(C, **options):
    X, y = problems.overlapping(**options)
    return X, y, np.linspace(0.0, 2.0, len(y)), C, one_hot(y)


# name: X, y, weights, C and the targets of the reference
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
    solved = {}

    def find(name):
        if name not in solved:
            problem = X, _, weight, C, Y = PROBLEMS[name]()
            reference = Reference(X, Y, weight, C=C)
            solved[name] = problem, reference, reference.minimise()
        return solved[name]

    return find


def assert_optimal(model, reference, best, tol):
    """`tol` is met, and the gap that the model states is the gap that it has."""
    coef, intercept, value = best
    gap = reference.distance((coef, intercept), (model.coef_, model.intercept_)) / value
    assert model.optimality_gap_ <= tol
    assert gap <= HONEST * tol
    rounding = 1e-12 if model.coef_.dtype == np.float64 else tol
    assert gap <= HONEST * model.optimality_gap_ + rounding
    assert model.optimality_gap_ <= HONEST * gap + rounding


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_optimum(solver, preconditioner, name, optimum):
    if preconditioner is None and name.startswith(("raw", "soft")):
        name = "scaled"  # what the textbook's gradient asks for
    (X, y, weight, C, _), reference, best = optimum(name)
    model = SoftmaxFCClassifier(
        solver=solver, preconditioner=preconditioner, C=C, tol=TOL, max_iter=5000
    ).fit(X, y, sample_weight=weight)
    assert model.solver_ == solver
    assert_optimal(model, reference, best, TOL)
    end = reference.value(model.coef_, model.intercept_)
    assert_allclose(model.loss_curve_[-1], end, rtol=1e-10)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, TOL), (np.float32, 1e-4)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_optimum_in_every_container(solver, dtype, tol, container, optimum, tmp_path):
    (X, y, weight, C, _), reference, best = optimum("raw")
    X = CONTAINERS[container](X.astype(dtype), tmp_path)
    before = X.copy()
    model = SoftmaxFCClassifier(solver=solver, C=C, tol=tol).fit(X, y, sample_weight=weight)
    assert model.coef_.dtype == dtype
    assert_optimal(model, reference, best, tol)
    assert (before != X).sum() == 0


CHECKED = [
    *(SoftmaxFCClassifier(solver=solver) for solver in SOLVERS),
    SoftmaxFCClassifier(solver="newton-cg", preconditioner="diagonal"),
    SoftmaxFCClassifier(solver="gd", preconditioner="diagonal", momentum=0.5),
]
checks = parametrize_with_checks(CHECKED)
names, cases = checks.args


@pytest.mark.parametrize(names, list(cases), **checks.kwargs)
def test_estimator_checks(estimator, check):
    check(estimator)


# On data that lie a hundred standard deviations from zero it says that it has not converged.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_checks_of_the_textbook():
    check_estimator(SoftmaxFCClassifier(solver="gd", preconditioner=None))


# -- threads and processes --------------------------------------------------------------


@pytest.mark.parametrize("container", ["C", "CSR"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_fits_in_threads(solver, container, tmp_path):
    X, y = problems.overlapping(2000, 10)
    X = CONTAINERS[container](X, tmp_path)
    models = [SoftmaxFCClassifier(solver=solver, C=C) for C in (0.01, 1.0, 100.0, np.inf)]
    # How many threads BLAS has decides how it rounds, and fits that run together share them.
    with threadpool_limits(1, user_api="blas"):
        alone = [model.fit(X, y).coef_ for model in models]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda model: model.fit(X, y).coef_, models))
    for a, b in zip(alone, together, strict=True):
        assert_array_equal(b, a)


@pytest.mark.parametrize("solver", SOLVERS)
def test_searches_on_two_processes(solver):
    X, y = problems.overlapping()
    search = GridSearchCV(
        SoftmaxFCClassifier(solver=solver), {"C": [0.1, 1.0, 10.0]},
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


@pytest.mark.parametrize("n_iter", [0, 1, 2, 40])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_the_textbook(scaled, momentum, n_iter):
    X, y = scaled
    model = limited(
        X, y, n_iter, solver="gd", preconditioner=None, C=0.5, learning_rate=0.3, momentum=momentum
    )
    coef, intercept = descend(X, y, 0.5, 0.3, momentum, n_iter)
    assert model.n_iter_ == n_iter
    assert_allclose(model.coef_, coef, atol=1e-12)
    assert_allclose(model.intercept_, intercept, atol=1e-12)


def mean_objective(X, y, C, fit_intercept=True):
    return Objective(
        make_design(X), y, np.linspace(0.5, 1.5, len(y))[None], np.array([C]),
        n_classes=y.max() + 1, fit_intercept=fit_intercept,
    )  # fmt: skip


@pytest.mark.parametrize("C", [1e-4, 1.0, np.inf])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("shape", [(300, 4, 3), (100, 1, 2), (60, 40, 6), (30, 200, 3)])
def test_the_bound_of_the_curvature(shape, fit_intercept, C):
    """Against the eigenvalues of ½ (I - 11ᵀ/T) ⊗ XᵀSX/s + λ."""
    X, y = problems.overlapping(*shape)
    X1 = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    weight = np.linspace(0.5, 1.5, len(y))
    total, T = weight.sum(), shape[2]
    bound = np.kron((np.eye(T) - 1 / T) / 2, X1.T @ (X1 * weight[:, None]) / total)
    penalty = np.full(X1.shape[1], 1 / (C * total))
    if fit_intercept:
        penalty[-1] = 0
    largest = np.linalg.eigvalsh(bound + np.kron(np.eye(T), np.diag(penalty)))[-1]
    found = largest_curvature(mean_objective(X, y, C, fit_intercept))
    assert largest * (1 - 1e-9) <= found <= largest * (1 + ACCURACY)


def test_the_rate_without_a_number(scaled):
    """The first step from zero is the gradient over the bound."""
    X, y = scaled
    model = limited(X, y, 1, solver="gd", preconditioner=None, momentum=0)
    objective = Objective(
        make_design(X), y, np.ones((1, len(y))), np.array([1.0]), n_classes=y.max() + 1
    )
    coef, intercept = descend(X, y, 1.0, 1 / largest_curvature(objective), 0, 1)
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


def test_a_metric_takes_the_units_out(scaled):
    X, y = scaled
    raw = problems.overlapping()[0]
    for name in PRECONDITIONERS[:-1]:
        iterations = count(raw, y, preconditioner=name)
        assert iterations == count(X, y, preconditioner=name) < 50


def test_no_metric_on_huge_raw_data():
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


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not SOLVERS[s].options])
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
    for solver in SOLVERS:
        with pytest.raises(error, match=f"{name}.*'auto' or a number.*{bad}"):
            SoftmaxFCClassifier(solver=solver, **{name: bad}).fit(*scaled)


def test_newton_cg_comes_from_a_penalty_whose_model_holds():
    """A word for every text and a large C: the model at the start promises too much."""
    X, y = np.eye(60), np.arange(60) % 10
    design, weight = make_design(X), np.ones((1, len(y)))

    def level(C, V=None):
        objective = Objective(design, y, weight, np.array([C]), n_classes=10)
        metric = make_metric(objective, "diagonal")
        point = objective.at(np.zeros(objective.shape) if V is None else V)
        metric.refresh(point)
        return level_of(objective, metric, point)

    levels = [level(C) for C in (1e-6, 1e3, 1e6, np.inf)]
    assert levels[0] == levels[3] == 0  # nothing to raise without a penalty
    assert 0 < levels[1] < levels[2] <= levels[1] + 3
    clf = SoftmaxFCClassifier(C=1e3, solver="newton-cg", tol=1e-6).fit(X, y)
    assert level(1e3, np.vstack([clf.coef_.T, clf.intercept_])) == 0


@pytest.mark.parametrize("metric", ["kronecker", "block-diagonal", "diagonal"])
def test_newton_steps_promise_no_more_than_there_is(metric):
    """Rows that are wrong for sure have a gradient and no curvature: steps are damped."""
    X, y = np.eye(60), np.arange(60) % 3
    objective = Objective(make_design(X), y, np.ones((1, 60)), np.array([1e6]), n_classes=3)
    wrong = np.zeros(objective.shape)
    wrong[np.arange(30), y[:30]] = -20.0
    for V, damped in ((wrong, True), (-wrong, False)):
        point = objective.at(V)
        step, decrement, _, damping = believable_step(
            objective, make_metric(objective, metric), point, np.float64, np.inf, 0,
            share=0.1, steps=(2, 50),
        )  # fmt: skip
        assert 0 < decrement[0] <= point.value[0]
        # In a good metric the later of its steps are left out instead.
        assert (damping > 0) == (damped and metric == "diagonal")
        assert min(objective.at(V - t * step).value[0] for t in (1.0, 0.1)) < point.value[0]


def test_a_gap_is_confirmed_in_blocks_of_its_own_point():
    X, y = problems.overlapping(200, 6, raw=False)
    objective = Objective(make_design(X), y, np.ones((1, 200)), np.array([1.0]), n_classes=3)
    metric = make_metric(objective, "block-diagonal")
    points = [objective.at(np.full(objective.shape, 0.1) * k) for k in range(2)]
    metric.update(objective, points[0])
    assert not metric.renew(points[0])  # the Kronecker form is taken at every point
    metric.steps = 10**6
    metric.update(objective, points[1])
    assert not metric.renew(points[1])
    before = metric.grams
    assert not metric.renew(points[0])  # old blocks do, while steps go as far as they should
    metric.strain()
    assert metric.renew(points[0])
    assert not metric.renew(points[0])
    assert metric.grams is not before


def test_a_warm_start_is_not_believed_in_the_kronecker_form():
    X, y = problems.overlapping(200, 6, raw=False)
    objective = Objective(make_design(X), y, np.ones((1, 200)), np.array([1.0]), n_classes=3)
    metric = make_metric(objective, "block-diagonal")
    point = objective.at(np.full(objective.shape, 0.1))
    metric.update(objective, point)
    assert metric.grams is None
    assert metric.renew(point)
    assert metric.grams is not None


def test_what_float32_has_led_up_from_the_start_starts_again():
    X, y = problems.overlapping(200, 6, raw=False)
    weight = np.ones((2, 200))
    exact = Objective(make_design(X), y, weight, np.array([1.0, 1.0]), n_classes=3)
    start = Start(np.zeros(exact.shape), exact.at(np.zeros(exact.shape)).value)
    down = -0.1 * exact.at(start.weights).gradient
    astray = down * np.repeat([1.0, -1.0], 3)
    point = start.settle(exact, astray.copy())
    assert_array_equal(point.weights[:, :3], down[:, :3])
    assert_array_equal(point.weights[:, 3:], 0.0)
    assert_array_equal(point.value, exact.at(point.weights).value)
    last = start.take(np.array([1]), exact.columns(np.array([1])))
    assert_array_equal(last.value, start.value[1:])
    assert_array_equal(last.weights, start.weights[:, 3:])


def test_steps_that_go_too_far_are_damped():
    """A feature lit in one row, some decided too well: a Newton step goes far beyond."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((300, 3)), np.zeros((300, 20))])
    X[np.arange(20), 3 + np.arange(20)] = 1.0
    y = rng.integers(3, size=300)
    objective = Objective(make_design(X), y, np.ones((1, 300)), np.array([1e4]), n_classes=3)
    V = np.zeros(objective.shape)
    V[3 + np.arange(20), y[:20]] = np.linspace(2.0, 30.0, 20)
    metric = make_metric(objective, "block-diagonal")
    seen, solver = [], newton_cg(objective, metric, V)
    iterate = next(solver)
    while iterate.decrement[0] > 1e-10 * iterate.point.value[0] and len(seen) < 60:
        seen.append(iterate.decrement[0] == iterate.point.value[0])
        iterate = solver.send(None)
    solver.close()
    assert any(seen[1:])  # damped steps say nothing of the end
    assert len(seen) < 25


def test_gradients_wait_for_the_step_where_products_are_heavy(monkeypatch):
    """The same iterates, and half a pass less for every step that is not one."""
    X, y = problems.overlapping(300, 12)
    passes, paths = [], []
    for many in (1, 10**6):
        monkeypatch.setattr("skfc._objective.HEAVY_FEATURES", many)
        monkeypatch.setattr("skfc._objective.HEAVY_CLASSES", many)
        objective = Objective(make_design(X), y, np.ones((1, 300)), np.array([1e4]), n_classes=3)
        assert objective.is_heavy == (many == 1)
        solver = newton_cg(
            objective, make_metric(objective, "kronecker"), np.zeros(objective.shape)
        )
        paths.append([next(solver).point.value[0] for _ in range(12)])
        passes.append(objective.work.passes)
    assert_allclose(*paths, rtol=1e-9)
    assert passes[0] < passes[1]
