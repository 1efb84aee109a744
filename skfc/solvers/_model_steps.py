"""Steps to the minimum of the quadratic model of loss and squares, plus the absolute values.

The weights that take part are given by a mask; the others stay. For up to some thousands the
Hessian is a matrix, and coordinate descent finds the minimum. For more there are products with
it: accelerated proximal steps, and conjugate gradients on a face, where every weight keeps its
sign, or the one that it is about to take. What has crossed zero is set to zero, and leaves the
next face. Their metric is the diagonal of the Hessian.
"""

from functools import partial

from skfc import _blockwise
from skfc._array import as_like, cast, concatenate, host, to_numpy
from skfc._conjugate_gradients import newton_step
from skfc._coordinate_descent import minimise
from skfc._hessian import HessianOperator
from skfc._tuned import TUNED
from skfc.solvers._gd import next_beta


def by_coordinate_descent(model, evaluation, mask, rows, proba, rough):
    """The step (P, T) by :func:`skfc._coordinate_descent.minimise`.

    Parameters
    ----------
    model : Objective, of one problem and an `ElasticNet`
    mask : host array (P, T) of bool
    rows, proba : those of the Hessian, all rows or a sample, and the state of probabilities
    rough : whether the minimum is far: fewer rounds are taken, on a Hessian in single precision
        where that saves time
    """
    penalty, N = model.penalty, model.rows.shape[1]
    classes, features = host.nonzero(mask.T)
    single = rough and model.rows.n_values * rows.n_classes >= TUNED.single_from
    dtype = rows.xp.float32 if single else rows.xp.float64
    H = rows.hessian_on(proba, features, classes, dtype)
    rows.work.products += 1
    host.einsum("ii->i", H)[...] += to_numpy(penalty.diagonal(model.shape[0]))[features, 0]
    thresholds = host.zeros(model.shape[0])
    thresholds[:N] = to_numpy(penalty.thresholds)[:, 0]
    theta, gradient = (
        to_numpy(a)[features, classes] for a in (evaluation.theta, evaluation.gradient)
    )
    t, alone = thresholds[features], H.diagonal().copy()
    most = TUNED.accuracy * value_of(model, evaluation)
    hasty = promised_alone(alone, gradient, t) > most
    if hasty.any():
        ahead = curvature_ahead(model, evaluation)[features, classes]
        raised = host.maximum(alone, host.minimum(ahead, curvature_to_zero(gradient, theta, t)))
        host.einsum("ii->i", H)[hasty] = raised[hasty]
    found = minimise(
        H, gradient, theta, t,
        *((1 / TUNED.stronger, TUNED.look_back) if rough else (TUNED.accuracy, TUNED.patience)),
        rounding_of(dtype),
    )  # fmt: skip
    step = host.zeros(model.shape)
    step[features, classes] = found - theta
    return as_like(step, evaluation.theta)


def promised_alone(curvature, gradient, thresholds):
    """What the model promises of single weights, but for their way to zero, (m,).

    A row that is wrong for certain has nearly no curvature, and the model of a feature that it
    alone has promises more than all of F.
    """
    beyond = host.where(thresholds > 0, host.maximum(host.abs(gradient) - thresholds, 0.0), 0.0)
    return 0.5 * beyond**2 / host.maximum(curvature, host.finfo(float).tiny)


def curvature_to_zero(gradient, theta, thresholds):
    """The curvature with which a weight alone ends at zero, infinite where its way leads off."""
    inward = (theta != 0) & (gradient * theta > 0)
    size = host.where(inward, host.abs(theta), 1.0)
    return host.where(inward, (host.abs(gradient) + thresholds) / size, host.inf)


def value_of(model, evaluation):
    """F at an evaluation of loss and squares."""
    return (evaluation.value + model.penalty.absolute(evaluation.theta))[0]


def curvature_ahead(model, evaluation):
    """The diagonal of the Hessian of the loss (P, T) half way from probabilities to targets."""
    half = partial(_blockwise.keep_mixture, share=0.5)
    proba = model.rows.sum(half, state=evaluation.state, count=False).state
    return to_numpy(HessianOperator(model.smooth, model.rows, proba).diagonal())


def rounding_of(dtype):
    """What rounding of a Hessian of this type may be, relative to its diagonal."""
    return TUNED.no_curvature if "64" in str(dtype) else TUNED.single_digits


def by_conjugate_gradients(model, evaluation, mask, proba, accurate):
    """The step (P, T) by conjugate gradients on faces, and whether it leads to the minimum.

    `accurate` solves the model, with up to `most_steps` products on a face; else a few do.
    """
    xp, N = model.rows.xp, model.rows.shape[1]
    index = host.flatnonzero(mask[:N, :].any(axis=1))
    part, here = model.features(index, evaluation)
    quadratic = Quadratic.of(part, here, xp.asarray(mask[index, :]), proba, accurate)
    solved, found = quadratic.solve(), quadratic.step
    step = host.zeros(model.shape)
    step[index, :] = to_numpy(found[: len(index), :])
    step[N:, :] = to_numpy(found[len(index) :, :])
    return as_like(step, evaluation.theta), solved


class Quadratic:
    """The model of one problem at an evaluation, where it has come to.

    Attributes
    ----------
    step : (P, T), from the weights of the evaluation
    slope : (P, T), the gradient of the smooth part after the step
    """

    def __init__(self, model, evaluation, hessian, taking_part, accurate):
        self.smooth, self.penalty, self.hessian = model.smooth, model.penalty, hessian
        self.theta, self.slope = evaluation.theta, evaluation.gradient
        self.step, self.taking_part = 0.0 * evaluation.theta, taking_part
        xp = model.rows.xp
        curvature = hessian.diagonal() + model.penalty.diagonal(model.shape[0])
        largest = xp.max(curvature)
        self.metric = xp.maximum(curvature, TUNED.no_curvature**2 * largest)
        self.inverse = taking_part / self.metric
        self.bound, self.n_features, self.xp = 1.0, model.rows.shape[1], xp
        self.accurate, self.n_products = accurate, 0

    @classmethod
    def of(cls, model, evaluation, mask, proba, accurate):
        hessian = HessianOperator(model.smooth, model.rows, proba)
        like = evaluation.theta
        intercepts = model.rows.xp.ones_like(like[model.rows.shape[1] :, :])
        taking_part = concatenate([cast(mask, like.dtype), intercepts])
        return cls(model, evaluation, hessian, taking_part, accurate)

    def solve(self):
        """Go to the minimum, in some rounds; returns whether it is reached.

        Or nearly so: of how far zero was from the subdifferential, in the metric, little is left.
        Where a face takes many products, it is cheaper to go on from another model.
        """
        share = TUNED.accuracy if self.accurate else 1 / TUNED.stronger
        least = share * self.distance()
        for _ in range(TUNED.sweeps if self.accurate else TUNED.look_back):
            self.accelerate()
            if self.on_face() or self.distance() <= least:
                return True
            if self.n_products > TUNED.patience:
                break
        return False

    def accelerate(self):
        """Accelerated proximal gradient steps in the metric."""
        dot, there, slope_there = self.smooth.dot, self.step, self.slope
        weight = 1.0
        for _ in range(TUNED.sweeps):
            while True:
                ahead = self.shrunk(there, slope_there)
                change = ahead - there
                curved = self.hessian(change) * self.taking_part
                needed = dot(change, curved)[0]
                given = self.bound * self.inner(change, change)
                if needed <= 1.01 * given:
                    break
                self.bound = float(1.1 * self.bound * needed / given)
            slope_ahead = slope_there + curved
            uphill = self.inner(there - ahead, ahead - self.step) > 0
            beta, weight = next_beta("auto", weight, uphill, adaptive=True)
            there = ahead + beta * (ahead - self.step)
            slope_there = slope_ahead + beta * (slope_ahead - self.slope)
            self.step, self.slope = ahead, slope_ahead

    def distance(self):
        """How far zero is from the subdifferential after the step, in the metric."""
        off, N = self.slope + 0, self.n_features
        off[:N, :] = self.penalty.distance(self.theta + self.step, self.slope)
        off *= self.taking_part
        return float(self.xp.max(off * off / self.metric)) ** 0.5

    def shrunk(self, there, slope):
        """The proximal step from `there`, in the metric."""
        rate = self.inverse / self.bound
        moved = self.theta + there - rate * slope
        return self.penalty.shrink(moved, rate[: self.n_features, :]) - self.theta

    def inner(self, a, b):
        """The inner product in the metric."""
        return self.smooth.dot(a, self.metric * b)[0]

    def on_face(self):
        """Go to the minimum on the face of these signs; returns whether no sign is lost.

        What crosses zero on the way there is set to zero, if the model falls; else the way is
        halved.
        """
        xp, N, dot, absolute = self.xp, self.n_features, self.smooth.dot, self.penalty.absolute
        u = self.theta + self.step
        sign = xp.sign(u[:N, :])
        face = concatenate([xp.abs(sign), self.taking_part[N:, :]])
        target = face * self.slope
        target[:N, :] += sign * self.penalty.thresholds
        inverse = face * self.inverse
        found = newton_step(
            self.smooth, lambda v: face * self.hessian(v), target, lambda r: inverse * r,
            share=TUNED.accuracy if self.accurate else TUNED.share_to_come,
            least=2, most=TUNED.most_steps,
        )  # fmt: skip
        self.n_products, share = found.n_products, 1.0
        for _ in range(TUNED.patience if self.accurate else 1):
            there = u - share * found.step
            kept = sign * there[:N, :] >= 0
            there[:N, :] = xp.where(kept, there[:N, :], xp.zeros_like(sign))
            change = there - u
            curved = self.hessian(change)
            rise = dot(self.slope, change) + 0.5 * dot(change, curved)
            if (rise + absolute(there) - absolute(u))[0] < 0:
                self.step, self.slope = there - self.theta, self.slope + curved
                return share == 1.0 and bool(xp.all(kept))
            share /= 2
        return False
