"""scikit-learn-intelex: `LogisticRegression` with its lbfgs, on oneDAL's loss."""

from benchmarks.rivals import Fitted, Rival, binomial_C, tolerances, two_rows
from benchmarks.rivals._counting import minimize_evaluations


def fit(X, y, C, tol, count):
    from sklearnex.linear_model import LogisticRegression

    model = LogisticRegression(C=binomial_C(C, y), solver="lbfgs", tol=tol, max_iter=1_000_000)
    with minimize_evaluations() as counts:
        model.fit(X, y)
    return Fitted(*two_rows(model.coef_, model.intercept_), float(sum(counts)) or None)


RIVALS = [Rival("intelex-lbfgs", "sklearnex", "scikit-learn-intelex", fit, tolerances())]
