"""Passes over X of fits that do not report them."""

import contextlib
import io
import re

from scipy import optimize


@contextlib.contextmanager
def minimize_evaluations():
    """Evaluations of value and gradient by `scipy.optimize.minimize`, as a list of counts."""
    original, counts = optimize.minimize, []

    def minimize(*args, **kwargs):
        result = original(*args, **kwargs)
        counts.append(result.nfev)
        return result

    optimize.minimize = minimize
    try:
        yield counts
    finally:
        optimize.minimize = original


@contextlib.contextmanager
def newton_cg_products():
    """Passes of scikit-learn's newton-cg, read from what it prints with `verbose=2`.

    A product with the Hessian is a pass, and a Newton step has a gradient and, at the
    least, one trial of its line search: a lower bound.
    """
    counts, printed = [], io.StringIO()
    with contextlib.redirect_stdout(printed):
        yield counts
    text = printed.getvalue()
    inner = re.findall(r"Inner CG solver (?:iteration (\d+)|stopped reaching maxiter=(\d+))", text)
    counts.append(2 * text.count("Newton-CG iter") + sum(int(a or b) for a, b in inner))
