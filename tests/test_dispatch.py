"""Arrays of other libraries, as users pass them: `array_api_dispatch=True`."""

import copy
import pickle
import re
from pathlib import Path

import array_api_strict
import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context, metrics
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.utils import get_tags

from skfc import (
    SoftmaxFCClassifier,
    SoftmaxFCClassifierCV,
    _array,
    _input,
    _problem,
    l1_min_C,
    neg_log_loss_scorer,
)
from skfc._array import TEMPORARIES, is_numpy, namespace, to_numpy
from skfc._classifier import prepare
from skfc._namespaces import TF32
from skfc._tuned import override

pytestmark = pytest.mark.usefixtures("dispatch")

n, N, T = 120, 4, 3


class Strict:
    """Arrays of array_api_strict on one of its devices: nothing but the standard, no NumPy."""

    def __init__(self, device):
        self.device = device

    def __call__(self, values):
        device = array_api_strict.Device(self.device)
        return array_api_strict.asarray(np.asarray(values), device=device)

    def holds(self, array):
        kind, device = type(self(0)), array_api_strict.Device(self.device)
        return isinstance(array, kind) and array.device == device


class Torch:
    """Tensors, which NumPy reads in place; or as if they were out of its reach."""

    def __call__(self, values):
        return pytest.importorskip("torch").asarray(np.asarray(values))

    def holds(self, array):
        return isinstance(array, type(self(0.0)))


LIBRARIES = {
    "strict": Strict("CPU_DEVICE"), "strict device": Strict("device1"),
    "torch": Torch(), "torch device": Torch(),
}  # fmt: skip


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    """A function from NumPy's arrays to those of a library."""
    if request.param == "torch device":  # as the memory of an accelerator is
        monkeypatch.setattr(_input, "in_memory", lambda X: X)
    return LIBRARIES[request.param]


@pytest.fixture(params=["strict device", "torch"])
def some(request):
    """The same of two libraries, where all would tell no more."""
    return LIBRARIES[request.param]


def data(dtype="float64", raw=True):
    X, y = problems.overlapping(n, N, T, raw=raw)
    return X.astype(dtype), y


def objective(model, X, y, C=1.0):
    """The mean objective of coefficients, in float64, from the definition."""
    coef, b = (to_numpy(a).astype(float) for a in (model.coef_, model.intercept_))
    Z = X.astype(float) @ coef.T + b
    loss = np.log(np.exp(Z - Z.max(1, keepdims=True)).sum(1)) + Z.max(1) - Z[np.arange(len(y)), y]
    return loss.mean() + (coef**2).sum() / (2 * C * len(y))


METHODS = "decision_function", "predict", "predict_proba", "predict_log_proba"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_fit_is_that_of_numpy(library, dtype):
    """The same objective, attributes and results of the library, device and type of X."""
    X, y = data(dtype, raw=dtype == "float64")
    options = {"tol": 1e-10} if dtype == "float64" else {}
    here = SoftmaxFCClassifier(**options).fit(X, y)
    there = SoftmaxFCClassifier(**options).fit(library(X), library(y))
    close = 1e-10 if dtype == "float64" else 1e-5
    assert_allclose(objective(there, X, y), objective(here, X, y), rtol=close)
    assert there.optimality_gap_ <= there.tol
    least = objective(SoftmaxFCClassifier(tol=1e-14).fit(X.astype(float), y), X, y)
    assert objective(there, X, y) / least - 1 <= 10 * there.optimality_gap_ + 1e-14
    for name, value in vars(here).items():
        if isinstance(value, np.ndarray):
            other = getattr(there, name)
            assert library.holds(other), name
            assert to_numpy(other).dtype == value.dtype
            assert to_numpy(other).shape == value.shape
    for name in METHODS:
        found = getattr(there, name)(library(X))
        assert library.holds(found), name
        expected = getattr(here, name)(X)
        assert to_numpy(found).dtype == expected.dtype
        assert_allclose(to_numpy(found), expected, atol=1e-4, rtol=1e-2)
    for name in ("score", "log_loss"):
        for labels in (y, library(y), y.tolist()):
            found = getattr(there, name)(library(X), labels)
            assert isinstance(found, float)
            assert found == pytest.approx(getattr(here, name)(X, y), rel=1e-4)


def test_devices_without_float64():
    """Everything is then computed in float32."""
    to = Strict("no_float64")
    X, y = data("float32", raw=False)
    here, there = (SoftmaxFCClassifier(tol=1e-5) for _ in range(2))
    here.fit(X, y)
    there.fit(to(X), to(y.astype(np.int32)))
    assert_allclose(objective(there, X, y), objective(here, X, y), rtol=1e-5)
    assert to.holds(there.predict_proba(to(X)))
    assert there.log_loss(to(X), y) == pytest.approx(here.log_loss(X, y), rel=1e-4)


def test_predictions_in_blocks_of_rows(library, monkeypatch):
    X, y = data()
    model = SoftmaxFCClassifier().fit(library(X), y)
    whole = [to_numpy(getattr(model, name)(library(X))) for name in METHODS]
    losses = model.log_loss(library(X), y)
    monkeypatch.setattr("skfc._prediction.BLOCK_BYTES", 500)
    for name, expected in zip(METHODS, whole, strict=True):
        assert_allclose(to_numpy(getattr(model, name)(library(X))), expected, atol=1e-12)
    assert model.log_loss(library(X), y) == pytest.approx(losses)


def test_blocks_of_rows_follow_the_free_memory_of_a_device(library, monkeypatch):
    """Blocks take a share of it, down to a row each; the fit is the same."""
    X, y = data()
    room = 40_000
    model = SoftmaxFCClassifier(tol=1e-10).fit(library(X), y)
    monkeypatch.setattr(_array, "free_memory", lambda array: room)
    rows = prepare(model, library(X), y, None).rows
    blocks = rows.blocks
    assert sum(block.stop - block.start for block in blocks) == n
    if not is_numpy(rows.X):  # the memory of the CPU has a cache to fit into
        assert len(blocks) > 1
        assert (blocks[0].stop - blocks[0].start) * (N + T) * 8 * TEMPORARIES <= room / 8
    other = SoftmaxFCClassifier(tol=1e-10).fit(library(X), y)
    assert_allclose(to_numpy(other.coef_), to_numpy(model.coef_), rtol=1e-3, atol=1e-5)
    assert other.log_loss(library(X), y) == pytest.approx(model.log_loss(library(X), y))


Y = {
    "text": lambda y: np.array(["x", "y", "z"])[y],
    "a list": lambda y: y.tolist(),
    "one-hot rows": lambda y: np.eye(T)[y],
    "probability rows": lambda y: 0.9 * np.eye(T)[y] + 0.1 / T,
}


@pytest.mark.parametrize("kind", Y)
def test_targets_and_weights_may_be_elsewhere(library, kind, rng):
    """On the host or on the device, as the parameters for them say."""
    X, y = data()
    y = Y[kind](y)
    weight = rng.uniform(0.5, 2, n)
    options = {"label_smoothing": 0.1, "class_weight": "balanced", "tol": 1e-10}
    here = SoftmaxFCClassifier(**options).fit(X, y, sample_weight=weight)
    expected = here.log_loss(X, y, sample_weight=weight), here.score(X, y, sample_weight=weight)
    moves = [lambda a: a, library if np.asarray(y).dtype.kind != "U" else lambda a: a]
    for move in moves:
        there = SoftmaxFCClassifier(**options)
        there.fit(library(X), move(y), sample_weight=move(weight))
        assert_allclose(to_numpy(there.coef_), here.coef_, rtol=1e-3, atol=1e-5)
        found = (
            there.log_loss(library(X), move(y), sample_weight=move(weight)),
            there.score(library(X), move(y), sample_weight=move(weight)),
        )
        assert_allclose(found, expected, rtol=1e-5)
    predicted = there.predict(library(X))
    assert_array_equal(to_numpy(predicted), here.predict(X))
    assert library.holds(predicted) == (kind != "text")  # which libraries of numbers do not hold


def test_classes_without_weight(some):
    X, y = data()
    y = np.minimum(y, 1)
    here, there = (SoftmaxFCClassifier(classes=[0, 1, 2]) for _ in range(2))
    here.fit(X, y)
    there.fit(some(X), y)
    assert_allclose(to_numpy(there.predict_proba(some(X))), here.predict_proba(X), atol=1e-4)
    assert some.holds(there.intercept_)


@pytest.mark.parametrize("given", [True, False])
def test_early_stopping(some, given):
    X, y = data()
    models = []
    for move in (lambda a: a, some):
        held_out = {"X_val": move(X[::3]), "y_val": y[::3]} if given else {}
        model = SoftmaxFCClassifier(early_stopping=True, random_state=0)
        models.append(model.fit(move(X), move(y), **held_out))
    here, there = models
    assert some.holds(there.validation_curve_)
    assert_allclose(to_numpy(there.validation_curve_), here.validation_curve_, rtol=1e-5)


def test_warm_start(library):
    X, y = data()
    model = SoftmaxFCClassifier(warm_start=True, tol=1e-8).fit(library(X), library(y))
    assert model.fit(library(X), library(y)).n_iter_ == 0


def test_elastic_net(some):
    X, y = data()
    C = 3 * l1_min_C(some(X), some(y))
    assert pytest.approx(3 * l1_min_C(X, y)) == C
    here, there = (SoftmaxFCClassifier(C=C, l1_ratio=1.0) for _ in range(2))
    here.fit(X, y)
    there.fit(some(X), some(y))
    assert_array_equal(to_numpy(there.coef_) == 0, here.coef_ == 0)


# -- the search -----------------------------------------------------------------------------------


def accuracy(estimator, X, y):
    return estimator.score(X, y)


at_the_end = pytest.mark.filterwarnings("ignore:C_=")  # of the grid
SCORING = {
    "none": None, "accuracy": "accuracy", "log loss": "neg_log_loss",
    "own scorer": neg_log_loss_scorer, "function": accuracy,
}  # fmt: skip


if not hasattr(metrics, "d2_brier_score"):  # before 1.8 scikit-learn's log loss is NumPy's
    del SCORING["log loss"]


@at_the_end
@pytest.mark.parametrize("scoring", SCORING)
def test_a_search_is_that_of_numpy(library, scoring):
    X, y = data()
    options = {"Cs": [0.1, 1.0], "cv": 2, "scoring": SCORING[scoring], "tol": 1e-10}
    here = SoftmaxFCClassifierCV(**options).fit(X, y)
    there = SoftmaxFCClassifierCV(**options).fit(library(X), library(y))
    assert there.C_ == here.C_
    for name, value in vars(here).items():
        if isinstance(value, np.ndarray):
            assert library.holds(getattr(there, name)), name
            if name != "loss_curve_":
                assert_allclose(to_numpy(getattr(there, name)), value, rtol=1e-3, atol=1e-5)
    assert_array_equal(to_numpy(there.predict(library(X))), here.predict(X))
    assert there.score(library(X), library(y)) == pytest.approx(here.score(X, y), rel=1e-5)


@at_the_end
def test_a_search_with_weights_and_text(some, rng):
    X, y = data()
    labels, weight = np.array(["x", "y", "z"])[y], rng.uniform(0.5, 2, n)
    options = {"Cs": [0.1, 1.0], "l1_ratios": (0.0, 0.5), "cv": 2, "refit": False}
    options["scoring"] = "accuracy"
    here = SoftmaxFCClassifierCV(**options).fit(X, labels, sample_weight=weight)
    there = SoftmaxFCClassifierCV(**options).fit(some(X), labels, sample_weight=some(weight))
    assert_allclose(to_numpy(there.scores_), here.scores_)
    assert_allclose(to_numpy(there.coef_), here.coef_, rtol=1e-3, atol=1e-5)
    weighted = there.score(some(X), labels, sample_weight=some(weight))
    assert weighted == pytest.approx(here.score(X, labels, sample_weight=weight))


def test_scikit_learns_search(dispatch):
    torch = pytest.importorskip("torch")
    X, y = data()
    scoring = make_scorer(lambda a, b: float((torch.asarray(a) == torch.asarray(b)).sum()))
    search = GridSearchCV(SoftmaxFCClassifier(), {"C": [0.1, 1.0]}, cv=2, scoring=scoring)
    assert search.fit(torch.asarray(X), torch.asarray(y)).best_score_ > 0


# -- moving, copying, and what is refused ---------------------------------------------------------


@pytest.mark.parametrize("change", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(some, change):
    X, y = data()
    model = SoftmaxFCClassifier().fit(some(X), some(y))
    other = change(model)
    assert_array_equal(
        to_numpy(other.predict_proba(some(X))), to_numpy(model.predict_proba(some(X)))
    )


def test_without_dispatching_results_are_numpys(library):
    """Of a model that was fitted elsewhere, and of tensors in the memory of the CPU."""
    X, y = data()
    model = SoftmaxFCClassifier().fit(library(X), library(y))
    proba = to_numpy(model.predict_proba(library(X)))
    with config_context(array_api_dispatch=False):
        found = model.predict_proba(X)
        assert isinstance(found, np.ndarray)
        assert_allclose(found, proba, atol=1e-12)
        assert isinstance(model.predict(X), np.ndarray)
        assert model.score(X, y) > 0
        assert isinstance(model.partial_fit(X, y).coef_, np.ndarray)


def test_other_places_than_that_of_the_fit(some):
    X, y = data()
    moved, plain = SoftmaxFCClassifier().fit(some(X), y), SoftmaxFCClassifier().fit(X, y)
    for name in METHODS:
        message = rf"SoftmaxFCClassifier\.{name}\(\) must use the same namespace"
        for model, rows in ((moved, X), (plain, some(X)), (moved, sparse.csr_array(X))):
            with pytest.raises(ValueError, match=message):
                getattr(model, name)(rows)
    with pytest.raises(ValueError, match=r"log_loss\(\) must use the same namespace"):
        moved.log_loss(X, y)
    with pytest.raises(ValueError, match=r"X_val of fit\(\) must use the same namespace"):
        SoftmaxFCClassifier(early_stopping=True).fit(some(X), y, X_val=X, y_val=y)
    other = Strict("device2")
    with pytest.raises(ValueError, match="the same device"):
        SoftmaxFCClassifier().fit(Strict("device1")(X), y).predict(other(X))


def test_sparse_rows_are_fitted_as_ever(some):
    X, y = data()
    expected = SoftmaxFCClassifier().fit(sparse.csr_array(X), y)
    found = SoftmaxFCClassifier().fit(sparse.csr_array(X), some(y), sample_weight=some(np.ones(n)))
    assert isinstance(found.coef_, np.ndarray)
    assert_array_equal(found.coef_, expected.coef_)
    assert_array_equal(found.predict(sparse.csr_array(X)), expected.predict(sparse.csr_array(X)))


def test_collections_of_dask_are_fitted_as_ever():
    da = pytest.importorskip("dask.array")
    X, y = data()
    lazy = (da.from_array(X, chunks=(50, -1)), da.from_array(y, chunks=50))
    found = SoftmaxFCClassifier().fit(*lazy)
    with config_context(array_api_dispatch=False):
        assert_array_equal(found.coef_, SoftmaxFCClassifier().fit(*lazy).coef_)


def test_a_tensor_without_dispatching_is_read_as_numpys():
    torch = pytest.importorskip("torch")
    X, y = data()
    with config_context(array_api_dispatch=False):
        model = SoftmaxFCClassifier().fit(torch.asarray(X), torch.asarray(y))
        assert isinstance(model.coef_, np.ndarray)
        assert_array_equal(model.coef_, SoftmaxFCClassifier().fit(X, y).coef_)


def test_what_is_refused(some):
    X, y = data()
    model = SoftmaxFCClassifier().fit(some(X), y)
    before = vars(model).copy()
    with pytest.raises(TypeError, match="partial_fit takes NumPy arrays; X is of"):
        model.partial_fit(some(X), y)
    with pytest.raises(TypeError, match="sparsify takes NumPy coefficients"):
        model.sparsify()
    with pytest.raises(ValueError, match="Complex"):
        model.fit(some(X + 1j), y)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(some(np.where(X.mean() < X, X, np.nan)), y)
    with pytest.raises(ValueError, match="two axes"):
        model.fit(some(X[None]), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(some(X), some(y[:-1]))
    with pytest.raises(ValueError, match="features"):
        model.predict(some(X[:, :2]))
    assert all(vars(model)[name] is value for name, value in before.items())


def test_gradients_are_refused():
    torch = pytest.importorskip("torch")
    X, y = data()
    tensor = torch.asarray(X).requires_grad_()
    for dispatching, error, message in (
        (True, ValueError, r"X requires gradients.*X\.detach\(\)"),
        (False, TypeError, r"X\.detach\(\)"),
    ):
        with (
            config_context(array_api_dispatch=dispatching),
            pytest.raises(error, match=message),
        ):
            SoftmaxFCClassifier().fit(tensor, y)
    weight = torch.ones(n, requires_grad=True)
    with pytest.raises(ValueError, match="sample_weight requires gradients"):
        SoftmaxFCClassifier().fit(torch.asarray(X), y, sample_weight=weight)


def test_sparse_tensors_are_refused():
    torch = pytest.importorskip("torch")
    X, y = data()
    with pytest.raises(TypeError, match="X is a sparse tensor"):
        SoftmaxFCClassifier().fit(torch.asarray(X).to_sparse(), y)


def test_other_libraries_are_refused():
    """By name: what cannot be changed in place, or is computed later, would fail within."""
    foreign = type("Array", (), {"__module__": "jax", "__array_namespace__": None, "ndim": 2})
    with pytest.raises(TypeError, match=r"X is an array of jax.*torch"):
        SoftmaxFCClassifier().fit(foreign(), np.arange(3))
    lazy = type("Array", (), {"__module__": "dask.array.core", "__array_namespace__": None})
    with pytest.raises(TypeError, match=r"y is a Dask collection.*y\.compute\(\)"):
        SoftmaxFCClassifier().fit(Strict("device1")(np.eye(3)), lazy())


def test_the_tag():
    for estimator in (SoftmaxFCClassifier(), SoftmaxFCClassifierCV()):
        assert get_tags(estimator).array_api_support


def test_a_namespace_makes_arrays_on_its_device():
    xp = namespace(Strict("device1")(np.zeros(2)))
    assert xp is namespace(Strict("device1")(np.ones(3)))
    assert xp is not namespace(Strict("device2")(np.ones(3)))
    for array in (xp.zeros(2), xp.eye(2), xp.asarray([1.0]), xp.asarray(np.arange(3)[::-1])):
        assert array.device == array_api_strict.Device("device1")
    assert namespace(Strict("no_float64")(np.zeros(2, np.float32))).float64 == xp.float32


def test_the_page_runs():
    pytest.importorskip("torch")
    page = Path(__file__).parents[1] / "docs" / "arrays.md"
    blocks = re.findall(r"^```py\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    names = {}
    for code in blocks:
        exec(code, names)


# -- half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_kept_and_computed_in_float32(kind, small, rng):
    """The fit is that of the same values in float32, and of many rows there is no other copy."""
    torch = pytest.importorskip("torch")
    X, y = data("float32", raw=False)
    X = torch.asarray(X + 3).to(getattr(torch, kind))
    values = X.to(torch.float32)
    with override() if small else override(few_single=0):
        model, other = (SoftmaxFCClassifier(tol=1e-6).fit(rows, y) for rows in (X, values))
        rows = prepare(model, X, y, None).rows
        search = SoftmaxFCClassifierCV(Cs=[0.1, 1.0, 10.0], cv=2).fit(X, y)
    assert (rows.X is X) != small
    assert rows.dtype == (torch.float64 if small else torch.float32)
    found, expected = (objective(m, values.numpy(), y) for m in (model, other))
    assert found == pytest.approx(expected, rel=1e-5)
    assert model.optimality_gap_ <= 1e-5
    for name in ("predict_proba", "predict_log_proba", "decision_function"):
        result = getattr(model, name)(X)
        assert result.dtype == model.coef_.dtype == search.coef_.dtype == torch.float32
        assert_allclose(result, getattr(model, name)(values), atol=1e-5)
    assert model.log_loss(X, y) == pytest.approx(model.log_loss(values, y), rel=1e-5)


def rounded_to_11_bits(array):
    """float32 as TF32 has it."""
    torch = pytest.importorskip("torch")
    if array.dtype != torch.float32:
        return array
    bits = array.contiguous().view(torch.int32) + 0x1000
    return (bits & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("tol", [1e-4, 1e-8])
def test_the_gap_is_right_where_products_are_rounded_to_11_bits(tol, monkeypatch):
    """Columns far from zero are centred before their products; a smaller gap is not claimed."""
    torch = pytest.importorskip("torch")
    X, y = problems.overlapping(3000, 8, 3, raw=False)
    X = (X + 50 * (-1.0) ** np.arange(8)).astype(np.float32)
    least = objective(SoftmaxFCClassifier(tol=1e-12).fit(X.astype(float), y), X, y)
    monkeypatch.setattr(_input, "in_memory", lambda rows: rows)
    for module in (_array, _problem):
        monkeypatch.setattr(module, "short_rounding", lambda rows: TF32)
    xp = namespace(torch.ones(1))
    exact = xp.matmul
    monkeypatch.setattr(
        xp, "matmul", lambda a, b: exact(rounded_to_11_bits(a), rounded_to_11_bits(b))
    )
    with override(few_single=0):
        model = SoftmaxFCClassifier(tol=tol).fit(torch.asarray(X), y)
    gap = objective(model, X, y) / least - 1
    assert gap <= max(10 * tol, TF32**2)
    assert gap <= 10 * model.optimality_gap_
    assert TF32**2 <= model.optimality_gap_ <= max(tol, TF32**2)
