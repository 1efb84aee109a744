"""softmax, log_softmax and softmax_cross_entropy as the public functions they are."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfc import SoftmaxFCClassifier, log_softmax, softmax, softmax_cross_entropy
from skfc._softmax import kernel
from skfc._targets import settle

EPS = np.finfo(float).eps
# Probabilities of five classes, the fourth of which is true.
WORKED = {
    0.6: [0.1, 0.15, 0.05, 0.6, 0.1],
    0.1: [0.15, 0.2, 0.4, 0.1, 0.15],
    0.3: [0.05, 0.15, 0.4, 0.3, 0.1],
}
FORMS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "class weights": {"class_weight": {0: 2.0, 2: 0.3}},
    "both": {"class_weight": {0: 2.0, 2: 0.3}, "label_smoothing": 0.25},
}


@pytest.fixture
def data(rng):
    return 3 * rng.standard_normal((40, 4)), rng.integers(0, 4, 40), rng.dirichlet(np.ones(4), 40)


@pytest.fixture(params=["numpy", "array_api_strict"])
def xp(request):
    return np if request.param == "numpy" else pytest.importorskip("array_api_strict")


def by_loops(logits, y, s, class_weight=None, label_smoothing=0.0):
    """Weights and losses of rows, term by term: sum_k w_k y'_k, and that with -log p_k."""
    n, T = logits.shape
    weight, loss = np.zeros(n), np.zeros(n)
    for i in range(n):
        p = np.exp(logits[i]) / sum(np.exp(logits[i]))
        for k in range(T):
            row = float(y[i] == k) if y.ndim == 1 else y[i, k]
            term = (1 - label_smoothing) * row + label_smoothing / T
            term *= s[i] * (class_weight or {}).get(k, 1.0)
            weight[i] += term
            loss[i] -= term * np.log(p[k])
    return weight, loss


@pytest.mark.parametrize(("share", "p"), WORKED.items())
def test_worked_values(share, p, xp):
    logits = xp.asarray(np.log(p))
    assert_allclose(np.asarray(softmax(logits)), p, rtol=4 * EPS)
    expected = -np.log(share)
    one_hot = [0.0, 0.0, 0.0, 1.0, 0.0]
    shifted = logits + 7.0  # adds rounding of its own
    for y in (xp.asarray(3), xp.asarray(one_hot)):
        assert_allclose(softmax_cross_entropy(logits, y), expected, rtol=4 * EPS)
        assert_allclose(softmax_cross_entropy(shifted, y), expected, rtol=100 * EPS)
    together = xp.stack([logits, logits])
    labels = xp.asarray([3, 3])
    assert_allclose(softmax_cross_entropy(together, labels), expected, rtol=4 * EPS)
    assert isinstance(softmax_cross_entropy(together, labels), float)


def test_lists_are_arrays(data):
    logits, y, _ = data
    assert_array_equal(softmax(logits.tolist()), softmax(logits))
    assert_array_equal(log_softmax(logits.tolist()), log_softmax(logits))
    loss = softmax_cross_entropy(logits, y)
    assert softmax_cross_entropy(logits.tolist(), y.tolist(), [1] * 40) == loss


@pytest.mark.parametrize("size", [1e4, 1e300])
def test_huge_logits(size, xp):
    logits = xp.asarray([[size, 0.0, -size], [-size, -size, -size], [-size, size, size]])
    proba = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5]]
    assert_allclose(np.asarray(softmax(logits)), proba, rtol=EPS)  # no atol: zeros are zeros
    one, two, three = np.log([1, 2, 3])
    expected = [[one, -size, -2 * size], [-three] * 3, [-2 * size - two, -two, -two]]
    assert_allclose(np.asarray(log_softmax(logits)), expected, rtol=EPS)
    loss = softmax_cross_entropy(logits[0, :], xp.asarray(2))
    assert_allclose(loss, 2 * size, rtol=EPS)


def test_spans_beyond_the_largest_float_raise_no_warning():
    assert_array_equal(softmax([1.7e308, -1.7e308]), [1, 0])
    assert softmax_cross_entropy([1.7e308, -1.7e308], 0) == 0
    assert softmax_cross_entropy([1.7e308, -1.7e308], 1) == np.inf


def test_laws(data, xp):
    logits = xp.asarray(data[0])
    proba, log_proba = np.asarray(softmax(logits)), np.asarray(log_softmax(logits))
    assert_allclose(proba.sum(axis=1), 1, rtol=4 * EPS)
    assert_allclose(np.exp(log_proba), proba, rtol=20 * EPS)
    assert_allclose(np.asarray(log_softmax(xp.asarray(log_proba))), log_proba, rtol=20 * EPS)
    shifted = np.asarray(softmax(logits + 5.0))
    assert_allclose(shifted, proba, rtol=50 * EPS)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (2, 1, 5, 3)])
def test_the_last_axis_holds_the_classes(shape, rng, xp):
    logits = rng.standard_normal(shape)
    flat = logits.reshape(-1, 3)
    labels = rng.integers(0, 3, shape[:-1])
    for function in (softmax, log_softmax):
        out = function(xp.asarray(logits))
        assert out.shape == shape
        assert_array_equal(np.asarray(out).reshape(-1, 3), function(flat))
    loss = softmax_cross_entropy(xp.asarray(logits), xp.asarray(labels))
    assert_allclose(loss, softmax_cross_entropy(flat, labels.ravel()), rtol=10 * EPS)
    rows = np.eye(3)[labels]
    one_hot = softmax_cross_entropy(xp.asarray(logits), xp.asarray(rows))
    assert_allclose(one_hot, loss, rtol=10 * EPS)


def test_types(xp):
    for dtype in (xp.float32, xp.float64):
        logits = xp.asarray([[1.0, 2.0]], dtype=dtype)
        assert softmax(logits).dtype == log_softmax(logits).dtype == dtype
    whole = [xp.asarray([[0, 1]], dtype=dtype) for dtype in (xp.int64, xp.uint8)]
    for logits in [*whole, xp.asarray([[False, True]])]:
        assert softmax(logits).dtype == log_softmax(logits).dtype == xp.float64
        assert_array_equal(np.asarray(softmax(logits)), softmax([[0.0, 1.0]]))
    assert_array_equal(softmax(np.float16([1, 2])), softmax([1.0, 2.0]))


def test_minus_infinity_is_a_class_that_cannot_occur():
    logits = np.array([0.0, -np.inf, 1.0])
    assert_array_equal(softmax(logits)[[0, 2]], softmax(logits[[0, 2]]))
    assert softmax(logits)[1] == 0
    assert_array_equal(log_softmax(logits)[1], -np.inf)
    loss = softmax_cross_entropy(logits, [0.5, 0.0, 0.5])
    assert_allclose(loss, softmax_cross_entropy(logits[[0, 2]], [0.5, 0.5]), rtol=4 * EPS)
    assert softmax_cross_entropy(logits, 1) == np.inf
    assert softmax_cross_entropy(logits, 0, label_smoothing=0.1) == np.inf


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_cross_entropy_term_by_term(data, options, soft, rng, xp):
    logits, labels, rows = data
    y, s = (rows if soft else labels), rng.uniform(0, 2, 40)
    weight, loss = by_loops(logits, y, s, **options)
    arrays = [xp.asarray(a) for a in (logits, y, s)]
    assert_allclose(
        softmax_cross_entropy(*arrays, **options), loss.sum() / weight.sum(), rtol=1e-14
    )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_the_kernels_hold_its_gradient(data, options, soft, rng, xp):
    """Central differences of the public function against the residual of the settled targets."""
    logits, labels, rows = data
    y, s = (rows if soft else labels), rng.uniform(0, 2, 40)
    targets = settle(
        np.arange(4), y.T if soft else y, s,
        options.get("class_weight"), options.get("label_smoothing", 0.0),
    )  # fmt: skip
    total = targets.weight.sum()
    block = np.ascontiguousarray(logits.T)[None]
    arrays = map(xp.asarray, (block, targets.target, targets.weight[None]))
    loss, residual = map(np.asarray, kernel(xp).residual(*arrays))
    assert_allclose(softmax_cross_entropy(logits, y, s, **options), loss[0] / total, rtol=1e-14)
    h = 1e-5
    for i, k in [(0, 0), (3, 1), (17, 2), (39, 3)]:
        ahead, behind = logits.copy(), logits.copy()
        ahead[i, k] += h
        behind[i, k] -= h
        slope = softmax_cross_entropy(ahead, y, s, **options)
        slope -= softmax_cross_entropy(behind, y, s, **options)
        # Third derivative times h²/6, and the rounding of a loss of order 1 over 2h.
        assert_allclose(slope / (2 * h), residual[0, k, i] / total, atol=1e-10, rtol=1e-9)


def test_weights(data):
    logits, y, _ = data
    repeats = np.arange(40) % 3
    weighted = softmax_cross_entropy(logits, y, repeats)
    repeated = softmax_cross_entropy(np.repeat(logits, repeats, 0), np.repeat(y, repeats))
    assert_allclose(weighted, repeated, rtol=1e-14)
    for unit in (1e-300, 5e307):  # whose sum overflows
        scaled = softmax_cross_entropy(logits, y, unit * repeats)
        assert_allclose(scaled, weighted, rtol=1e-14)


def test_balanced_counts_weighted_unsmoothed_rows(data, rng):
    logits, y, _ = data
    y[y == 3] = 2  # a class without rows
    s = rng.uniform(0, 2, 40)
    counts = np.bincount(y, s, minlength=4)
    balanced = {k: s.sum() / (3 * counts[k]) for k in range(3)}
    for a in (0.0, 0.2):
        found = softmax_cross_entropy(logits, y, s, class_weight="balanced", label_smoothing=a)
        expected = softmax_cross_entropy(logits, y, s, class_weight=balanced, label_smoothing=a)
        assert_allclose(found, expected, rtol=1e-14)


def test_it_is_the_loss_that_the_classifier_minimises(data):
    """At C=inf, the mean objective of the fit is the function of its logits."""
    X, _, rows = data
    options = {"class_weight": {0: 2.0, 2: 0.3}, "label_smoothing": 0.1}
    s = np.linspace(0.5, 1.5, len(X))
    model = SoftmaxFCClassifier(C=np.inf, tol=1e-10, **options).fit(X, rows, s)
    best = softmax_cross_entropy(model.decision_function(X), rows, s, **options)
    assert_allclose(model.loss_curve_[-1], best, rtol=1e-12)
    for step in (-1e-3, 1e-3):
        moved = model.decision_function(X) + step * X[:, [0]] * [1, 0, 0, 0]
        assert softmax_cross_entropy(moved, rows, s, **options) > best


def test_inputs_are_not_mutated(data):
    logits, y, rows = data
    copies = [a.copy() for a in (logits, y, rows)]
    s = np.ones(40)
    softmax(logits)
    log_softmax(logits)
    softmax_cross_entropy(logits, y, s, class_weight="balanced", label_smoothing=0.1)
    softmax_cross_entropy(logits, rows, s, class_weight="balanced", label_smoothing=0.1)
    for before, after in zip([*copies, np.ones(40)], [logits, y, rows, s], strict=True):
        assert_array_equal(before, after)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_equals_torch(data, options, soft):
    torch = pytest.importorskip("torch")
    logits, labels, rows = data
    y = rows if soft else labels
    w = [options.get("class_weight", {}).get(k, 1.0) for k in range(4)]
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(y), weight=torch.tensor(w, dtype=torch.float64),
        label_smoothing=options.get("label_smoothing", 0.0), reduction="none",
    )  # fmt: skip
    weight, _ = by_loops(logits, y, np.ones(40), **options)
    for i in range(40):
        ours = weight[i] * softmax_cross_entropy(logits[i], y[i], **options)
        assert_allclose(ours, float(theirs[i]), rtol=1e-12)
    ours = weight.sum() * softmax_cross_entropy(logits, y, **options)
    assert_allclose(ours, float(theirs.sum()), rtol=1e-12)


Z = np.zeros((2, 3))
WRONG_LOGITS = {
    "no axis": (1.0, ValueError, "last axis"),
    "no class": (np.zeros((2, 0)), ValueError, "last axis"),
    "NaN": ([[0.0, np.nan]], ValueError, "NaN"),
    "infinity": ([[0.0, np.inf]], ValueError, "infinity"),
    "nothing but -inf": ([[-np.inf, -np.inf]], ValueError, "-inf"),
    "text": ([["a", "b"]], TypeError, "real numbers"),
    "complex": ([[1j, 0]], TypeError, "real numbers"),
    "object": (np.array([[0.0, None]]), TypeError, "real numbers"),
}
WRONG_ARGUMENTS = {
    "labels beyond": ({"y": [0, 3]}, ValueError, r"0 \.\.\. 2; got 0 \.\.\. 3"),
    "labels below": ({"y": [0, -1]}, ValueError, r"0 \.\.\. 2; got -1 \.\.\. 0"),
    "labels of another length": ({"y": [0, 1, 2]}, ValueError, r"got \(3,\)"),
    "rows of another width": ({"y": np.eye(2)}, ValueError, r"got \(2, 2\)"),
    "float labels": ({"y": [0.0, 1.5]}, TypeError, "integers"),
    "text labels": ({"y": ["a", "b"]}, TypeError, "integers"),
    "text rows": ({"y": np.full((2, 3), "a")}, TypeError, "real numbers"),
    "rows that sum to more": ({"y": [[1, 0, 0], [1, 1, 0]]}, ValueError, "row 1 sums to 2"),
    "negative": ({"y": [[1, 0, 0], [1.5, -0.5, 0]]}, ValueError, "negative entry, -0.5"),
    "NaN": ({"y": [[1, 0, 0], [np.nan, 0, 1]]}, ValueError, "NaN"),
    "weights of another length": ({"sample_weight": [1.0]}, ValueError, r"shape \(2,\)"),
    "negative weight": ({"sample_weight": [1, -2]}, ValueError, "negative; got -2"),
    "infinite weight": ({"sample_weight": [1, np.inf]}, ValueError, "NaN or infinity"),
    "no weight": ({"sample_weight": [0, 0]}, ValueError, "zero everywhere"),
    "text weight": ({"sample_weight": ["a", "b"]}, TypeError, "real numbers"),
    "unknown class": ({"class_weight": {3: 1.0}}, ValueError, r"\[3\]"),
    "negative class weight": ({"class_weight": {0: -1}}, ValueError, "finite weights >= 0"),
    "text class weight": ({"class_weight": {0: "a"}}, ValueError, "finite weights >= 0"),
    "another word": ({"class_weight": "even"}, ValueError, "'balanced'"),
    "a list": ({"class_weight": [1, 1, 1]}, ValueError, "dict"),
    "no class weight": ({"class_weight": {0: 0, 1: 0}}, ValueError, "zero for every class"),
    "smoothing of one": ({"label_smoothing": 1.0}, ValueError, r"\[0, 1\); got 1.0"),
    "negative smoothing": ({"label_smoothing": -0.1}, ValueError, r"\[0, 1\); got -0.1"),
    "NaN smoothing": ({"label_smoothing": np.nan}, ValueError, r"\[0, 1\)"),
    "text smoothing": ({"label_smoothing": "a"}, TypeError, "label_smoothing"),
    "flag smoothing": ({"label_smoothing": True}, TypeError, "label_smoothing"),
}


@pytest.mark.parametrize(("logits", "error", "message"), WRONG_LOGITS.values(), ids=WRONG_LOGITS)
def test_wrong_logits(logits, error, message):
    for call in (softmax, log_softmax, lambda z: softmax_cross_entropy(z, 0)):
        with pytest.raises(error, match=message):
            call(logits)


@pytest.mark.parametrize(
    ("wrong", "error", "message"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS
)
def test_wrong_arguments(wrong, error, message):
    with pytest.raises(error, match=message):
        softmax_cross_entropy(**{"logits": Z, "y": [0, 1], **wrong})


def test_tensors_stay_tensors(monkeypatch):
    """With array_api_compat; without it they are read as NumPy arrays."""
    torch = pytest.importorskip("torch")
    logits = np.array([[0.0, 1.0], [2.0, -1.0]])
    for function in (softmax, log_softmax):
        found = function(torch.asarray(logits))
        assert isinstance(found, torch.Tensor)
        assert_allclose(found, function(logits))
    loss = softmax_cross_entropy(torch.asarray(logits), torch.asarray([0, 1]))
    assert loss == softmax_cross_entropy(logits, [0, 1])
    monkeypatch.setattr("skfc._namespaces.find_spec", lambda name: None)
    assert isinstance(softmax(torch.asarray(logits)), np.ndarray)
