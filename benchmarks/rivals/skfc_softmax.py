"""skfc itself: `skfc` is the default, `skfc-NAME` a solver by name."""

import contextlib

from benchmarks.rivals import Fitted, Rival, tolerances


@contextlib.contextmanager
def counted_passes():
    """The objectives that fits inside make; each counts its own passes."""
    from skfc import _objective

    original, made = _objective.Objective.__init__, []

    def init(self, *args, **kwargs):
        made.append(self)
        original(self, *args, **kwargs)

    _objective.Objective.__init__ = init
    try:
        yield made
    finally:
        _objective.Objective.__init__ = original


def solver(name):
    def fit(X, y, C, tol, count):
        from skfc import SoftmaxFCClassifier

        model = SoftmaxFCClassifier(C=C, tol=tol, solver=name, max_iter=100_000)
        with counted_passes() as made:
            model.fit(X, y)
        # Older revisions, which `compare` runs, count otherwise or not at all.
        passes = sum(objective.work.passes for objective in made if hasattr(objective, "work"))
        return Fitted(model.coef_, model.intercept_, passes or None)

    label = "skfc" if name == "auto" else f"skfc-{name}"
    return Rival(label, "skfc", "skfc", fit, tolerances(-1, -12))


def _solvers():
    from skfc.solvers import SOLVERS

    # A revision before the elastic net has no such field.
    return [name for name in SOLVERS if not getattr(SOLVERS[name], "proximal", False)]


RIVALS = [solver(name) for name in ("auto", *_solvers())]
