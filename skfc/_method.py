"""How a fit is done: parameters of the estimators, and what "auto" stands for."""

from dataclasses import dataclass, replace

from sklearn.utils import check_random_state

from skfc import _preconditioner
from skfc._penalty import ElasticNet
from skfc._preconditioner import PRECONDITIONERS
from skfc._tuned import TUNED
from skfc.solvers import SOLVERS, choose_solver


@dataclass(frozen=True)
class Method:
    """How a fit is done: the estimators' parameters of these names."""

    solver: str = "auto"
    preconditioner: str | None = "auto"
    learning_rate: float | str = "auto"
    momentum: float | str = "auto"
    batch_size: int | str = "auto"
    tol: float = 1e-6
    max_iter: int = 1000
    verbose: int = 0
    seed: int = 0  # of the order of rows, for "sgd"
    other: str | None = None  # the solver to go on with where the first takes many iterations
    deferred: bool = False  # whether the preconditioner may begin as one that costs less

    @classmethod
    def of(cls, estimator):
        """That of an estimator."""
        names = set(cls.__dataclass_fields__) - {"seed", "other", "deferred"}
        seed = 0
        if estimator.solver == "sgd":
            seed = int(check_random_state(estimator.random_state).randint(2**31 - 1))
        return cls(**{name: getattr(estimator, name) for name in names}, seed=seed)

    @property
    def named(self):
        """What `solver_` is called where nothing is solved."""
        return "lbfgs" if self.solver == "auto" else self.solver

    def choose(self, objective):
        """The method with what "auto" stands for."""
        if isinstance(objective.penalty, ElasticNet):
            solver = "newton-cd" if self.solver == "auto" else self.solver
            return replace(self, preconditioner="diagonal", solver=solver)
        name = "hessian" if self.solver == "newton-cholesky" else self.preconditioner
        if name == "auto":
            name = _preconditioner.choose(objective, in_batches=self.solver == "sgd")
        if self.solver != "auto":
            check_size(self.solver, objective)
            return replace(self, preconditioner=name)
        cheap = objective.n_problems == 1 and _preconditioner.is_cheap(objective)
        if cheap and name == "hessian":
            name = "newton-cholesky"
            return replace(self, preconditioner="hessian", solver=name, other="newton-cg")
        solver, other = choose_solver(PRECONDITIONERS[name])
        deferred = self.preconditioner == "auto"
        return replace(self, preconditioner=name, solver=solver, other=other, deferred=deferred)


def check_size(solver, objective):
    """Raise where a solver would need a matrix of too many numbers."""
    size = objective.shape[0] * objective.rows.n_classes
    if SOLVERS[solver].exact and size**2 > TUNED.few_numbers:
        raise ValueError(
            f"solver={solver!r} needs a matrix of the square of (features + 1) × classes = {size} "
            "numbers, which is too large: set solver to 'auto' or 'newton-cg'."
        )
