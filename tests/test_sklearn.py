"""A good citizen of scikit-learn: its own checks, and everything around an estimator."""

import copy
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import problems
import pytest
from core import checks_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from skfc import SoftmaxFCClassifier

# Some checks ask for an intercept.
ESTIMATORS = [
    SoftmaxFCClassifier(),
    SoftmaxFCClassifier(preconditioner="diagonal"),
    SoftmaxFCClassifier(preconditioner="kronecker"),
    SoftmaxFCClassifier(preconditioner=None, class_weight="balanced", tol=1e-15),
    SoftmaxFCClassifier(label_smoothing=0.1),
    SoftmaxFCClassifier(C=100),
]


# These call `partial_fit`, which refuses weights that would need the counts of all rows.
BALANCED = {
    "check_fit_score_takes_y": "partial_fit takes no class_weight='balanced'",
    "check_n_features_in_after_fitting": "partial_fit takes no class_weight='balanced'",
    "check_estimators_partial_fit_n_features": "partial_fit takes no class_weight='balanced'",
}


# Their few rows are separable: there is no minimum, and two ways to weigh rows end apart by √tol,
# where these checks ask for 1e-7.
WITHOUT_MINIMUM = {
    "check_sample_weight_equivalence_on_dense_data": "without a penalty √tol is owed",
    "check_sample_weight_equivalence_on_sparse_data": "without a penalty √tol is owed",
}


def expected_failed_checks(estimator):
    return BALANCED if estimator.class_weight == "balanced" else {}


@checks_of(ESTIMATORS, expected_failed_checks=expected_failed_checks)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:The classes are")
@checks_of([SoftmaxFCClassifier(C=np.inf)], expected_failed_checks=lambda _: WITHOUT_MINIMUM)
def test_estimator_checks_without_a_penalty(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    return problems.overlapping()


@pytest.fixture(scope="module")
def model(data):
    return SoftmaxFCClassifier().fit(*data)


COPIES = {
    "pickle": lambda model, path: pickle.loads(pickle.dumps(model)),
    "copy": lambda model, path: copy.copy(model),
    "deepcopy": lambda model, path: copy.deepcopy(model),
    "joblib": lambda model, path: joblib.load(joblib.dump(model, path / "model.joblib")[0]),
    "memory-mapped": lambda model, path: joblib.load(
        joblib.dump(model, path / "model.joblib")[0], mmap_mode="r"
    ),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_predict_and_fit_again(model, data, kind, tmp_path):
    X, y = data
    other = COPIES[kind](model, tmp_path)
    assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    assert vars(other).keys() == vars(model).keys()
    before = model.coef_.copy()
    other.set_params(C=0.01).fit(X, y)
    assert not np.array_equal(other.coef_, before)
    assert_array_equal(model.coef_, before)


def test_a_pickle_is_small(model):
    """No data, no logits: coefficients and what is documented."""
    X, y = problems.overlapping(5000)
    assert len(pickle.dumps(SoftmaxFCClassifier().fit(X, y))) < 5000


def test_fitted_attributes_are_those_documented(data):
    model = SoftmaxFCClassifier().fit(*data)
    fitted = {name for name in vars(model) if name.endswith("_")}
    assert fitted == {
        "coef_", "intercept_", "classes_", "n_features_in_", "n_iter_", "loss_curve_",
        "solver_", "optimality_gap_",
    }  # fmt: skip
    assert vars(model).keys() - fitted == model.get_params().keys()


def test_clone_and_parameters(model):
    other = clone(model)
    assert other.get_params() == model.get_params()
    assert not hasattr(other, "coef_")
    assert other.set_params(C=3.0, tol=1e-3) is other
    assert other.get_params()["C"] == 3.0
    with pytest.raises(ValueError, match="alpha"):
        other.set_params(alpha=1)
    with pytest.raises(TypeError):
        SoftmaxFCClassifier(1.0)


def test_fit_does_not_touch_parameters(data):
    share = {0: 1.0, 1: 2.0}
    model = SoftmaxFCClassifier(class_weight=share, classes=[2, 0, 1])
    before = copy.deepcopy(model.get_params())
    model.fit(*data)
    assert model.get_params() == before
    assert model.class_weight is share


def test_tags_are_those_of_a_sparse_multiclass_classifier():
    tags = get_tags(SoftmaxFCClassifier())
    assert tags.estimator_type == "classifier"
    assert tags.input_tags.sparse
    assert tags.classifier_tags.multi_class
    assert not tags.input_tags.allow_nan


def fit_coef(estimator, X, y):
    return clone(estimator).fit(X, y).coef_


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_joblib(data, backend):
    X, y = data
    estimators = [SoftmaxFCClassifier(C=C) for C in (0.1, 1.0, 10.0)]
    with joblib.parallel_config(backend, n_jobs=2):
        coefs = joblib.Parallel()(joblib.delayed(fit_coef)(e, X, y) for e in estimators)
    for coef, estimator in zip(coefs, estimators, strict=True):
        assert_allclose(coef, fit_coef(estimator, X, y), rtol=1e-6, atol=1e-9)


def test_a_forked_child_fits_sparse_data_after_its_parent():
    """The threads of a pool do not live on in a child; its fit must not wait for them."""
    code = """
import os, numpy as np
from scipy import sparse
from skfc import SoftmaxFCClassifier
rng = np.random.default_rng(0)
X, y = sparse.csr_array(rng.random((20_000, 20))), rng.integers(0, 3, 20_000)
SoftmaxFCClassifier().fit(X, y)
child = os.fork()
if child == 0:
    SoftmaxFCClassifier().fit(X, y)
    os._exit(0)
os._exit(os.waitpid(child, 0)[1])
"""
    # Without the BLAS library's own threads: whether those survive a fork is its affair.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)


def frame(library, X, names):
    return library.DataFrame({name: X[:, j] for j, name in enumerate(names)})


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_and_feature_names(data, model, library):
    library = pytest.importorskip(library)
    X, y = data
    names = ["width", "height", "depth", "price"]
    table = frame(library, X, names)
    fitted = SoftmaxFCClassifier().fit(table, library.Series(y))
    assert_array_equal(fitted.feature_names_in_, names)
    assert_allclose(fitted.coef_, model.coef_, rtol=1e-6, atol=1e-9)
    assert_allclose(fitted.predict_proba(table), model.predict_proba(X), rtol=1e-6)
    assert_allclose(fitted.log_loss(table, library.Series(y)), model.log_loss(X, y), rtol=1e-6)
    weight = library.Series(np.linspace(0, 2, len(y)))
    weighted = SoftmaxFCClassifier().fit(table, library.Series(y), sample_weight=weight)
    expected = SoftmaxFCClassifier().fit(X, y, sample_weight=np.linspace(0, 2, len(y)))
    assert_allclose(weighted.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame(library, X, names[::-1]))
    with pytest.warns(UserWarning, match="feature names"):
        fitted.predict(X)


def test_pandas_of_mixed_numbers_categories_and_missing_values(data):
    pd = pytest.importorskip("pandas")
    X, y = data
    table = pd.DataFrame({"a": X[:, 0].astype(np.float32), "b": X[:, 1].astype(int), "c": y > 0})
    labels = pd.Categorical(np.array(["x", "y", "z"])[y], categories=["z", "y", "x"])
    fitted = SoftmaxFCClassifier().fit(table, pd.Series(labels))
    assert fitted.classes_.tolist() == ["x", "y", "z"]
    assert set(fitted.predict(table)) <= {"x", "y", "z"}
    table.loc[3, "a"] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fitted.fit(table, labels)


def test_sparse_frames(data):
    pd = pytest.importorskip("pandas")
    X, y = data
    table = pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X))
    table.columns = list("abcd")
    fitted = SoftmaxFCClassifier().fit(table, y)
    assert_allclose(fitted.coef_, SoftmaxFCClassifier().fit(X, y).coef_, rtol=1e-4, atol=1e-8)


NAMES = np.array(["barbera", "barolo", "grignolino"])


@pytest.mark.parametrize(
    ("wrap", "classes"),
    [
        (lambda model: VotingClassifier([("layer", model)]), range(3)),
        (lambda model: StackingClassifier([("layer", model)], SoftmaxFCClassifier()), range(3)),
        (lambda model: BaggingClassifier(model, 3, random_state=0), range(3)),
        (lambda model: GridSearchCV(model, {"C": [0.1, 1.0]}, cv=3), NAMES),
        (lambda model: CalibratedClassifierCV(model, cv=3), NAMES),
        (lambda model: RFE(model, n_features_to_select=2), NAMES),
        (lambda model: Pipeline([("layer", model)]), NAMES),
    ],
    ids=["voting", "stacking", "bagging", "search", "calibrated", "elimination", "pipeline"],
)
def test_classes_inside_meta_estimators(data, wrap, classes):
    """Codes for those that encode labels, labels for those that pass them on: as the page says."""
    X, y = data
    model = wrap(SoftmaxFCClassifier(classes=classes)).fit(X, NAMES[y])
    plain = wrap(SoftmaxFCClassifier()).fit(X, y)
    assert_array_equal(model.predict(X), NAMES[plain.predict(X)])


def test_metadata_routing_of_sample_weight(data, rng):
    X, y = data
    weight = rng.uniform(0, 2, len(y))
    expected = SoftmaxFCClassifier().fit(X, y, sample_weight=weight)
    with config_context(enable_metadata_routing=True):
        step = SoftmaxFCClassifier().set_fit_request(sample_weight=True)
        pipeline = Pipeline([("scale", StandardScaler()), ("softmax", step)])
        pipeline.set_params(scale="passthrough").fit(X, y, sample_weight=weight)
        assert_array_equal(pipeline["softmax"].coef_, expected.coef_)
        silent = SoftmaxFCClassifier().set_fit_request(sample_weight=False)
        ignored = Pipeline([("softmax", silent)]).fit(X, y)
        assert not np.array_equal(ignored["softmax"].coef_, expected.coef_)
        step.set_score_request(sample_weight=True)
        scores = cross_validate(step, X, y, params={"sample_weight": weight}, cv=3)
        assert np.isfinite(scores["test_score"]).all()
        with pytest.raises(ValueError, match="sample_weight"):
            cross_validate(SoftmaxFCClassifier(), X, y, params={"sample_weight": weight}, cv=3)


def test_html_and_text_repr(model):
    assert repr(SoftmaxFCClassifier()) == "SoftmaxFCClassifier()"
    assert repr(SoftmaxFCClassifier(C=2)) == "SoftmaxFCClassifier(C=2)"
    for estimator in (SoftmaxFCClassifier(), model):
        html = estimator._repr_html_()
        assert "SoftmaxFCClassifier" in html
        assert "<style>" in html


def test_pipeline_and_search_find_what_logistic_regression_finds():
    X, y = load_iris(return_X_y=True)
    grid = {"classifier__C": [0.01, 1.0, 100.0]}
    found = []
    for classifier in (
        SoftmaxFCClassifier(tol=1e-8),
        LogisticRegression(tol=1e-8, max_iter=10_000),
    ):
        steps = [("scale", StandardScaler()), ("classifier", classifier)]
        search = GridSearchCV(Pipeline(steps), grid, scoring="neg_log_loss", cv=5).fit(X, y)
        found.append(search)
    ours, theirs = found
    assert ours.best_params_ == theirs.best_params_
    assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-3
    )
    assert_array_equal(ours.predict(X), theirs.predict(X))


def test_composition():
    X, y = load_iris(return_X_y=True)
    assert cross_val_score(SoftmaxFCClassifier(), X, y).mean() > 0.9
    assert OneVsRestClassifier(SoftmaxFCClassifier()).fit(X, y).score(X, y) > 0.9
    pipeline = make_pipeline(StandardScaler(), SoftmaxFCClassifier())
    assert pipeline.fit(X, y).score(X, y) > 0.9
