"""Early stopping: who is held out, when it stops, and what is kept."""

import numpy as np
import problems
import pytest
from core import checks_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skfc import SoftmaxFCClassifier
from skfc._validation import hold_out
from skfc.solvers import SOLVERS

# A hold-out drawn by chance: rows that stand for two and rows that stand there twice are
# held out in other numbers.
REASON = "rows are held out by chance: a weight of two is not a row that is there twice"
WEIGHTS = {
    "check_sample_weight_equivalence_on_dense_data": REASON,
    "check_sample_weight_equivalence_on_sparse_data": REASON,
}


@checks_of(
    [SoftmaxFCClassifier(early_stopping=True)], expected_failed_checks=lambda estimator: WEIGHTS
)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    """Few rows, many features: the loss of other rows rises before the fit is at its end."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((260, 40)) * np.logspace(-2, 2, 40)
    W = rng.standard_normal((40, 3)) / np.logspace(-2, 2, 40)[:, None]
    y = np.array(["a", "b", "c"])[(X @ W + 3 * rng.gumbel(size=(260, 3))).argmax(axis=1)]
    return X[:140], y[:140], X[140:], y[140:]


def fitted(data, C=1e6, **params):
    X, y, X_val, y_val = data
    model = SoftmaxFCClassifier(C=C, early_stopping=True, **params)
    return model.fit(X, y, X_val=X_val, y_val=y_val)


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_the_best_coefficients_are_kept(data, solver):
    X, y, X_val, y_val = data
    model = fitted(data, solver=solver)
    best = int(model.validation_curve_.argmin())
    assert model.validation_curve_.shape == model.loss_curve_.shape == (model.n_iter_ + 1,)
    assert 0 < best < model.n_iter_
    assert_allclose(model.log_loss(X_val, y_val), model.validation_curve_[best], rtol=1e-9)
    other = SoftmaxFCClassifier(C=1e6, solver=solver, max_iter=best)
    with pytest.warns(ConvergenceWarning):
        other.fit(X, y)
    assert_allclose(model.coef_, other.coef_, rtol=1e-6, atol=1e-9 * abs(other.coef_).max())
    assert_allclose(model.loss_curve_[: best + 1], other.loss_curve_, rtol=1e-9)


@pytest.mark.parametrize("patience", [1, 3])
def test_it_stops_after_iterations_without_progress(data, patience):
    model = fitted(data, n_iter_no_change=patience, solver="gd")
    curve = model.validation_curve_
    best, since = curve[0], 0
    for k, loss in enumerate(curve[1:], start=1):
        better = loss < best * (1 - model.tol)
        best, since = (loss, 0) if better else (best, since + 1)
        assert (since == patience) == (k == model.n_iter_)


def test_the_gap_is_that_of_the_coefficients_kept(data):
    X, y, *_ = data

    def objective(model):
        return 1e6 * len(y) * model.log_loss(X, y) + 0.5 * (model.coef_**2).sum()

    model, best = fitted(data), SoftmaxFCClassifier(C=1e6, tol=1e-10).fit(X, y)
    gap = objective(model) / objective(best) - 1
    assert gap > 1e-3
    assert 0.3 * gap < model.optimality_gap_ < 3 * gap


def test_a_fit_that_does_not_overfit_is_the_fit(data):
    """A strong penalty: the held-out loss falls to the end."""
    X, y, *_ = data
    model = SoftmaxFCClassifier(C=1e-5, early_stopping=True).fit(X, y, X_val=X, y_val=y)
    plain = SoftmaxFCClassifier(C=1e-5).fit(X, y)
    assert model.optimality_gap_ <= model.tol
    assert_array_equal(model.coef_, plain.coef_)
    assert model.n_iter_ == plain.n_iter_


def test_without_a_penalty_held_out_rows_bound_the_coefficients():
    X, y = problems.separable()
    X_val, y_val = X, y.copy()
    y_val[:5] = (y[:5] + 1) % 3  # some labels are wrong: certainty costs
    model = SoftmaxFCClassifier(C=np.inf, early_stopping=True)
    model.fit(X, y, X_val=X_val, y_val=y_val)  # no warning: warnings are errors
    assert_allclose(model.log_loss(X_val, y_val), model.validation_curve_.min(), rtol=1e-9)


def test_every_kind_of_input(data):
    X, y, X_val, y_val = data
    reference = fitted(data)
    weight = np.ones(len(y_val))
    model = SoftmaxFCClassifier(C=1e6, early_stopping=True)
    model.fit(X, y, X_val=X_val, y_val=np.eye(3)[np.searchsorted(["a", "b", "c"], y_val)],
              sample_weight_val=2 * weight)  # fmt: skip
    assert_allclose(model.validation_curve_, reference.validation_curve_, rtol=1e-12)
    model.fit(sparse.csr_array(X), y, X_val=sparse.csc_array(X_val), y_val=y_val)
    assert_allclose(model.validation_curve_.min(), reference.validation_curve_.min(), rtol=0.05)
    model.fit(X.astype(np.float32), y, X_val=X_val, y_val=y_val)
    assert model.coef_.dtype == np.float32
    loss = model.log_loss(X_val, y_val)
    assert_allclose(loss, model.validation_curve_.min(), rtol=1e-5)


def test_weights_of_held_out_rows_equal_repeated_rows(data, rng):
    X, y, X_val, y_val = data
    times = rng.integers(0, 3, len(y_val))
    model = SoftmaxFCClassifier(C=1e6, early_stopping=True)
    model.fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=times)
    curve = model.validation_curve_
    model.fit(X, y, X_val=X_val.repeat(times, axis=0), y_val=y_val.repeat(times))
    assert_allclose(model.validation_curve_, curve, rtol=1e-12)


def test_classes_without_weight_take_part_in_the_held_out_loss(data):
    X, y, X_val, y_val = data
    kept = y != "c"
    model = SoftmaxFCClassifier(C=1e6, classes=["a", "b", "c"], early_stopping=True)
    model.fit(X[kept], y[kept], X_val=X_val, y_val=y_val)
    assert_allclose(model.log_loss(X_val, y_val), model.validation_curve_.min(), rtol=1e-9)
    one = y == "a"
    model.fit(X[one], y[one], X_val=X_val, y_val=y_val)
    assert model.n_iter_ == 0
    assert_allclose(model.validation_curve_, [model.log_loss(X_val, y_val)])


def test_rows_are_held_out_where_none_are_given(data):
    X, y, *_ = data
    model = SoftmaxFCClassifier(C=1e6, early_stopping=True, random_state=3).fit(X, y)
    labels = np.searchsorted(model.classes_, y)
    held = hold_out(labels, np.ones(len(y)), 0.1, np.random.RandomState(3))
    other = SoftmaxFCClassifier(C=1e6, early_stopping=True)
    other.fit(X[~held], y[~held], X_val=X[held], y_val=y[held])
    assert_array_equal(model.validation_curve_, other.validation_curve_)
    assert_array_equal(model.coef_, other.coef_)
    again = SoftmaxFCClassifier(C=1e6, early_stopping=True, random_state=3).fit(X, y)
    assert_array_equal(model.coef_, again.coef_)
    other = SoftmaxFCClassifier(C=1e6, early_stopping=True, random_state=4).fit(X, y)
    assert not np.array_equal(model.coef_, other.coef_)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.34, 0.9])
def test_the_split_is_stratified(rng, fraction):
    labels = rng.permutation(np.repeat([0, 1, 2, 3], [300, 50, 7, 1]))
    weight = np.where(rng.random(len(labels)) < 0.2, 0.0, 1.0)
    held = hold_out(labels, weight, fraction, rng)
    there = weight > 0
    assert not held[~there].any()
    assert abs(held.sum() - fraction * there.sum()) < 1
    for k in range(4):
        rows = there & (labels == k)
        n = rows.sum()
        assert (rows & ~held).any() or not n  # a row to learn from
        assert abs((rows & held).sum() - min(fraction * n, max(n - 1, 0))) <= 1.5
    assert not (held & (labels == 3)).any()


def test_nothing_to_hold_out():
    model = SoftmaxFCClassifier(early_stopping=True)
    with pytest.raises(ValueError, match="only one row of every class"):
        model.fit(np.eye(3), [0, 1, 2])


@pytest.mark.parametrize(
    ("params", "given", "error", "words"),
    [
        ({}, ("X_val", "y_val"), ValueError, "X_val is given, but early_stopping=False"),
        ({}, ("y_val",), ValueError, "y_val is given, but early_stopping=False"),
        ({"early_stopping": True}, ("X_val",), ValueError, "X_val is given without y_val"),
        ({"early_stopping": True}, ("y_val",), ValueError, "y_val is given without X_val"),
        ({"early_stopping": 1}, (), TypeError, "'early_stopping' .* True or False; got 1"),
        ({"validation_fraction": 1.0}, (), ValueError, r"a number in \(0, 1\); got 1.0"),
        ({"validation_fraction": "some"}, (), TypeError, r"a number in \(0, 1\); got 'some'"),
        ({"n_iter_no_change": 0}, (), ValueError, "an integer >= 1; got 0"),
    ],
)  # fmt: skip
def test_wrong_parameters(data, params, given, error, words):
    X, y, X_val, y_val = data
    held_out = {"X_val": X_val, "y_val": y_val}
    with pytest.raises(error, match=words):
        SoftmaxFCClassifier(**params).fit(X, y, **{name: held_out[name] for name in given})


def test_wrong_validation_data_leaves_the_earlier_fit(data):
    X, y, X_val, y_val = data
    model = fitted(data)
    before = dict(vars(model))
    nan = X_val.copy()
    nan[0, 0] = np.nan
    for wrong, words in (
        ({"X_val": X_val[:, 1:], "y_val": y_val}, "39 features"),
        ({"X_val": X_val[1:], "y_val": y_val}, "inconsistent numbers of samples"),
        ({"X_val": X_val, "y_val": np.full(len(y_val), "z")}, "y_val holds labels outside"),
        ({"X_val": nan, "y_val": y_val}, "NaN"),
        ({"X_val": X_val, "y_val": y_val, "sample_weight_val": -np.ones(len(y_val))},
         "sample_weight_val must not be negative"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            model.fit(X, y, **wrong)
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[name] is before[name] for name in before)


def test_an_earlier_curve_goes(data):
    X, y, *_ = data
    model = fitted(data).set_params(early_stopping=False, C=1e-3).fit(X, y)
    assert not hasattr(model, "validation_curve_")


def test_a_warm_start_is_followed_by_its_own_curve(data):
    model = fitted(data, warm_start=True)
    first = model.validation_curve_
    X, y, X_val, y_val = data
    model.fit(X, y, X_val=X_val, y_val=y_val)
    assert_allclose(model.validation_curve_[0], first.min(), rtol=1e-6)
    assert model.validation_curve_.min() <= first.min() * (1 + 1e-9)


def test_in_a_pipeline_the_held_out_rows_are_transformed(data):
    X, y, X_val, y_val = data
    with config_context(enable_metadata_routing=True):
        last = SoftmaxFCClassifier(C=10.0, early_stopping=True)
        last.set_fit_request(X_val=True, y_val=True)
        pipe = Pipeline(
            [("scale", StandardScaler()), ("layer", last)], transform_input=["X_val"]
        ).fit(X, y, X_val=X_val, y_val=y_val)
    scale = StandardScaler().fit(X)
    alone = SoftmaxFCClassifier(C=10.0, early_stopping=True).fit(
        scale.transform(X), y, X_val=scale.transform(X_val), y_val=y_val
    )
    assert_array_equal(pipe[-1].coef_, alone.coef_)


def test_in_a_search_every_fold_holds_rows_out(data):
    X, y, *_ = data
    search = GridSearchCV(
        SoftmaxFCClassifier(early_stopping=True, random_state=0), {"C": [1.0, 1e6]}, cv=3
    ).fit(X, y)
    assert hasattr(search.best_estimator_, "validation_curve_")
