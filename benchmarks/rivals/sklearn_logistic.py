"""scikit-learn's `LogisticRegression`, every solver of the multinomial loss."""

from contextlib import nullcontext

from benchmarks.rivals import Fitted, Rival, binomial_C, tolerances, two_rows
from benchmarks.rivals._counting import minimize_evaluations, newton_cg_products

MAX_HESSIAN = 3000  # newton-cholesky builds a matrix of (N T)² numbers


def solver(name, loosest=1):
    def fit(X, y, C, tol, count):
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(
            C=binomial_C(C, y), solver=name, tol=tol, max_iter=1_000_000, random_state=0
        )
        counter = nullcontext([])
        if name == "lbfgs":
            counter = minimize_evaluations()
        elif name == "newton-cg" and count:
            counter = newton_cg_products()
            model.set_params(verbose=2)
        with counter as counts:
            model.fit(X, y)
        if name in ("sag", "saga"):
            counts = model.n_iter_
        return Fitted(*two_rows(model.coef_, model.intercept_), float(sum(counts)) or None)

    def declines(problem):
        if name == "newton-cholesky" and problem.size > MAX_HESSIAN:
            return f"N·T above {MAX_HESSIAN}"
        return ""

    return Rival(f"logistic-{name}", "sklearn", "scikit-learn", fit, tolerances(loosest), declines)


RIVALS = [solver(name) for name in ("lbfgs", "newton-cg", "newton-cholesky")]
RIVALS += [solver(name, loosest=0) for name in ("sag", "saga")]
