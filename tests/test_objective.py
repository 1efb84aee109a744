"""Value, gradient, curvature and rays against the reference, for every way to cut X."""

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose
from reference import Reference, one_hot
from scipy import sparse
from scipy.special import softmax

from skfc._design import ArrayDesign, DenseDesign, SparseDesign, make_design
from skfc._local import Curvature
from skfc._objective import Objective

N, T, n = 4, 3, 90
DESIGNS = {"dense": DenseDesign, "sparse": lambda X, b=None: SparseDesign(sparse.csr_array(X), b)}
SPLITS = [
    [slice(0, n)],
    [slice(0, 1), slice(1, n)],
    [slice(k, k + 1) for k in range(n)],
    [slice(0, 37), slice(37, 64), slice(64, n)],
]


@pytest.fixture
def data(rng):
    X, y = problems.overlapping(n_samples=n, raw=False)
    X[rng.random(X.shape) < 0.3] = 0
    return X, y, rng.uniform(0.1, 2, n)


def make(X, target, weight, C, **options):
    """The objective of one problem from plain arrays."""
    design = X if isinstance(X, ArrayDesign | SparseDesign) else make_design(X)
    return Objective(design, target, weight[None], np.array([C]), n_classes=T, **options)


def weights_of(rng, fit_intercept=True, n_problems=1):
    """Weights (P, K) of the size of one."""
    return rng.standard_normal((N + fit_intercept, T * n_problems))


def split(V, fit_intercept=True):
    """Weights (P, T) as coef (T, N) and intercept (T,)."""
    return V[:N].T, V[N] if fit_intercept else np.zeros(T)


def join(coef, intercept, fit_intercept=True):
    return np.vstack([coef.T, intercept]) if fit_intercept else coef.T


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, 10.0, np.inf])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("container", DESIGNS)
def test_value_gradient_and_curvature(data, container, soft, C, fit_intercept, rng):
    X, y, weight = data
    Y = rng.dirichlet(np.ones(T), n) if soft else one_hot(y)
    objective = make(
        DESIGNS[container](X), Y.T.copy() if soft else y, weight, C, fit_intercept=fit_intercept
    )
    F = Reference(X, Y, weight, C=C, fit_intercept=fit_intercept)
    V, D = (weights_of(rng, fit_intercept) for _ in range(2))
    point = objective.at(V)
    assert_allclose(point.value, [F.value(*split(V, fit_intercept))], rtol=1e-13)
    expected = join(*F.gradient(*split(V, fit_intercept)), fit_intercept)
    assert_allclose(point.gradient, expected, rtol=1e-11, atol=1e-13)
    Hd = F.hessian_product(*split(V, fit_intercept), *split(D, fit_intercept))
    applied = objective.curvature(point)(D)
    assert_allclose(applied, join(*Hd, fit_intercept), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("container", DESIGNS)
def test_finite_differences(data, container, rng):
    X, y, weight = data
    objective = make(DESIGNS[container](X), y, weight, 1.0)
    V, D = weights_of(rng), weights_of(rng)
    h = 1e-5
    point, ahead, behind = (objective.at(W) for W in (V, V + h * D, V - h * D))
    slope = (ahead.value - behind.value) / (2 * h)
    assert_allclose(np.sum(point.gradient * D), slope[0], rtol=1e-8)
    change = (ahead.gradient - behind.gradient) / (2 * h)
    assert_allclose(objective.curvature(point)(D), change, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("container", DESIGNS)
@pytest.mark.parametrize("blocks", SPLITS, ids=len)
def test_the_split_into_blocks_changes_only_rounding(data, container, blocks, rng):
    X, y, weight = data
    V, D = weights_of(rng), weights_of(rng)
    whole, cut = (make(DESIGNS[container](X, b), y, weight, 1.0) for b in (SPLITS[0], blocks))
    a, b = whole.at(V), cut.at(V)
    close = {"rtol": 1e-12, "atol": 1e-14}
    assert_allclose(b.value, a.value, **close)
    assert_allclose(b.gradient, a.gradient, **close)
    assert_allclose(cut.curvature(b)(D), whole.curvature(a)(D), **close)
    assert_allclose(cut.class_curvature(b), whole.class_curvature(a), **close)
    moved = [o.ray(p, D).move(np.array([0.3])) for o, p in ((whole, a), (cut, b))]
    assert_allclose(moved[1].value, moved[0].value, **close)
    assert_allclose(moved[1].gradient, moved[0].gradient, **close)


def test_float32_keeps_its_type_and_sums_in_float64(data, rng):
    X, y, weight = data
    V = weights_of(rng)
    exact = make(X, y, weight, 1.0).at(V)
    point = make(X.astype(np.float32), y, weight, 1.0).at(V)
    assert point.logits.dtype == np.float32
    assert point.value.dtype == point.gradient.dtype == np.float64
    assert_allclose(point.value, exact.value, rtol=1e-5)
    assert_allclose(point.gradient, exact.gradient, atol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("container", DESIGNS)
def test_several_problems_equal_one_at_a_time(data, container, whole, rng):
    X, y, weight = data
    C = np.array([0.1, 10.0, np.inf])
    weights = np.stack([weight, rng.uniform(0, 1, n), (np.arange(n) % 3 > 0).astype(float)])
    design = DESIGNS[container](X)
    together = Objective(design, y, weights, C, n_classes=T)
    V, D = (weights_of(rng, n_problems=3) for _ in range(2))
    point = together.at(V)
    applied, spectra = together.curvature(point)(D), together.class_curvature(point)
    steps = np.array([1.0, 0.25, 0.0])
    ray = together.ray(point, D, whole=whole)
    slope, one = ray.slope, [v.copy() for v in ray.one]
    tried = ray.evaluate(steps[:2], np.array([0, 1]))
    kept = together.take(np.array([2])).at(V[:, 2 * T :])
    moved = ray.move(steps)
    for k in range(3):
        columns = slice(k * T, (k + 1) * T)
        alone = make(design, y, weights[k], C[k])
        p = alone.at(V[:, columns])
        close = {"rtol": 1e-11, "atol": 1e-13}
        q = alone.ray(p, D[:, columns])
        assert_allclose(slope[k], q.slope[0], **close)
        assert_allclose([v[k] for v in one], [v[0] for v in q.one], **close)
        if k < 2:
            here = q.evaluate(steps[k : k + 1], np.array([0]))
            assert_allclose([v[k] for v in tried], [v[0] for v in here], **close)
        else:
            assert_allclose(kept.value, p.value, **close)
            assert_allclose(kept.gradient, p.gradient, **close)
        assert_allclose(applied[:, columns], alone.curvature(p)(D[:, columns]), **close)
        assert_allclose(spectra[k], alone.class_curvature(p)[0], **close)
        end = q.move(steps[k : k + 1])
        assert_allclose(moved.value[k], end.value[0], **close)
        assert_allclose(moved.gradient[:, columns], end.gradient, **close)
        assert_allclose(moved.logits[columns], end.logits, **close)


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 3.5])
@pytest.mark.parametrize("whole", [True, False])
def test_a_ray_agrees_with_fresh_points(data, C, t, whole, rng):
    X, y, weight = data
    objective = make(X, y, weight, C)
    V, D = weights_of(rng), weights_of(rng)
    fresh = objective.at(V + t * D)
    ray = objective.ray(objective.at(V), D, whole=whole)
    assert_allclose(ray.slope[0], np.sum(objective.at(V).gradient * D), rtol=1e-12)
    value, slope = ray.evaluate(np.array([t]), np.array([0]))
    assert_allclose(value, fresh.value, rtol=1e-12)
    assert_allclose(slope[0], np.sum(fresh.gradient * D), rtol=1e-10, atol=1e-13)
    if t == 1.0:
        assert_allclose(ray.one[0], fresh.value, rtol=1e-12)
        assert_allclose(ray.one[1][0], np.sum(fresh.gradient * D), rtol=1e-10)
    moved = ray.move(np.array([t]))
    assert_allclose(moved.weights, V + t * D, rtol=1e-14)
    assert_allclose(moved.logits, fresh.logits, rtol=1e-11, atol=1e-12)
    assert_allclose(moved.value, fresh.value, rtol=1e-12)
    assert_allclose(moved.gradient, fresh.gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("container", DESIGNS)
def test_curvature_row_by_row(data, container, fit_intercept, rng):
    X, y, weight = data
    weights = np.stack([weight, (np.arange(n) % 3 > 0).astype(float)])
    objective = Objective(
        DESIGNS[container](X, SPLITS[3]), y, weights, np.full(2, np.inf), n_classes=T,
        fit_intercept=fit_intercept,
    )  # fmt: skip
    V, D = (weights_of(rng, fit_intercept, n_problems=2) for _ in range(2))
    H = objective.curvature(objective.at(V))
    assert_allclose(H.along(D).sum(axis=1), objective.dot(D, H(D)), rtol=1e-12)
    for share in (0.04, 0.3):  # few rows are copied
        some = rng.random((2, n)) < share
        assert some.any()
        assert_allclose(H.of(some)(D) + H.of(~some)(D), H(D), rtol=1e-11, atol=1e-13)
        along = np.where(some, H.along(D), 0.0).sum(axis=1)
        assert_allclose(objective.dot(D, H.of(some)(D)), along, rtol=1e-11, atol=1e-14)
    dz = (X @ D[:N] + (D[N] if fit_intercept else 0.0)).reshape(n, 2, T)
    expected = np.where(weights > 0, np.ptp(dz, axis=2).T, 0.0)
    assert_allclose(H.moves(D), expected, rtol=1e-12)


def test_class_curvature_is_the_mean_over_rows(data, rng):
    X, y, weight = data
    V = weights_of(rng)
    objective = make(X, y, weight, 1.0)
    P = softmax(X @ V[:N] + V[N], axis=1)
    expected = np.mean(
        [
            w / weight.mean() * (np.diag(p) - np.outer(p, p))
            for w, p in zip(weight, P, strict=True)
        ],
        axis=0,
    )
    assert_allclose(objective.class_curvature(objective.at(V))[0], expected, atol=1e-14)


def test_separates_looks_at_rows_with_weight():
    X = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
    y = np.array([0, 1, 2, 1])
    V = np.vstack([10 * np.eye(4, T), np.zeros(T)])
    for weight, answer in ((np.ones(4), False), (np.array([1.0, 1, 1, 0]), True)):
        objective = make(X, y, weight, np.inf)
        assert objective.separates(objective.at(V)).tolist() == [answer]


def test_inputs_are_not_mutated(data, rng):
    X, y, weight = data
    V, D = weights_of(rng), weights_of(rng)
    before = [a.copy() for a in (X, y, weight, V, D)]
    objective = make(X, y, weight, 1.0)
    point = objective.at(V)
    logits = point.logits.copy()
    objective.curvature(point)(D)
    objective.class_curvature(point)
    objective.separates(point)
    assert_allclose(point.logits, logits, rtol=0, atol=0)
    objective.ray(point, D).move(np.array([0.5]))
    for a, b in zip((X, y, weight, V, D), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("whole", [True, False])
def test_array_api(data, C, soft, whole, rng):
    """Points, rays and curvature under the strict namespace equal those of NumPy."""
    xp = pytest.importorskip("array_api_strict")
    X, y, weight = data
    target = rng.dirichlet(np.ones(T), n).T.copy() if soft else y
    V, D = weights_of(rng), weights_of(rng)
    plain = make(X, target, weight, C)
    strict = Objective(
        make_design(xp.asarray(X)), xp.asarray(target), xp.asarray(weight[None]),
        xp.asarray([C]), n_classes=T,
    )  # fmt: skip
    close = {"rtol": 1e-11, "atol": 1e-13}
    a, b = plain.at(V), strict.at(xp.asarray(V))
    assert_allclose(np.asarray(b.value), a.value, **close)
    assert_allclose(np.asarray(b.gradient), a.gradient, **close)
    Hd = strict.curvature(b)(xp.asarray(D))
    assert_allclose(np.asarray(Hd), plain.curvature(a)(D), **close)
    p, q = plain.ray(a, D), strict.ray(b, xp.asarray(D), whole=whole)
    assert_allclose(np.asarray(q.slope), p.slope, **close)
    for s, r in zip(q.one, p.one, strict=True):
        assert_allclose(np.asarray(s), r, **close)
    t, which = np.array([0.3]), np.array([0])
    for s, r in zip(
        q.evaluate(xp.asarray(t), xp.asarray(which)), p.evaluate(t, which), strict=True
    ):
        assert_allclose(np.asarray(s), r, **close)
    end, strict_end = p.move(t), q.move(xp.asarray(t))
    assert_allclose(np.asarray(strict_end.value), end.value, **close)
    assert_allclose(np.asarray(strict_end.gradient), end.gradient, **close)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.1, np.inf])
def test_another_penalty_is_another_C(data, C, fit_intercept, rng):
    X, y, weight = data
    V = weights_of(rng, fit_intercept)
    first, other = (make(X, y, weight, c, fit_intercept=fit_intercept) for c in (2.0, C))
    changed, seen = first.with_penalty(other.l2, first.at(V))
    expected = other.at(V)
    assert_allclose(seen.value, expected.value, rtol=1e-13)
    assert_allclose(seen.gradient, expected.gradient, rtol=1e-12, atol=1e-15)
    D = weights_of(rng, fit_intercept)
    assert_allclose(changed.curvature(seen)(D), other.curvature(expected)(D), rtol=1e-12)


def test_passes_are_counted_once_for_all_views(data, rng):
    X, y, weight = data
    objective = make(X, y, weight, 1.0)
    point = objective.at(weights_of(rng))
    changed, point = objective.with_penalty(objective.l2 * 10, point)
    changed.ray(point, weights_of(rng))
    half = changed.on_rows(DenseDesign(X[::2]), weight[None, ::2])
    Curvature(half, point.logits[:, ::2].copy())(weights_of(rng))
    assert objective.work.passes == 2.5


@pytest.mark.parametrize(
    ("whole", "t", "passes"), [(True, 1, 1), (True, 0.5, 1.5), (False, 1, 1), (False, 0.5, 1)]
)
def test_a_step_costs_one_pass(data, whole, t, passes, rng):
    """Half more only where the gradient has come with step one and another was taken."""
    X, y, weight = data
    objective = make(X, y, weight, 1.0)
    point = objective.at(np.zeros((N + 1, T)))
    assert objective.work.passes == 0.5  # there are no logits to compute
    objective.ray(point, weights_of(rng), whole=whole).move(np.array([t]))
    assert objective.work.passes == 0.5 + passes
