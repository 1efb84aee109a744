"""Checks of constructor parameters: the name, the value found, and what would be right."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state

from skfc.solvers import SOLVERS

PRECONDITIONERS = ("auto", "hessian", "block-diagonal", "kronecker", "diagonal", None)


def _number(kind, low, *, open_low=False, infinite=False):
    """A check for a number of `kind` from `low` on."""
    what = "an integer" if kind is Integral else "a number"
    bound = f"{'>' if open_low else '>='} {low:g}" + (" (np.inf for none)" if infinite else "")

    def check(value):
        if not isinstance(value, kind) or isinstance(value, bool | np.bool_):
            return TypeError, f"{what} {bound}"
        good = value > low if open_low else value >= low
        if not good or (np.isinf(value) and not infinite):
            return ValueError, f"{what} {bound}"

    return check


def _one_of(*options):
    def check(value):
        if not (value is None or isinstance(value, str)) or value not in options:
            return ValueError, "one of " + ", ".join(map(repr, options))

    return check


def _flag(value):
    if not isinstance(value, bool | np.bool_):
        return TypeError, "True or False"


def _verbosity(value):
    if not isinstance(value, Integral | bool | np.bool_) or value < 0:
        return ValueError, "an integer >= 0 or a bool"


def _class_weight(value):
    right = "None, 'balanced' or a dict from class to a finite weight >= 0"
    if isinstance(value, dict):
        numbers = all(isinstance(w, Real) and 0 <= w < np.inf for w in value.values())
        return None if numbers else (ValueError, right)
    if not (value is None or (isinstance(value, str) and value == "balanced")):
        return ValueError, right


def _random_state(value):
    try:
        check_random_state(value)
    except ValueError:
        return ValueError, "None, an integer or a numpy.random.RandomState"


def _share(value):
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        return TypeError, "a number in [0, 1)"
    if not 0 <= value < 1:
        return ValueError, "a number in [0, 1)"


def _fraction(value):
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        return TypeError, "a number in (0, 1)"
    if not 0 < value < 1:
        return ValueError, "a number in (0, 1)"


def _ratio(value):
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        return TypeError, "a number in [0, 1]"
    if not 0 <= value <= 1:
        return ValueError, "a number in [0, 1]"


def _or_auto(check):
    """`check`, but that "auto" is right too."""

    def either(value):
        if isinstance(value, str) and value == "auto":
            return None
        wrong = check(value)
        return wrong and (wrong[0], f"'auto' or {wrong[1]}")

    return either


CHECKS = {
    "C": _number(Real, 0, open_low=True, infinite=True),
    "l1_ratio": _ratio,
    "fit_intercept": _flag,
    "standardize": _flag,
    "class_weight": _class_weight,
    "label_smoothing": _share,
    "solver": _one_of("auto", *SOLVERS),
    "preconditioner": _one_of(*PRECONDITIONERS),
    "learning_rate": _or_auto(_number(Real, 0, open_low=True)),
    "momentum": _or_auto(_share),
    "batch_size": _or_auto(_number(Integral, 1)),
    "max_iter": _number(Integral, 0),
    "tol": _number(Real, 0),
    "early_stopping": _flag,
    "validation_fraction": _fraction,
    "n_iter_no_change": _number(Integral, 1),
    "warm_start": _flag,
    "random_state": _random_state,
    "verbose": _verbosity,
}


def check_parameters(estimator):
    """Raise a TypeError or ValueError for the first parameter that is not right."""
    owner = type(estimator).__name__
    for name, check in CHECKS.items():
        value = getattr(estimator, name, None)
        if hasattr(estimator, name) and (wrong := check(value)):
            error, right = wrong
            raise error(f"The {name!r} parameter of {owner} must be {right}; got {value!r}.")
    if hasattr(estimator, "C"):
        check_solver(owner, estimator.solver, [estimator.l1_ratio], [estimator.C])


def check_solver(owner, solver, l1_ratios, Cs):
    """Raise where a solver does not take the penalties that are asked for."""
    if solver == "auto":
        return
    most = max(l1_ratios)
    able = [name for name in SOLVERS if SOLVERS[name].proximal]
    if solver not in able and most > 0:
        raise ValueError(
            f"solver={solver!r} of {owner} takes no l1_ratio > 0; got l1_ratio={most!r}. "
            f"Set solver to 'auto', {' or '.join(map(repr, able))}, or l1_ratio to 0."
        )
    if solver in able and np.isinf(Cs).any():
        raise ValueError(
            f"solver={solver!r} of {owner} needs a penalty; got C={max(Cs)!r}. Set solver to "
            "'auto', or C to a finite number."
        )
