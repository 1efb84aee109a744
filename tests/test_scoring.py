"""neg_log_loss_scorer, `log_loss` and `score`: with every form of y, and in searches."""

import pickle

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfc import SoftmaxFCClassifier, neg_log_loss_scorer

OPTIONS = {"C": 0.5, "tol": 1e-8}


@pytest.fixture(scope="module")
def data():
    """X, labels, probability rows and weights."""
    X, y = problems.overlapping(n_samples=120, raw=False)
    rng = np.random.default_rng(1)
    return X, y, rng.dirichlet(np.ones(3), len(y)), rng.uniform(0, 2, len(y))


@pytest.fixture(scope="module")
def model(data):
    return SoftmaxFCClassifier(**OPTIONS).fit(data[0], data[1])


def test_every_form_of_y_is_scored(model, data):
    X, y, rows, s = data
    log_proba = model.predict_log_proba(X)
    predicted = model.predict(X)
    for target in (np.eye(3)[y], rows):
        for weight in (None, s):
            loss = -np.average((target * log_proba).sum(axis=1), weights=weight)
            hit = np.average(target[np.arange(len(y)), predicted], weights=weight)
            for form in (target, target.tolist()):
                assert_allclose(model.log_loss(X, form, weight), loss, rtol=1e-13)
                assert_allclose(neg_log_loss_scorer(model, X, form, weight), -loss, rtol=1e-13)
                assert_allclose(model.score(X, form, weight), hit, rtol=1e-13)
    one_hot = np.eye(3)[y]
    assert model.score(X, one_hot) == pytest.approx(model.score(X, y), rel=1e-15)
    for call in (model.log_loss, lambda *a: neg_log_loss_scorer(model, *a)):
        assert call(X, y, s) == call(X, one_hot, s) == call(X, y.tolist(), s.tolist())
    assert_allclose(model.log_loss(X, y, s), log_loss(y, np.exp(log_proba), sample_weight=s))


def test_y_may_miss_classes(model, data):
    X, y, _, _ = data
    some = y != 1
    expected = -model.predict_log_proba(X[some])[np.arange(some.sum()), y[some]].mean()
    assert_allclose(model.log_loss(X[some], y[some]), expected, rtol=1e-13)
    one = y == 2
    assert_allclose(model.log_loss(X[one], y[one]), -model.predict_log_proba(X[one])[:, 2].mean())
    with pytest.raises(ValueError, match="labels"):  # what the string scorer makes of it
        cross_val_score(
            model, X, y, scoring="neg_log_loss", cv=[(np.arange(120), np.flatnonzero(some))],
            error_score="raise",
        )  # fmt: skip


def test_float32_is_scored_in_float64(data):
    X, y, _, _ = data
    small = SoftmaxFCClassifier(**OPTIONS).fit(X.astype(np.float32), y)
    logits = small.decision_function(X.astype(np.float32)).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_proba = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    expected = -log_proba[np.arange(len(y)), y].mean()
    assert_allclose(small.log_loss(X.astype(np.float32), y), expected, rtol=1e-13)
    # The scorer sees log-probabilities of type float32.
    scored = neg_log_loss_scorer(small, X.astype(np.float32), y)
    assert_allclose(-scored, expected, rtol=10 * np.finfo(np.float32).eps)


def test_nothing_is_clipped(model, data):
    X, y, _, _ = data
    far = 1e4 * X
    wrong = model.predict_proba(far).argmin(axis=1)
    expected = -model.predict_log_proba(far)[np.arange(len(y)), wrong].mean()
    assert expected > 1000
    assert_allclose(model.log_loss(far, wrong), expected, rtol=1e-13)
    assert_allclose(neg_log_loss_scorer(model, far, wrong), -expected, rtol=1e-13)


def test_weights_equal_repeated_rows(model, data):
    X, y, rows, _ = data
    repeats = np.arange(120) % 3
    for target in (y, rows):
        for call in (model.log_loss, model.score):
            repeated = call(np.repeat(X, repeats, axis=0), np.repeat(target, repeats, axis=0))
            assert_allclose(call(X, target, repeats), repeated, rtol=1e-13)
            if call == model.log_loss:
                assert_allclose(call(X, target, 1e307 * repeats), repeated, rtol=1e-13)


def test_frames_go_by_their_names(data):
    pd = pytest.importorskip("pandas")
    X, _, rows, s = data
    frame = pd.DataFrame(rows, columns=["b", "c", "a"])
    model = SoftmaxFCClassifier(**OPTIONS).fit(X, frame)
    assert model.classes_.tolist() == ["a", "b", "c"]
    sorted_rows = rows[:, [2, 0, 1]]
    for call in (model.log_loss, model.score, lambda *a: neg_log_loss_scorer(model, *a)):
        expected = call(X, sorted_rows, s)
        for same in (frame, frame[["c", "a", "b"]]):  # sums depend on the alignment in memory
            assert call(X, same, s) == pytest.approx(expected, rel=1e-14)
        assert call(X, rows, s) != pytest.approx(expected, rel=1e-2)
    half = frame[["a", "c"]].div(frame[["a", "c"]].sum(axis=1), axis=0)  # misses a class
    padded = np.column_stack([half["a"], np.zeros(120), half["c"]])
    assert model.log_loss(X, half) == pytest.approx(model.log_loss(X, padded), rel=1e-14)
    with pytest.raises(ValueError, match=r"columns \['d'\] that are none of the classes"):
        model.log_loss(X, frame.rename(columns={"a": "d"}))


CLASSIFIERS = {
    "logistic regression": LogisticRegression(),
    "pipeline": make_pipeline(StandardScaler(), SoftmaxFCClassifier()),
    "naive Bayes": GaussianNB(),
    "forest": RandomForestClassifier(5, random_state=0),
    "neighbours, without predict_log_proba": KNeighborsClassifier(),
    "search": GridSearchCV(SoftmaxFCClassifier(), {"C": [0.1, 1]}, cv=2),
}


@pytest.mark.parametrize("classifier", CLASSIFIERS.values(), ids=CLASSIFIERS)
@pytest.mark.parametrize("names", [np.arange(3), np.array(["x", "y", "z"])], ids=["int", "str"])
def test_any_classifier_with_probabilities(classifier, names, data):
    X, y, rows, s = data
    fitted = clone(classifier).fit(X, names[y])
    proba = fitted.predict_proba(X)
    log_proba = np.log(np.maximum(proba, np.finfo(float).tiny))
    expected = np.average(log_proba[np.arange(len(y)), y], weights=s)
    assert_allclose(neg_log_loss_scorer(fitted, X, names[y], s), expected, rtol=1e-12)
    expected = np.average((rows * log_proba).sum(axis=1), weights=s)
    assert_allclose(neg_log_loss_scorer(fitted, X, rows, s), expected, rtol=1e-12)


def test_what_cannot_be_scored(model, data):
    X, y, _, _ = data
    for estimator in (LinearRegression().fit(X, y), LinearSVC().fit(X, y)):
        with pytest.raises(TypeError, match="needs a classifier with predict_proba"):
            neg_log_loss_scorer(estimator, X, y)
    several = MultiOutputClassifier(GaussianNB()).fit(X, np.column_stack([y, y]))
    with pytest.raises(TypeError, match="needs probabilities of shape"):
        neg_log_loss_scorer(several, X, y)
    with pytest.raises(NotFittedError):
        neg_log_loss_scorer(SoftmaxFCClassifier(), X, y)
    with pytest.raises(ValueError, match=r"outside the classes \[0, 1, 2\]: \[3\]"):
        neg_log_loss_scorer(model, X, y + 1)
    for call in (model.log_loss, lambda *a: neg_log_loss_scorer(model, *a)):
        with pytest.raises(ValueError, match="y has 119 rows, but X has 120"):
            call(X, y[:-1])
        with pytest.raises(ValueError, match="y has 2 columns, but there are 3 classes"):
            call(X, np.eye(2)[y % 2])
        with pytest.raises(ValueError, match=r"sample_weight must have shape \(120,\)"):
            call(X, y, np.ones(3))
        with pytest.raises(ValueError, match="y contains NaN"):
            call(X, np.where(y == 0, np.nan, y))
    with pytest.raises(ValueError, match="y has 119 rows, but X has 120"):
        model.score(X, np.eye(3)[y[:-1]])
    with pytest.raises(ValueError, match="must sum to one"):
        model.score(X, np.ones((120, 3)))


@pytest.mark.parametrize("form", ["labels", "one-hot", "soft"])
def test_searches(form, data):
    """With an integer `cv`, too: scikit-learn stratifies labels, and takes KFold for rows."""
    X, y, rows, _ = data
    target = {"labels": y, "one-hot": np.eye(3)[y], "soft": rows}[form]
    model = make_pipeline(StandardScaler(), SoftmaxFCClassifier(**OPTIONS))
    for cv in (3, KFold(3, shuffle=True, random_state=0)):
        search = GridSearchCV(
            model, {"softmaxfcclassifier__C": [1e-3, 1.0]}, scoring=neg_log_loss_scorer, cv=cv,
            error_score="raise",
        ).fit(X, target)  # fmt: skip
        splitter = cv if cv != 3 else (StratifiedKFold(3) if form == "labels" else KFold(3))
        for k, (train, test) in enumerate(splitter.split(X, y)):
            fold = clone(model).set_params(softmaxfcclassifier__C=1.0)
            fold.fit(X[train], target[train])
            expected = -fold[1].log_loss(fold[0].transform(X[test]), target[test])
            assert_allclose(search.cv_results_[f"split{k}_test_score"][1], expected, rtol=1e-13)


def test_the_way_out_where_probabilities_cannot_be_stratified(data):
    X, _, rows, _ = data
    model = SoftmaxFCClassifier(**OPTIONS)
    with pytest.raises(ValueError, match="continuous-multioutput"):
        cross_val_score(model, X, rows, cv=StratifiedKFold(3), scoring=neg_log_loss_scorer)
    folds = list(StratifiedKFold(3).split(X, rows.argmax(axis=1)))
    scores = cross_val_score(model, X, rows, cv=folds, scoring=neg_log_loss_scorer)
    expected = [
        -clone(model).fit(X[train], rows[train]).log_loss(X[test], rows[test])
        for train, test in folds
    ]
    assert_allclose(scores, expected, rtol=1e-13)


def test_rare_classes(data):
    """A class of one row: no training fold but one holds it, and no test fold but one."""
    X, y, _, _ = data
    y = np.append(np.array(["a", "b", "c"])[y[:-1]], "rare")
    cv = KFold(4)
    search = GridSearchCV(
        SoftmaxFCClassifier(classes=["a", "b", "c", "rare"]), {"C": [0.1, 1.0]}, cv=cv,
        scoring=neg_log_loss_scorer, error_score="raise",
    ).fit(X, y)  # fmt: skip
    train, test = list(cv.split(X))[-1]
    fold = SoftmaxFCClassifier(classes=["a", "b", "c", "rare"]).fit(X[train], y[train])
    log_proba = fold.predict_log_proba(X[test])
    expected = log_proba[np.arange(30), np.searchsorted(fold.classes_, y[test])].mean()
    assert np.isfinite(expected)
    assert_allclose(search.cv_results_["split3_test_score"][1], expected, rtol=1e-13)
    with pytest.raises(ValueError, match="outside the classes"):  # without `classes`
        cross_val_score(
            SoftmaxFCClassifier(), X, y, cv=cv, scoring=neg_log_loss_scorer, error_score="raise"
        )


def test_class_weights_of_a_class_that_a_fold_misses(data):
    X, y, _, _ = data
    y = np.append(y[:-1], 3)
    weights = {0: 1.0, 1: 2.0, 2: 1.0, 3: 5.0}
    scores = cross_val_score(
        SoftmaxFCClassifier(classes=range(4), class_weight=weights), X, y, cv=KFold(4),
        scoring=neg_log_loss_scorer, error_score="raise",
    )  # fmt: skip
    assert np.isfinite(scores).all()
    fold = SoftmaxFCClassifier(class_weight=weights).fit(X[:-1], y[:-1])  # and without
    assert_array_equal(fold.classes_, [0, 1, 2])


def test_among_other_metrics(model, data):
    X, y, _, _ = data
    scores = cross_validate(
        clone(model), X, y, cv=3, scoring={"loss": neg_log_loss_scorer, "accuracy": "accuracy"}
    )
    alone = cross_validate(clone(model), X, y, cv=3, scoring=neg_log_loss_scorer)
    assert_array_equal(scores["test_loss"], alone["test_score"])
    importance = permutation_importance(
        model, X, y, scoring=neg_log_loss_scorer, n_repeats=2, random_state=0
    )
    assert importance.importances.shape == (4, 2)


def test_metadata_routing(data):
    X, y, _, s = data
    cv = KFold(3)
    scorer = neg_log_loss_scorer.set_score_request(sample_weight=True)
    named = neg_log_loss_scorer.set_score_request(sample_weight="test_weight")
    refusing = neg_log_loss_scorer.set_score_request(sample_weight=False)
    with config_context(enable_metadata_routing=True):
        model = SoftmaxFCClassifier(**OPTIONS).set_fit_request(sample_weight=True)
        weighted, plain = [], []
        for train, test in cv.split(X):
            fold = clone(model).fit(X[train], y[train], s[train])
            weighted.append(-fold.log_loss(X[test], y[test], s[test]))
            plain.append(-fold.log_loss(X[test], y[test]))

        def scores(scoring, **params):
            search = GridSearchCV(model, {"C": [0.5]}, cv=cv, scoring=scoring)
            search.fit(X, y, sample_weight=s, **params)
            return [search.cv_results_[f"split{k}_test_score"][0] for k in range(3)]

        assert_allclose(scores(scorer), weighted, rtol=1e-13)
        assert_allclose(scores(named, test_weight=s), weighted, rtol=1e-13)
        assert_allclose(scores(named, test_weight=np.ones(120)), plain, rtol=1e-13)
        assert_allclose(scores(refusing), plain, rtol=1e-13)
        both = cross_validate(
            model, X, y, cv=cv, scoring={"weighted": scorer, "plain": refusing},
            params={"sample_weight": s},
        )  # fmt: skip
        assert_allclose(both["test_weighted"], weighted, rtol=1e-13)
        assert_allclose(both["test_plain"], plain, rtol=1e-13)
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            scores(neg_log_loss_scorer)


def test_the_scorer_is_a_value():
    scorer = neg_log_loss_scorer.set_score_request(sample_weight="s")
    assert neg_log_loss_scorer.sample_weight is None  # it is shared, and stays as it is
    assert repr(neg_log_loss_scorer) == "neg_log_loss_scorer"
    assert eval(repr(scorer)) == scorer
    for each in (neg_log_loss_scorer, scorer):
        assert pickle.loads(pickle.dumps(each)) == clone(each) == each
    search = GridSearchCV(SoftmaxFCClassifier(), {}, scoring=scorer)
    assert clone(search).scoring == scorer
