"""Steps to the minimum of the quadratic model of loss and squares, plus the absolute values.

The weights that take part are given by a mask; the others stay. For up to some thousands the
Hessian is a matrix, and coordinate descent finds the minimum. For more there are products with
it: conjugate gradients on a face, where every weight keeps its sign, or the one that it is
about to take. What has crossed zero is set to zero, and leaves the next face.
"""

from skfc._array import as_like, cast, concatenate, host, to_numpy
from skfc._conjugate_gradients import newton_step
from skfc._coordinate_descent import minimise
from skfc._objective import HessianOperator
from skfc._tuned import TUNED
from skfc.solvers._gd import next_beta


def by_coordinate_descent(model, evaluation, mask, proba, distance, rough):
    """The step (P, T) by :func:`skfc._coordinate_descent.minimise`.

    Parameters
    ----------
    model : Objective, of one problem and an `ElasticNet`
    mask : host array (P, T) of bool
    distance : how far zero is from the subdifferential, in units of the thresholds
    proba : state, the probabilities for the Hessian
    rough : whether it is computed in single precision
    """
    rows, penalty, N = model.rows, model.penalty, model.rows.shape[1]
    classes, features = host.nonzero(mask.T)
    dtype = rows.xp.float32 if rough else rows.xp.float64
    H = rows.hessian_on(proba, features, classes, dtype)
    rows.work.products += 1
    host.einsum("ii->i", H)[...] += to_numpy(penalty.diagonal(model.shape[0]))[features, 0]
    thresholds = host.zeros(model.shape[0])
    thresholds[:N] = to_numpy(penalty.thresholds)[:, 0]
    theta, gradient = (to_numpy(a) for a in (evaluation.theta, evaluation.gradient))
    start = theta[features, classes]
    found = minimise(
        H, gradient[features, classes], start, thresholds[features],
        TUNED.accuracy * distance, TUNED.look_back if rough else TUNED.patience,
    )  # fmt: skip
    step = host.zeros(model.shape)
    step[features, classes] = found - start
    return as_like(step, evaluation.theta)


def by_conjugate_gradients(model, evaluation, mask, proba):
    """The step (P, T) by conjugate gradients on faces, in the features that take part."""
    xp, N = model.rows.xp, model.rows.shape[1]
    index = host.flatnonzero(mask[:N, :].any(axis=1))
    part, here = model.features(index, evaluation)
    found = face_steps(part, here, xp.asarray(mask[index, :]), proba)
    step = host.zeros(model.shape)
    step[index, :] = to_numpy(found[: len(index), :])
    step[N:, :] = to_numpy(found[len(index) :, :])
    return as_like(step, evaluation.theta)


def face_steps(model, evaluation, mask, proba):
    """The step where the weights of `mask` (n_features, T) take part."""
    quadratic = Quadratic.of(model, evaluation, mask, proba)
    for _ in range(TUNED.look_back):
        quadratic.accelerate()
        if quadratic.on_face():
            break
    return quadratic.step


class Quadratic:
    """The model of one problem at an evaluation, where it has come to.

    Attributes
    ----------
    step : (P, T), from the weights of the evaluation
    slope : (P, T), the gradient of the smooth part after the step
    """

    def __init__(self, model, evaluation, hessian, taking_part):
        self.smooth, self.penalty, self.hessian = model.smooth, model.penalty, hessian
        self.theta, self.slope = evaluation.theta, evaluation.gradient
        self.step, self.taking_part = 0.0 * evaluation.theta, taking_part
        xp = model.rows.xp
        curvature = hessian.diagonal() + model.penalty.diagonal(model.shape[0])
        largest = xp.max(curvature)
        self.metric = xp.maximum(curvature, TUNED.no_curvature * largest)
        self.inverse = taking_part / self.metric
        self.bound, self.n_features, self.xp = 1.0, model.rows.shape[1], xp

    @classmethod
    def of(cls, model, evaluation, mask, proba):
        hessian = HessianOperator(model.smooth, model.rows, proba)
        like = evaluation.theta
        intercepts = model.rows.xp.ones_like(like[model.rows.shape[1] :, :])
        return cls(model, evaluation, hessian, concatenate([cast(mask, like.dtype), intercepts]))

    def accelerate(self):
        """Accelerated proximal gradient steps in the metric of the diagonal of the Hessian."""
        dot, there, slope_there = self.smooth.dot, self.step, self.slope
        weight = 1.0
        for _ in range(TUNED.sweeps):
            while True:
                rate = self.inverse / self.bound
                moved = self.theta + there - rate * slope_there
                moved = self.penalty.shrink(moved, rate[: self.n_features, :])
                ahead = moved - self.theta
                change = ahead - there
                curved = self.hessian(change) * self.taking_part
                needed = dot(change, curved)[0]
                given = self.bound * dot(change, self.metric * change)[0]
                if needed <= 1.01 * given:
                    break
                self.bound = 1.1 * self.bound * needed / given
            slope_ahead = slope_there + curved
            uphill = dot(there - ahead, self.metric * (ahead - self.step))[0] > 0
            beta, weight = next_beta("auto", weight, uphill, adaptive=True)
            there = ahead + beta * (ahead - self.step)
            slope_there = slope_ahead + beta * (slope_ahead - self.slope)
            self.step, self.slope = ahead, slope_ahead

    def on_face(self):
        """Go to the minimum on the face of these signs; returns whether no sign is lost."""
        xp, N = self.xp, self.n_features
        u = self.theta + self.step
        sign = xp.sign(u[:N, :])
        face = concatenate([xp.abs(sign), self.taking_part[N:, :]])
        target = face * self.slope
        target[:N, :] += sign * self.penalty.thresholds
        found = newton_step(
            self.smooth, lambda v: face * self.hessian(v), target,
            lambda r: face * self.inverse * r, share=TUNED.share_to_come, least=2,
            most=TUNED.most_steps,
        )  # fmt: skip
        there = u - found.step
        kept = sign * there[:N, :] >= 0
        there[:N, :] = xp.where(kept, there[:N, :], xp.zeros_like(sign))
        change = there - u
        curved = self.hessian(change)
        dot, absolute = self.smooth.dot, self.penalty.absolute
        rise = dot(self.slope, change) + 0.5 * dot(change, curved) + absolute(there) - absolute(u)
        if rise[0] >= 0:
            return False
        self.step, self.slope = there - self.theta, self.slope + curved
        return bool(xp.all(kept))
