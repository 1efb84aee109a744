"""Objectives without an estimator, and dense counterparts of what they give.

The dense side is written from the definitions, in standardised features: with rows x̃ and a
one for the intercept, mean weights m and probabilities p,

    H[(j, k), (i, l)] = sum_n m_n x̃_nj x̃_ni (p_nk [k = l] - p_nk p_nl) / n + penalty
"""

from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfc._frame import Frame
from skfc._objective import Objective
from skfc._penalty import Penalty
from skfc._rows import make_rows
from skfc.solvers import SOLVERS, Iterate

# The solvers of smooth penalties.
SMOOTH = {name: solver for name, solver in SOLVERS.items() if not solver.proximal}
PROXIMAL = [name for name, solver in SOLVERS.items() if solver.proximal]


def make_objective(X, y, weight=None, C=1.0, *, n_classes=None, fit_intercept=True):
    """The mean objective: `weight` (n,) or (n_problems, n), `C` a number or (n_problems,)."""
    n_classes = int(y.max()) + 1 if n_classes is None else n_classes
    weight = np.ones(X.shape[0]) if weight is None else np.asarray(weight, dtype=float)
    weight = np.atleast_2d(weight)
    C = np.broadcast_to(np.asarray(C, dtype=float), max(len(weight), np.size(C)))
    weight = np.tile(weight, (len(C) // len(weight), 1))
    total = weight.sum(axis=1)
    weight = weight * (weight.shape[1] / total)[:, None]
    rows = make_rows(X, y, weight, n_classes)
    frame = Frame.of(rows.moments().pooled(), fit_intercept)
    penalty = Penalty(1.0 / C / total, frame.penalty_factors())
    return Objective(rows.in_frame(frame), penalty)


def zero_mean(theta, n_classes=None):
    """Without the part that is the same for all classes: no probability depends on it."""
    n_classes = theta.shape[1] if n_classes is None else n_classes
    stack = theta.reshape(len(theta), -1, n_classes)
    return (stack - stack.mean(axis=2, keepdims=True)).reshape(theta.shape)


def standardised(objective, X):
    """Standardised rows with a column of ones, (n, P), from the frame's means and scales."""
    frame = objective.rows.frame
    X = X.toarray() if hasattr(X, "toarray") else X
    rows = (X.astype(float) - frame.mean) * frame.inverse
    return np.column_stack([rows, np.ones(len(X))]) if frame.fit_intercept else rows


def probabilities(objective, X, theta):
    """The model of one problem, (n, T)."""
    return softmax(standardised(objective, X) @ theta, axis=1)


def ridge(objective):
    """The penalty of every parameter of one problem, (P,)."""
    o = objective
    factors = o.penalty.l2[0] * o.penalty.factors[:, 0]
    return np.append(factors, np.zeros(o.shape[0] - len(factors)))


def dense_hessian(objective, X, theta):
    """The Hessian of one problem as a matrix, (P, T, P, T)."""
    rows, p = standardised(objective, X), probabilities(objective, X, theta)
    m = objective.rows.weight[0] / len(rows)
    S = np.einsum("nk,kl->nkl", p, np.eye(p.shape[1])) - np.einsum("nk,nl->nkl", p, p)
    H = np.einsum("n,nj,ni,nkl->jkil", m, rows, rows, S, optimize=True)
    T, P = p.shape[1], rows.shape[1]
    return H + np.einsum("j,ji,kl->jkil", ridge(objective), np.eye(P), np.eye(T))


def apply(H, D):
    """H D for a matrix (P, T, P, T) and a direction (P, T)."""
    return np.einsum("jkil,il->jk", H, D)


def make_iterate(objective, theta, preconditioner, **changes):
    """What a solver yields at `theta`: by default all of it is right."""
    evaluation = objective.at(theta)
    preconditioner.update(objective, evaluation, renew=True)
    gradient = evaluation.gradient
    decrement = 0.5 * objective.dot(gradient, preconditioner.solve(gradient))
    values = {
        "objective": objective,
        "evaluation": evaluation,
        "n_iter": 0,
        "decrement": decrement,
        "precondition": preconditioner.solve,
        "hessian": lambda objective, evaluation: objective.hessian(evaluation),
        "least_steps": preconditioner.least_steps,
        "stalled": np.zeros(objective.n_problems, dtype=bool),
        "poor": False,
    } | changes
    return Iterate(**values)


def checks_of(estimators, **options):
    """scikit-learn's checks of estimators, as parameters of a test.

    A list of them: the generator of older scikit-learn releases is deprecated in pytest. Checks
    of a device of CUDA are left out where a PyTorch that is built for it finds none.
    """
    mark = parametrize_with_checks(estimators, **options)
    names, cases = mark.args
    cases = [case for case in cases if "'cuda'" not in repr(case) or has_cuda()]
    return pytest.mark.parametrize(names, cases, **mark.kwargs)


@cache
def has_cuda():
    """Whether PyTorch finds a device of CUDA."""
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
