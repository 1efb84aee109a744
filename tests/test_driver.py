"""The driver: why fits end, what monitors see, and what is asked of a solver."""

import warnings
from dataclasses import replace

import numpy as np
import problems
import pytest
from core import SMOOTH, make_iterate, make_objective, standardised
from golden import count_work
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize
from sklearn.exceptions import ConvergenceWarning

from benchmarks import families
from skfc import SoftmaxFCClassifier, _driver, _gaps, _margins, _optimality, _outcome, _separation
from skfc._conjugate_gradients import NewtonStep
from skfc._driver import Run
from skfc._fits import solve
from skfc._method import Method
from skfc._monitors import Quiet
from skfc._outcome import Status
from skfc._preconditioner import make
from skfc._problem import Problem
from skfc._targets import Targets
from skfc._tuned import override
from skfc.solvers import Solver

SOLVER_NAMES = sorted(SMOOTH)


@pytest.fixture(autouse=True)
def arithmetic():
    """As in a fit: overflow and dividing by zero are no warnings."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def data():
    return problems.overlapping(120, 4, 3, raw=False)


def run(objective, solver="lbfgs", preconditioner="kronecker", theta=None, **options):
    """The list of fits; `solver` is a name or a generator function."""
    solver = SMOOTH[solver] if isinstance(solver, str) else Solver(solver, batched=True)
    options = {"tol": 1e-8, "max_iter": 200} | options
    theta = np.zeros(objective.shape) if theta is None else theta
    preconditioner = make(objective, preconditioner, solver.exact)
    return Run(solver, objective, preconditioner, theta, **options).run()


def scripted(iterates):
    """A solver that yields these iterates, whatever it is told; the last one for ever."""

    def solver(objective, preconditioner, theta):
        for k, iterate in enumerate(iterates):
            yield replace(iterate, n_iter=k)
        k = len(iterates)
        while True:
            yield replace(iterates[-1], n_iter=k)
            k += 1

    return solver


def path_to(objective, n, name="hessian"):
    """Iterates of Newton's method from zero, with decrements that are right."""
    theta, found = np.zeros(objective.shape), []
    for _ in range(n):
        iterate = make_iterate(objective, theta, make(objective, name))
        found.append(iterate)
        theta = theta - iterate.precondition(iterate.evaluation.gradient)
    return found


class Seen(Quiet):
    """A monitor that writes down what it sees."""

    def __init__(self, work=None):
        self.seen, self.ended, self.work, self.products = [], None, work, []

    def step(self, progress):
        self.seen.append(progress)
        if self.work is not None:
            self.products.append(self.work.products)

    def end(self, fits):
        self.ended = list(fits)


# -- statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_a_fit_converges(data, solver):
    objective = make_objective(*data)
    (fit,) = run(objective, solver)
    assert fit.status is Status.CONVERGED
    assert 0 <= fit.gap <= 1e-8
    assert len(fit.loss_curve) == fit.n_iter + 1
    assert_allclose(fit.loss_curve[0], objective.at(np.zeros(objective.shape)).value[0])
    assert_allclose(fit.loss_curve[-1], objective.at(fit.theta).value[0], rtol=1e-12)
    assert fit.loss_curve[-1] <= fit.value <= fit.loss_curve[-1] * (1 + 1.001 * fit.gap)


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-10])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0, np.inf])
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_the_loss_falls(data, solver, C, tol):
    (fit,) = run(make_objective(*data, C=C), solver, "diagonal", tol=tol)
    curve = np.array(fit.loss_curve)
    assert fit.status is Status.CONVERGED
    assert (np.diff(curve) <= 2e-14 * curve[:-1]).all()
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("max_iter", [0, 1, 3])
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_max_iter_ends_a_fit(data, solver, max_iter):
    objective = make_objective(*data)
    (fit,) = run(objective, solver, "diagonal", max_iter=max_iter, tol=1e-14)
    assert fit.status is Status.MAX_ITER
    assert fit.n_iter == max_iter
    assert len(fit.loss_curve) == max_iter + 1
    if max_iter == 0:
        assert_array_equal(fit.theta, np.zeros(objective.shape))
    (best,) = run(objective, "lbfgs", tol=1e-12)
    gap = fit.loss_curve[-1] / best.loss_curve[-1] - 1
    assert gap / 10 <= fit.gap <= 10 * gap


def test_a_fit_that_starts_at_the_end_takes_no_step(data):
    objective = make_objective(*data)
    (best,) = run(objective, tol=1e-12)
    for solver in SOLVER_NAMES:
        (fit,) = run(objective, solver, theta=best.theta, max_iter=0)
        assert fit.status is Status.CONVERGED
        assert fit.n_iter == 0
        assert_array_equal(fit.theta, best.theta)


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_a_fit_ends_at_the_floor_of_the_arithmetic(data, solver):
    (fit,) = run(make_objective(*data), solver, tol=0.0)
    assert fit.status is Status.FLOOR
    assert fit.gap <= 1e-12


def test_where_no_step_lowers_far_above_the_floor_a_fit_is_stuck(data):
    objective = make_objective(*data)
    start = path_to(objective, 1)[0]
    stuck = replace(start, stalled=np.ones(1, dtype=bool))
    with override(hessian_size=0):
        (fit,) = run(objective, scripted([start, stuck]))
    assert fit.status is Status.STUCK
    assert fit.n_iter == 1
    assert fit.gap > 1e-3


def test_where_the_hessian_is_small_a_stuck_fit_ends_where_newton_leads(data):
    objective = make_objective(*data)
    start = path_to(objective, 1)[0]
    stuck = replace(start, stalled=np.ones(1, dtype=bool))
    (fit,) = run(objective, scripted([start, stuck]))
    (best,) = run(objective, tol=1e-12)
    assert fit.status is Status.CONVERGED
    assert fit.proven
    assert fit.gap <= 1e-8
    assert fit.value == fit.loss_curve[-1]
    assert fit.value / best.loss_curve[-1] - 1 <= fit.gap
    assert_allclose(objective.at(fit.theta).value[0], fit.value, rtol=1e-14)


@pytest.mark.parametrize(
    ("solver", "preconditioner"), [("lbfgs", "diagonal"), ("gd", "kronecker")]
)
def test_a_fit_in_doubt_ends_by_a_proof_of_newton_steps(solver, preconditioner):
    """After some iterations these bound the minimum, which tells the gaps of all that follow."""
    objective, options = make_objective(*problems.far_rows(0, 1e8), C=10.0), {"max_iter": 1000}
    (fit,) = run(objective, solver, preconditioner, tol=1e-4, **options)
    (best,) = run(objective, "newton-cholesky", tol=1e-10, **options)
    gap = fit.value / best.loss_curve[-1] - 1
    assert best.proven
    assert fit.status is Status.CONVERGED
    assert fit.proven
    assert gap - 1e-9 <= fit.gap <= gap + 1e-5
    with override(hessian_size=0):
        (alone,) = run(objective, solver, preconditioner, tol=1e-4, **options)
    assert fit.n_iter < alone.n_iter


def test_newton_steps_that_take_many_products_end_in_the_hessian_of_all_rows(data):
    """Where it is affordable, of however many rows."""
    objective = make_objective(*data, C=1e4)
    with override(few_numbers=1, block_price=0.0, patience=2):
        other = {"other": "newton-cg", "tol": 1e-9, "max_iter": 100}
        (fit,) = run(objective, "gd", "diagonal", **other)
    assert fit.switched == "newton-cholesky"
    assert fit.status is Status.CONVERGED
    assert fit.proven


def test_a_pause_is_no_end(data):
    """A solver may be without progress for 20 iterations, at one value, and then go on."""
    objective = make_objective(*data)
    path = path_to(objective, 9)
    (fit,) = run(objective, scripted([path[0]] + 20 * [path[1]] + path[2:]))
    assert fit.status is Status.CONVERGED
    assert fit.n_iter > 21


def test_patience_ends(data):
    """At the same value for ever, with decrements that fall no more."""
    objective = make_objective(*data)
    path = path_to(objective, 2)
    with override(hessian_size=0):
        (fit,) = run(objective, scripted(path), max_iter=1000)
    assert fit.status is Status.STUCK
    assert 21 < fit.n_iter <= 50
    # Decrements that fall are no progress where all of them together gain nothing.
    value = path[-1].evaluation.value
    small = [replace(path[-1], decrement=1e-9 * 0.5**k * value) for k in range(80)]
    with override(hessian_size=0):
        (fit,) = run(objective, scripted(small), max_iter=1000, tol=1e-4, suspicious=True)
    assert fit.n_iter <= 27
    # A value that goes on falling is progress, be it ever so slow.
    theta = path[0].evaluation.theta
    slow = [make_iterate(objective, theta - 1e-5 * k * path[0].evaluation.gradient,
                         make(objective, "hessian")) for k in range(60)]  # fmt: skip
    slow = [replace(iterate, decrement=slow[0].decrement) for iterate in slow]
    (fit,) = run(objective, scripted(slow), max_iter=59)
    assert fit.status is Status.MAX_ITER


def test_proven_gaps_that_fall_by_next_to_nothing_end(data):
    """Where rounding is all that is left of the value; by half each time they are progress."""
    objective = make_objective(*data)
    last = replace(path_to(objective, 9)[-1], proven=True)
    for share, ends in ((0.9999, Status.STUCK), (0.5, Status.CONVERGED)):
        gaps = [10 * share**k * last.evaluation.value for k in range(200)]
        iterates = [replace(last, decrement=gap) for gap in gaps]
        (fit,) = run(objective, scripted(iterates), tol=1e-12, max_iter=1000)
        assert fit.status is ends
        assert fit.n_iter <= 50


def test_problems_end_one_by_one(data):
    """Each at its own time, with its own curve: those that go on are those left."""
    X, y = data
    C = np.array([1e-4, 1.0, 1e4])
    fits = run(make_objective(X, y, C=C), "lbfgs", "kronecker", tol=1e-9)
    n_iter = [fit.n_iter for fit in fits]
    assert len(set(n_iter)) > 1
    for fit, c in zip(fits, C, strict=True):
        alone = make_objective(X, y, C=c)
        (best,) = run(alone, "lbfgs", "hessian", tol=1e-12)
        assert fit.status is Status.CONVERGED
        assert len(fit.loss_curve) == fit.n_iter + 1
        assert alone.at(fit.theta).value[0] <= best.loss_curve[-1] * (1 + 1e-8)


def test_values_that_are_no_numbers_end_in_an_error(data):
    objective = make_objective(*data)
    bad = replace(path_to(objective, 1)[0], decrement=np.array([np.nan]))
    with pytest.raises(ValueError, match="overflows: rescale its columns"):
        run(objective, scripted([bad]))


# -- gaps -----------------------------------------------------------------------------------


def test_an_end_is_confirmed_on_the_hessian(data):
    """A solver that says next to nothing is left is not believed."""
    objective = make_objective(*data)
    path = path_to(objective, 9)
    lies = [replace(i, decrement=1e-6 * i.decrement) for i in path]
    (fit,) = run(objective, scripted(lies), tol=1e-6)
    (best,) = run(objective, tol=1e-12)
    assert fit.status is Status.CONVERGED
    assert fit.loss_curve[-1] <= best.loss_curve[-1] * (1 + 1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_step_of_the_estimate_that_goes_further_is_taken(seed, monkeypatch):
    """With sentinels, few products of a poor preconditioner miss what more of them find."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((3000, 6))
    y = (X @ rng.standard_normal((6, 3)) + rng.gumbel(size=(3000, 3))).argmax(axis=1)
    for j, sentinel in enumerate([1e6, 1e9]):
        X[rng.random(3000) < 0.05, j] = sentinel
    clf = SoftmaxFCClassifier(C=1e3, solver="newton-cg", preconditioner="diagonal", tol=1e-6)
    n_iter = clf.fit(X, y).n_iter_
    assert clf.optimality_gap_ <= 1e-6
    monkeypatch.setattr(_gaps.Gaps, "take", lambda self: None)
    assert clf.fit(X, y).n_iter_ > 2 * n_iter


@pytest.mark.parametrize(("share", "taken"), [(0.5, True), (0.9, False)])
def test_the_step_of_an_estimate_is_taken_where_a_solver_has_left_much_out(data, share, taken):
    """An estimate may leave 0.3 of a decrement: less than that is no reason for another step."""
    objective, changes = make_objective(*data), []
    iterate = path_to(objective, 5)[-1]
    right = (iterate.decrement / iterate.evaluation.value)[0]

    def solver(objective, preconditioner, theta):
        change = yield replace(iterate, decrement=share * iterate.decrement)
        changes.append(change)
        yield replace(iterate, n_iter=1)

    run(objective, solver, tol=0.95 * right, max_iter=1)  # asked at the first, and not met
    (change,) = changes
    assert (change.newton is not None) == taken


def test_the_ratio_of_cheap_to_confirmed_is_kept(data):
    """One confirmation tells how much too small the solver's decrements are.

    The next ones are corrected by it: monitors see them so, and no iterate is confirmed in
    vain again.
    """
    objective = make_objective(*data, C=1e3)
    # Gradient descent in a good preconditioner: many small steps with decrements that fall.
    M, theta, steps = make(objective, "hessian"), np.zeros(objective.shape), []
    for _ in range(80):
        iterate = make_iterate(objective, theta, M)
        steps.append(iterate)
        theta = theta - 0.25 * iterate.precondition(iterate.evaluation.gradient)
    tol, share = 1e-6, 1e-4
    lies = [replace(i, decrement=share * i.decrement) for i in steps]
    seen = Seen(objective.rows.work)
    (fit,) = run(objective, scripted(lies), tol=tol, monitors=(seen,))
    confirmed = np.flatnonzero(np.diff(seen.products))
    assert fit.status is Status.CONVERGED
    right = np.array([i.decrement[0] / i.evaluation.value[0] for i in steps])
    first = np.flatnonzero(share * right <= tol)[0]
    last = np.flatnonzero(right <= tol)[0]
    assert last - first > 10  # so many iterates look as if they were the end
    assert first < fit.n_iter <= last + 3
    assert len(confirmed) <= 4
    gaps = np.array([progress.gap[0] for progress in seen.seen])
    assert_allclose(gaps[:first], share * right[:first], rtol=0.5)
    assert_allclose(gaps[first + 1 :], right[first + 1 : fit.n_iter + 1], rtol=0.5)


# -- monitors -------------------------------------------------------------------------------


def problem(X, y, **options):
    options = {"fit_intercept": True} | options
    return Problem(X, [Targets(np.arange(y.max() + 1), y, np.ones(len(y)))], **options)


class Stop(Seen):
    """Asks to stop at an iteration."""

    def __init__(self, n_iter):
        super().__init__()
        self.n_iter = n_iter

    def step(self, progress):
        super().step(progress)
        return progress.n_iter == self.n_iter


@pytest.mark.parametrize("n_iter", [0, 1, 2])
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_a_monitor_stops_a_fit(data, solver, n_iter):
    """At this iterate: with its coefficients, and a gap that is that of this iterate."""
    objective = make_objective(*data)
    stop, other = Stop(n_iter), Seen()
    (fit,) = run(objective, solver, "diagonal", monitors=(stop, other), tol=1e-14)
    assert fit.status is Status.STOPPED
    assert fit.n_iter == n_iter
    assert len(fit.loss_curve) == len(stop.seen) == len(other.seen) == n_iter + 1
    assert stop.ended == other.ended == [fit]
    assert_allclose(objective.at(fit.theta).value[0], fit.loss_curve[-1], rtol=1e-12)
    (best,) = run(objective, tol=1e-12)
    gap = fit.loss_curve[-1] / best.loss_curve[-1] - 1
    assert gap / 10 <= fit.gap <= 10 * gap


def test_a_fit_that_has_converged_was_not_stopped(data):
    objective = make_objective(*data)
    (best,) = run(objective)
    (fit,) = run(objective, monitors=(Stop(best.n_iter),))
    assert fit.status is Status.CONVERGED


@pytest.mark.parametrize("verdict", [None, False, 0])
def test_a_monitor_that_asks_for_nothing_changes_nothing(data, verdict):
    class Watch(Seen):
        def step(self, progress):
            super().step(progress)
            progress.coefficients()
            return verdict

    X, y = data
    method, C = Method(solver="lbfgs", preconditioner="kronecker"), np.ones(1)
    (plain,), _ = solve(problem(X, y), method, C)
    (fit,), _ = solve(problem(X, y), method, C, monitors=(Watch(),))
    assert_array_equal(fit.theta, plain.theta)
    assert fit.status is Status.CONVERGED


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_monitors_see_the_coefficients_of_the_user(solver, standardize):
    """Of X as it is, of zero mean over the classes: what `coef_` and `intercept_` will be."""
    X, y = problems.overlapping(200, 6, 3, raw=True)
    models = []

    class Watch(Seen):
        def step(self, progress):
            super().step(progress)
            models.append(progress.coefficients())

    method = Method(solver=solver, preconditioner="kronecker", tol=1e-8)
    watch = Watch()
    one = problem(X, y, standardize=standardize)
    solve(one, method, np.ones(1), monitors=(watch,))
    reference = SoftmaxFCClassifier(
        solver=solver, preconditioner="kronecker", tol=1e-8, standardize=standardize
    ).fit(X, y)
    assert len(models) == reference.n_iter_ + 1
    # One more Newton step ends the fit.
    scale = np.abs(reference.coef_).max(axis=0)
    assert_allclose(models[-1][0] / scale, reference.coef_ / scale, atol=1e-3)
    assert_allclose(models[-1][1], reference.intercept_, rtol=1e-3)
    assert_allclose(models[0][0], 0.0, atol=1e-300)
    scale = X.std(axis=0) if standardize else 1.0
    for (coef, intercept), progress in zip(models, watch.seen, strict=True):
        z = X @ coef.T + intercept
        loss = np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), y]
        value = loss.mean() + 0.5 * np.sum((coef * scale) ** 2) / len(y)
        assert_allclose(progress.value[0], value, rtol=1e-9)
        assert_allclose(coef.mean(axis=0) / np.abs(reference.coef_).max(axis=0), 0.0, atol=1e-12)


def test_monitors_see_who_is_left(data):
    X, y = data
    seen = Seen()
    fits = run(make_objective(X, y, C=[1e-4, 1.0, 1e4]), monitors=(seen,))
    assert [p.n_iter for p in seen.seen] == list(range(max(f.n_iter for f in fits) + 1))
    for progress in seen.seen:
        assert progress.n_problems == 3
        left = [k for k, fit in enumerate(fits) if fit.n_iter >= progress.n_iter]
        assert_array_equal(progress.problems, left)
        # The Newton step that ends a fit is no iteration.
        curves = [[*fits[k].loss_curve[:-1], fits[k].value][progress.n_iter] for k in left]
        assert_array_equal(progress.value, curves)
    assert seen.ended == fits


@pytest.mark.parametrize("preconditioner", ["diagonal", "kronecker"])
def test_a_proven_fit_ends_with_the_newton_step_at_hand(data, preconditioner):
    """As one that is estimated does, so that both are as close to the minimum."""
    (fit,) = run(make_objective(*data, C=1e-3), "newton-cg", preconditioner, tol=1e-5)
    (best,) = run(make_objective(*data, C=1e-3), "newton-cg", "hessian", tol=1e-12)
    assert fit.proven
    before, after = fit.value - best.value, fit.loss_curve[-1] - best.value
    assert after < 0.01 * before


@pytest.mark.parametrize("tol", [1e-1, 1e-3])
@pytest.mark.parametrize("C", [1.0, 100.0])
def test_a_fit_in_the_hessian_of_all_rows_ends_by_a_proof(data, C, tol):
    (fit,) = run(make_objective(*data, C=C), "lbfgs", "hessian", tol=tol)
    (best,) = run(make_objective(*data, C=C), "newton-cg", "hessian", tol=1e-12)
    assert fit.proven
    assert fit.value - best.value <= fit.gap * best.value * (1 + 1e-9) <= tol * best.value * 1.01


@pytest.mark.parametrize(("tol", "soon"), [(2e-3, True), (5e-4, False)])
def test_solvers_hear_that_the_next_iterate_is_likely_to_be_the_last(data, tol, soon):
    """At the pace of the last step: 0.01 of F after 0.1 leads to 0.001."""
    iterate, heard = path_to(make_objective(*data, C=1.0), 1)[0], []

    def solver(objective, preconditioner, theta):
        for k, share in enumerate((0.1, 0.01, 0.01)):
            decrement = share * iterate.evaluation.value
            change = yield replace(iterate, n_iter=k, decrement=decrement)
            heard.append(change.nearly_done)

    run(make_objective(*data, C=1.0), solver, tol=tol, max_iter=2)
    assert heard == [False, soon]


# -- separable classes ----------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_separable_classes_are_recognised(solver):
    X, y = problems.separable()
    (fit,) = run(make_objective(X, y, C=np.inf), solver)
    assert fit.status is Status.SEPARATED
    assert 0 < fit.loss_curve[-1] < 1e-2
    # A penalty has a minimum.
    (fit,) = run(make_objective(X, y, C=1e4), solver)
    assert fit.status is Status.CONVERGED


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_a_small_loss_is_no_separation(solver):
    """A row of next to no weight on the wrong side: the loss has a limit above zero.

    The class that has no such row is still separable from the other two: both solvers say so.
    """
    X, y = problems.separable()
    X, y = np.vstack([X, X[0]]), np.append(y, (y[0] + 1) % 3)
    weight = np.append(np.ones(len(y) - 1), 1e-6)
    objective = make_objective(X, y, weight, np.inf)
    fit = run(objective, solver)[0]
    assert fit.separation is not None
    assert not fit.separation.complete
    assert 0 < fit.loss_curve[-1] < 1e-3


@pytest.mark.parametrize("program", [True, False])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_a_mark_of_few_light_rows_is_quasi_separation(solver, program, rng):
    """Three rows of one class have a mark that no other has, whatever they weigh."""
    X = rng.standard_normal((200, 3))
    y = (X[:, 0] + rng.standard_normal(200) > 0).astype(int)
    X[:, 2] = 0.0
    X[np.flatnonzero(y == 1)[:3], 2] = 1.0
    weight = np.where(X[:, 2] == 1.0, 1e-3, 1.0)
    with override(largest_program=2**19 if program else 0):
        fit = run(make_objective(X, y, weight, np.inf), solver, tol=1e-10)[0]
    assert fit.separation is not None
    assert not fit.separation.complete
    assert fit.separation.classes.tolist() == [1]


def test_weights_of_many_sizes_take_few_iterations(rng):
    """Single precision is left where it lowers nothing, and L-BFGS not at its first step."""
    X = rng.standard_normal((40_000, 30))
    y = (X @ rng.standard_normal((30, 3)) + rng.gumbel(size=(40_000, 3))).argmax(axis=1)
    weight = np.exp(6 * rng.standard_normal(40_000))
    clf = SoftmaxFCClassifier(max_iter=30).fit(X, y, sample_weight=weight)
    assert clf.optimality_gap_ <= clf.tol


def marked(seed, of_one, n=2000, T=3):
    """Noisy labels, and a mark of a few rows of class 0, or of any."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4))
    y = (X[:, :T] + 2 * rng.gumbel(size=(n, T))).argmax(axis=1)
    X[:, 3] = 0.0
    X[np.flatnonzero(y == 0)[:5] if of_one else rng.choice(n, 20, replace=False), 3] = 1.0
    return X, y


@pytest.mark.parametrize("of_one", [True, False])
def test_a_program_that_has_no_end_leaves_separation_open(of_one, monkeypatch):
    """Rounding can keep a linear program from its end: that is no certainty, and balance is."""
    objective = make_objective(*marked(0, of_one), C=np.inf)
    theta = np.zeros(objective.shape)
    iterate = make_iterate(objective, theta, make(objective, "diagonal"))
    found, certain = _separation.quasi(iterate, 0)
    assert (found is not None) == of_one
    assert certain
    nothing = optimize.OptimizeResult(x=None, status=4)
    monkeypatch.setattr(_margins.optimize, "linprog", lambda *args, **kwargs: nothing)
    assert _separation.quasi(iterate, 0) == (None, not of_one)


@pytest.mark.parametrize("seed", range(6))
def test_few_margins_tell_of_separation(seed, monkeypatch):
    """Two marks of few rows, of one class and of more: only the first is a direction."""
    X, y = marked(seed, seed % 2 == 1)
    n, sizes, whole = len(X), [], _margins.most_margins
    objective = make_objective(X, y, C=np.inf)

    def most_margins(A, total, basis):
        sizes.append(A.shape[0])
        return whole(A, total, basis)

    monkeypatch.setattr(_margins, "most_margins", most_margins)
    found = _separation.by_program(objective.rows, 0, np.zeros(objective.shape), np.inf)
    assert (found is None) == (seed % 2 == 0)
    assert max(sizes, default=0) < n / 4
    if found is not None:
        assert found.classes.tolist() == [0]
        Z = np.column_stack([standardised(objective, X), np.ones(n)])[:, : len(found.direction)]
        Z = Z @ found.direction
        assert (Z[np.arange(n), y] >= Z.max(axis=1) - 1e-5).all()


def test_programs_see_features_that_are_uncorrelated_and_of_size_one(rng):
    """Columns of other sizes, that nearly depend on others or do, cost a program no digits."""
    X = rng.standard_normal((60, 4)) * [1.0, 1e-4, 1e3, 1.0]
    X = np.column_stack([X, X[:, 0] + 1e-5 * rng.standard_normal(60), X[:, 0] + X[:, 3]])
    axes = _separation.orthonormal(X)
    assert axes.shape == (6, 5)
    assert_allclose((X @ axes).T @ (X @ axes), 60 * np.eye(5), atol=1e-6)
    assert _separation.orthonormal(np.zeros((5, 2))).shape == (2, 0)


def test_separation_is_read_off_the_rows():
    """However small the loss is, and however much of it the next step promises to take off."""
    X, y = problems.separable()
    for wrong, share, separated in ((0, 0.5, True), (1, 0.5, False), (0, 0.01, False)):
        X1, y1 = np.vstack([X, X[0]]), np.append(y, (y[0] + wrong) % 3)
        weight = np.append(np.ones(len(y)), 1e-6)
        for C in (np.inf, 1e6):
            objective = make_objective(X1, y1, weight, C)
            theta = objective.rows.frame.from_user(np.eye(3), np.zeros(3))
            iterate = make_iterate(objective, theta, make(objective, "diagonal"))
            assert iterate.evaluation.value[0] < 1e-3
            iterate = replace(iterate, decrement=share * iterate.evaluation.value)
            expected = separated and not np.isfinite(C)
            (found,) = _separation.complete(iterate)
            assert (found is not None) == expected
            assert found is None or (found.complete and len(found.classes) == 3)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_quasi_separation_is_named(solver, data):
    """A mark that only rows of one class have: its coefficient grows for ever."""
    X, y = data
    X = X.copy()
    X[:, -1] = (np.arange(len(X)) % 7 == 0) & (y == y[0])
    with pytest.warns(
        ConvergenceWarning, match=rf"quasi-separable.*class {y[0]} .*{X.shape[1] - 1}\]"
    ):
        SoftmaxFCClassifier(C=np.inf, solver=solver).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the mark of two classes is held by both
        X[:, -1] = np.arange(len(X)) % 7 == 0
        SoftmaxFCClassifier(C=np.inf, solver=solver).fit(X, y)


# -- warnings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.MAX_ITER, "max_iter=7 .*tol=0.001.*Raise max_iter or tol"),
        (Status.STUCK, "No further step lowered.*Rescale extreme columns"),
        (Status.SEPARATED, "separable: with C=inf.*A finite C"),
        (Status.CONVERGED, None), (Status.FLOOR, None), (Status.STOPPED, None),
    ],
)  # fmt: skip
def test_statuses_that_need_one_have_a_warning(data, status, words):
    (fit,) = run(make_objective(*data))
    fit.status = status
    fit.separation = _separation.Separation(True, fit.theta, np.arange(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _outcome.warn(fit, 1e-3, 7, Method(), np.arange(3), ["X[:, 1]"])
    assert len(caught) == (words is not None)
    if words:
        assert caught[0].category is ConvergenceWarning
        with pytest.warns(ConvergenceWarning, match=words):
            _outcome.warn(fit, 1e-3, 7, Method(), np.arange(3), ["X[:, 1]"])


def test_advice_names_the_parameters_that_are_set(data):
    (fit,) = run(make_objective(*data), max_iter=1)
    with pytest.warns(ConvergenceWarning, match="leave learning_rate=0.25 to 'auto'"):
        _outcome.warn(fit, 1e-3, 7, Method(solver="gd", learning_rate=0.25), None, [])
    with pytest.warns(ConvergenceWarning, match="leave preconditioner='diagonal' to 'auto'"):
        _outcome.warn(fit, 1e-3, 7, Method(preconditioner="diagonal"), None, [])


def test_no_advice_to_set_what_is_set(data):
    (fit,) = run(make_objective(*data), max_iter=1)
    for method in (Method(), Method(solver="gd"), Method(solver="lbfgs", learning_rate=0.25)):
        with pytest.warns(ConvergenceWarning, match=r"Raise max_iter or tol\.$"):
            _outcome.warn(fit, 1e-3, 7, method, None, [])


def test_an_unknown_distance_is_called_so(data):
    (fit,) = run(make_objective(*data), max_iter=1)
    for fit.status in (Status.MAX_ITER, Status.STUCK):
        for fit.gap, words in ((0.25, "an estimated 2.5e-01 above"), (np.inf, "unknown amount")):
            with pytest.warns(ConvergenceWarning, match=words):
                _outcome.warn(fit, 1e-3, 7, Method(), None, [])


def test_only_single_precision_is_advised_to_take_double(data):
    (fit,) = run(make_objective(*data), max_iter=1)
    fit.status = Status.STUCK
    with pytest.warns(ConvergenceWarning, match="lower C, use float64\\.$"):
        _outcome.warn(fit, 1e-3, 7, Method(), None, [], dtype=np.float32)
    with pytest.warns(ConvergenceWarning, match="or weights, lower C\\.$"):
        _outcome.warn(fit, 1e-3, 7, Method(), None, [])


def test_a_breakdown_in_single_precision_at_max_iter_is_no_convergence(data, monkeypatch):
    broken = np.ones(1, dtype=bool)
    objective = make_objective(*data)
    step, after = np.zeros(objective.shape), np.full(1, np.nan)
    newton = NewtonStep(step, np.zeros(1), 1, broken, ~broken, [], [])
    nothing = _optimality.Estimate(np.zeros(1), broken, broken, newton, after)
    monkeypatch.setattr(_gaps, "estimate", lambda *args, **kwargs: nothing)
    monkeypatch.setattr(_driver.Stages, "is_last", False)
    (fit,) = run(objective, max_iter=1, tol=1e-12)
    assert fit.status is Status.MAX_ITER
    assert fit.gap > 1e-12


@pytest.mark.parametrize("solver", ["gd", "lbfgs", "newton-cg"])
@pytest.mark.parametrize("preconditioner", ["diagonal", None])
def test_the_difference_of_nearly_equal_columns_is_not_overlooked(solver, preconditioner):
    """A diagonal hides it from a few products; the Hessian of the few weights shows it."""
    rng = np.random.default_rng(0)
    X, difference = rng.standard_normal((3000, 6)), rng.standard_normal(3000)
    X[:, 5] = X[:, 0] + 1e-4 * difference
    Z = np.column_stack([X[:, 1], X[:, 2], 0.3 * difference])
    y = (Z + rng.gumbel(size=(3000, 3))).argmax(axis=1)
    X[:, [0, 5]] *= 1e6  # so that the penalty lets them differ
    least = SoftmaxFCClassifier(tol=1e-10).fit(X, y).loss_curve_[-1]
    options = {"solver": solver, "preconditioner": preconditioner, "max_iter": 60}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = SoftmaxFCClassifier(tol=1e-6, **options).fit(X, y)
    gap = model.loss_curve_[-1] / least - 1
    assert gap <= 1e-6 or caught
    assert gap <= 10 * model.optimality_gap_ + 1e-10


@pytest.mark.parametrize("breakdown", [True, False])
def test_only_a_breakdown_asks_for_more_digits(breakdown, data, monkeypatch):
    """Rows that move far do so in any precision: after such a doubt a fit goes on as it was."""
    objective = make_objective(*data)
    sure, none = np.full(1, breakdown), np.zeros(1)
    newton = NewtonStep(np.zeros(objective.shape), none, 0, sure, sure, [], [])
    in_doubt = _optimality.Estimate(none, ~(none > 0), sure, newton, np.full(1, np.nan))
    asked = []
    monkeypatch.setattr(_gaps, "estimate", lambda *args, **kwargs: in_doubt)
    monkeypatch.setattr(_driver.Stages, "is_last", False)

    note = lambda self, iterate, spent, kept: asked.append(spent)  # noqa: E731
    monkeypatch.setattr(_driver.Stages, "next", note)
    run(objective, max_iter=12, tol=1e-5)
    assert any(asked) == breakdown


def test_a_lower_bound_above_a_value_is_none():
    """Its assumption on the intercepts does not hold: nothing is proven by it."""
    gaps = _gaps.Gaps(2, 1e-3, 100, False)
    both = np.arange(2)
    gaps.raise_lower(both, np.array([1.0, 1.0]), np.array([1.1, 1.1]))
    assert_allclose(gaps.above_lower(both, np.array([1.1, 1.1])), 0.1, rtol=1e-12)
    gaps.raise_lower(both, np.array([0.5, 0.5]), np.array([1.0 - 1e-9, 0.9]))  # rounding, or not
    # By as much as the bound is above the value, both are known.
    left = gaps.above_lower(both, np.array([1.0 - 1e-9, 0.9]))[0]
    assert_allclose(left, 1e-9, rtol=1e-6)
    assert gaps.above_lower(both, np.array([1.0, 0.9]))[1] == np.inf


@pytest.mark.parametrize("seed", range(4))
def test_a_loose_tol_takes_no_more_passes_than_a_small_one(seed):
    """What far rows may hide is looked for where the fit does not find out by itself."""
    X, y = families.generate("tails", 4000, 10, 5, seed=seed)
    passes = []
    for tol in (0.1, 1e-3):
        with count_work() as count:
            SoftmaxFCClassifier(tol=tol).fit(X, y)
        passes.append(count.passes)
    assert passes[0] <= 1.25 * passes[1] + 1


@pytest.mark.parametrize("tol", [0.1, 1e-3, 1e-6])
@pytest.mark.parametrize("shape", [(20000, 12, 4), (12000, 20, 5)])
def test_newton_steps_with_all_rows_go_on_early_where_tails_are_heavy(shape, tol):
    """In a Hessian on a sample the model promises too much, makes no progress or leaves doubt."""
    model = SoftmaxFCClassifier(tol=tol).fit(*families.generate("tails", *shape))
    assert model.solver_ == "newton-cholesky"
    assert model.n_iter_ <= 13


def test_steps_in_the_hessian_of_a_sample_go_on_where_data_are_easy():
    X, y = families.generate("near", 10000, 16, 8)
    for tol in (0.1, 1e-6):
        model = SoftmaxFCClassifier(tol=tol).fit(X, y)
        assert model.solver_ == "lbfgs"
        assert model.n_iter_ <= 8
