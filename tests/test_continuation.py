"""Stages of a fit: strong penalties and float32 first, and in the end what was asked for."""

import numpy as np
import problems
import pytest
from core import make_iterate, make_objective, zero_mean
from numpy.testing import assert_allclose, assert_array_equal

from skfc import SoftmaxFCClassifier
from skfc._continuation import Stages, level_of, step_in_log_C
from skfc._driver import Run
from skfc._outcome import Status
from skfc._preconditioner import make
from skfc._rows import DenseRows
from skfc._tuned import TUNED
from skfc.solvers import SOLVERS


def words(C):
    """A word for every text: at a large C the model at the start promises too much."""
    return make_objective(np.eye(60), np.arange(60) % 10, C=C)


def level(C, theta=None):
    objective = words(C)
    theta = np.zeros(objective.shape) if theta is None else theta
    return level_of(make_iterate(objective, theta, make(objective, "diagonal")))


def test_the_way_begins_at_a_penalty_whose_model_holds():
    levels = [level(C) for C in (1e-6, 1e3, 1e6, np.inf)]
    assert levels[0] == levels[3] == 0  # nothing to raise without a penalty
    assert 0 < levels[1] < levels[2] <= levels[1] + 3
    X, y = np.eye(60), np.arange(60) % 10
    model = SoftmaxFCClassifier(C=1e3, solver="newton-cg", tol=1e-6).fit(X, y)
    objective = words(1e3)
    assert level(1e3, objective.rows.frame.from_user(model.coef_, model.intercept_)) == 0


def run(objective, solver, preconditioner, seen=None, **options):
    """The fit of one problem, and the objectives that the solver has been given in turn."""
    options = {"tol": 1e-8, "max_iter": 300} | options
    run = Run(SOLVERS[solver], objective, make(objective, preconditioner),
              np.zeros(objective.shape), **options)  # fmt: skip
    judge, objectives = run.judge, []

    def watched(iterate, n_iter):
        objectives.append(iterate.objective)
        return judge(iterate, n_iter)

    run.judge = watched
    with np.errstate(all="ignore"):
        (fit,) = run.run()
    return fit, objectives


def test_stronger_penalties_end_in_the_one_that_was_asked_for():
    objective = words(1e3)
    fit, seen = run(objective, "newton-cg", "diagonal")
    strengths = np.array([o.penalty.l2[0] for o in seen]) / objective.penalty.l2[0]
    assert strengths[0] == 1.0  # the first iterate is looked at before there are stages
    rest = strengths[1:]
    assert rest[0] > 1.0
    assert rest[-1] == 1.0
    assert (np.diff(rest) <= 0).all()
    steps = np.unique(rest)
    assert_allclose(steps[1:] / steps[:-1], TUNED.stronger)
    assert fit.status is Status.CONVERGED
    assert fit.gap <= 1e-8
    # The curve is that of the objective that was asked for, from its start to its end.
    assert_allclose(fit.loss_curve[-1], objective.at(fit.theta).value[0], rtol=1e-12)
    assert_allclose(fit.loss_curve[0], np.log(10), rtol=1e-12)
    best, _ = run(objective, "lbfgs", "kronecker")
    assert_allclose(fit.loss_curve[-1], best.loss_curve[-1], rtol=1e-7)


@pytest.fixture(scope="module")
def large():
    """Rows enough for float32 to pay, in columns away from zero."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 50)) + 2.0
    y = (X @ rng.standard_normal((50, 3)) / 7 + rng.gumbel(size=(3000, 3))).argmax(axis=1)
    return X, y


@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-11])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("C", [0.01, 100.0])
def test_single_precision_ends_in_the_rows_that_were_given(large, monkeypatch, C, solver, tol):
    X, y = large
    objective = make_objective(X, y, C=C)
    fit, seen = run(objective, solver, "kronecker", tol=tol)
    types = [o.rows.dtype for o in seen]
    assert types[0] == np.float32
    assert sorted(types, key=lambda t: t.itemsize) == types  # never back
    assert fit.status is Status.CONVERGED
    if tol < 1e-8:  # float32 says nothing of that
        assert seen[-1].rows is objective.rows
    monkeypatch.setattr(DenseRows, "single", lambda self: None)
    exact = make_objective(X, y, C=C)
    best, whole = run(exact, solver, "kronecker", tol=1e-12)
    assert {o.rows.dtype for o in whole} == {np.dtype(np.float64)}
    value = exact.at(fit.theta).value[0]
    assert value <= best.loss_curve[-1] * (1 + 10 * tol)


def test_small_rows_have_one_stage():
    X, y = problems.overlapping()
    objective = make_objective(X, y)
    stages = Stages(objective, single=True, continuation=False)
    assert stages.objective is objective
    assert stages.is_last
    assert stages.may_end


def test_values_are_those_of_the_objective_that_was_asked_for(rng):
    X, y = problems.overlapping(raw=False)
    objective = make_objective(X, y)
    stages = Stages(objective, single=False, continuation=True)
    stages.level = 2
    stages.objective = objective.with_penalty(objective.penalty.scaled(100.0))
    theta = zero_mean(rng.standard_normal(objective.shape))
    evaluation = stages.objective.at(theta)
    assert_allclose(stages.asked(evaluation), objective.at(theta).value, rtol=1e-12)
    assert evaluation.value[0] > objective.at(theta).value[0]
    assert not stages.may_end
    assert not stages.is_last


def test_the_next_C_is_as_far_as_the_last_in_its_logarithm():
    Cs = np.array([1e-2, 1e-1, 1.0, 10.0])
    assert [step_in_log_C(Cs, i) for i in range(4)] == pytest.approx([0.0, 1.0, 1.0, 0.0])
    assert step_in_log_C(np.array([1.0, 100.0, 1000.0]), 1) == pytest.approx(0.5)


def test_the_path_is_never_followed_farther_than_the_last_step():
    """Two Cs that are next to one another say nothing of one that is far away."""
    assert step_in_log_C(np.array([1.0, 1.0001, 1e6]), 1) == 1.0
    assert step_in_log_C(np.array([1.0, 1.5, 1e3]), 1) == 1.0
    Cs = np.array([1.0, 1.0, 10.0])
    assert step_in_log_C(Cs, 1) == 0.0
    assert step_in_log_C(np.array([1.0, 10.0, np.inf]), 1) == 0.0
    assert_array_equal([step_in_log_C(Cs[:1], 0), step_in_log_C(Cs, 2)], 0.0)
