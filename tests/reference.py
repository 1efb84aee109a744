"""The slow, obvious softmax regression that everything is held against, in float64.

With the rows' weights s, their sum s̄ and λ = 1 / (C s̄), the mean objective is

    F(W, b) = Σᵢ sᵢ [logsumexp(zᵢ) - <yᵢ, zᵢ>] / s̄ + λ/2 ‖W‖²,    zᵢ = W xᵢ + b

It is a Bregman distance away from its minimum: at the optimum (W*, b*), with P* there,

    F(W, b) - F* = Σᵢ sᵢ KL(p*ᵢ ‖ pᵢ) / s̄ + λ/2 ‖W - W*‖²

exactly, and Pinsker's inequality, ‖p* - p‖₁² ≤ 2 KL, turns a gap into a distance.
"""

import numpy as np
from numpy.testing import assert_allclose
from scipy.special import log_softmax, softmax


def one_hot(y, classes=None):
    """Rows of zeros and a one, (n_samples, n_classes)."""
    classes = np.unique(y) if classes is None else np.asarray(classes)
    return (np.asarray(y)[:, None] == classes).astype(float)


class Reference:
    """One problem: X (n, N), probability rows Y (n, T), weights (n,), C."""

    def __init__(self, X, Y, weight=None, *, C=1.0, fit_intercept=True):
        X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        self.X, self.Y = X.astype(float), np.asarray(Y, dtype=float)
        n = len(self.X)
        weight = np.ones(n) if weight is None else np.asarray(weight, dtype=float)
        self.total = weight.sum()
        self.weight = weight / self.total
        self.l2 = 1 / (C * self.total)
        self.fit_intercept = fit_intercept

    def logits(self, coef, intercept):
        return self.X @ np.asarray(coef, dtype=float).T + intercept

    def value(self, coef, intercept):
        loss = -np.sum(self.Y * log_softmax(self.logits(coef, intercept), axis=1), axis=1)
        return self.weight @ loss + 0.5 * self.l2 * np.sum(np.asarray(coef, dtype=float) ** 2)

    def gradient(self, coef, intercept):
        """In coef (T, N) and in intercept (T,)."""
        P = softmax(self.logits(coef, intercept), axis=1)
        R = self.weight[:, None] * (P - self.Y)
        return R.T @ self.X + self.l2 * coef, R.sum(axis=0)

    def hessian_product(self, coef, intercept, d_coef, d_intercept):
        P = softmax(self.logits(coef, intercept), axis=1)
        dZ = self.X @ d_coef.T + d_intercept
        R = np.empty_like(dZ)
        for i, p in enumerate(P):
            R[i] = self.weight[i] * (np.diag(p) - np.outer(p, p)) @ dZ[i]
        return R.T @ self.X + self.l2 * d_coef, R.sum(axis=0)

    def hessian(self, coef, intercept):
        """The matrix, classes outside: (T * (N + 1), T * (N + 1))."""
        X = np.column_stack([self.X, np.ones(len(self.X))])
        P = softmax(self.logits(coef, intercept), axis=1)
        T, K = P.shape[1], X.shape[1]
        H = np.empty((T, K, T, K))
        for k in range(T):
            for j in range(T):
                share = P[:, k] * ((k == j) - P[:, j])
                H[k, :, j] = X.T @ (X * (self.weight * share)[:, None])
            H[k, :-1, k, :-1] += self.l2 * np.eye(K - 1)
        return H.reshape(T * K, T * K)

    def minimise(self, max_iter=100):
        """Newton's method with halved steps; returns coef, intercept and the value there."""
        T, N = self.Y.shape[1], self.X.shape[1]
        coef, intercept = np.zeros((T, N)), np.zeros(T)
        value = self.value(coef, intercept)
        free = np.tile(np.arange(N + 1) < N + self.fit_intercept, T)
        for _ in range(max_iter):
            g = np.column_stack(self.gradient(coef, intercept)).ravel()[free]
            H = self.hessian(coef, intercept)
            unit = np.sqrt(np.diag(H).reshape(T, N + 1).mean(axis=0))
            unit[unit == 0] = 1
            unit = np.tile(unit, T)
            H /= np.outer(unit, unit)
            # One vector added to all classes changes no residual: any curvature will do.
            H += np.kron(np.ones((T, T)), np.eye(N + 1))
            unit = unit[free]
            step = np.zeros(T * (N + 1))
            step[free] = np.linalg.lstsq(H[free][:, free], -g / unit, rcond=1e-14)[0] / unit
            decrement = -g @ step[free]
            step = step.reshape(T, N + 1)
            t = 1.0
            while t > 1e-10:
                new = coef + t * step[:, :-1], intercept + t * step[:, -1]
                if self.value(*new) <= value - 1e-4 * t * decrement:
                    break
                t /= 2
            else:
                break  # only rounding is left
            (coef, intercept), value = new, self.value(*new)
            if decrement <= 1e-15 * value:
                break
        return coef, intercept, value

    def distance(self, a, b):
        """Σᵢ sᵢ KL(pᵃᵢ ‖ pᵇᵢ) / s̄ + λ/2 ‖Wᵃ - Wᵇ‖²: the gap of `b` where `a` is the optimum."""
        log_a, log_b = (log_softmax(self.logits(*x), axis=1) for x in (a, b))
        divergence = self.weight @ np.sum(np.exp(log_a) * (log_a - log_b), axis=1)
        return divergence + 0.5 * self.l2 * np.sum((np.asarray(a[0]) - b[0]) ** 2)


def assert_same_model(a, b, X, tol=1e-10):
    """Probabilities of two fits to one problem, each within 10 tol of the optimum.

    The mean of ‖p - p*‖₁² is at most 2 (F - F*), and F* < 1 in these problems.
    """
    distance = np.abs(a.predict_proba(X) - b.predict_proba(X)).sum(axis=1)
    assert np.sqrt(np.mean(distance**2)) <= 2 * np.sqrt(2 * 10 * tol)


def assert_same_optimum(a, b, X, tol=1e-10):
    """The same, and the mean objectives too."""
    assert_same_model(a, b, X, tol)
    assert_allclose(a.loss_curve_[-1], b.loss_curve_[-1], rtol=10 * tol)
