"""The search: what separate fits give, for every way of splitting and scoring."""

import inspect

import numpy as np
import problems
import pytest
from core import checks_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.special import softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    get_scorer,
    get_scorer_names,
    make_scorer,
)
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_score,
)

from skfc import (
    SoftmaxFCClassifier,
    SoftmaxFCClassifierCV,
    _classifier_cv,
    _search,
    neg_log_loss_scorer,
)
from skfc._method import Method
from skfc._outcome import Status
from skfc._search import Paths, warn_of_paths
from skfc._tuned import override

CS = [1e-3, 1e-1, 10.0]
TOL = 1e-12
# Scores are first order in the distance to the optimum, gaps second: √TOL with room.
CLOSE = {"rtol": 0, "atol": 10 * np.sqrt(TOL)}
# A gap of (F - F*) / F* <= 10 TOL, as estimates are right within a factor of 10, and F* at
# most that of the null model. See reference.py for how far two such fits are apart.
DISTANCE = 2 * np.sqrt(2 * 10 * TOL * np.log(3))

# Three values of C tell the laws apart sooner than a grid would; the best is often the last.
pytestmark = pytest.mark.filterwarnings("ignore:C_=.* of Cs:UserWarning")


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
@checks_of(
    [
        SoftmaxFCClassifierCV(),
        SoftmaxFCClassifierCV(Cs=[1.0], cv=3, refit=False, scoring="accuracy"),
    ]
)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("n_rows", "n_folds"), [(9, 3), (30, 5)])
def test_few_rows_are_split_into_fewer_folds(n_rows, n_folds, rng):
    X, y = rng.standard_normal((n_rows, 2)), np.arange(n_rows) % 3
    assert SoftmaxFCClassifierCV(Cs=[1.0]).fit(X, y).scores_.shape == (n_folds, 1)
    with pytest.raises(ValueError, match="n_splits"):
        SoftmaxFCClassifierCV(Cs=[1.0], cv=n_rows).fit(X, y)


@pytest.fixture(scope="module")
def data():
    return problems.overlapping(200)


def search(cv=None, Cs=CS, tol=TOL, **parameters):
    return SoftmaxFCClassifierCV(Cs=Cs, cv=cv, tol=tol, **parameters)


def separate(model, X, y, splits, weight=None, **parameters):
    """Scores, coefficients and intercepts (n_folds, n_Cs, ...) of fits one by one."""
    weight = np.ones(X.shape[0]) if weight is None else weight
    found = []
    for train, test in splits:
        for C in model.Cs_:
            one = SoftmaxFCClassifier(C=C, classes=model.classes_, tol=TOL, **parameters)
            one.fit(X[train], y[train], sample_weight=weight[train])
            loss = one.log_loss(X[test], y[test], weight[test])
            found.append((-loss, one.coef_, one.intercept_))
    shape = (-1, len(model.Cs_))
    return [np.array(part).reshape(shape + np.shape(part[0])) for part in zip(*found, strict=True)]


def assert_same_proba(P, Q, weight=None):
    """Within DISTANCE, by Pinsker's inequality: the root mean square of |p - q|."""
    rows = np.abs(P - Q).sum(axis=1)
    assert np.sqrt(np.average(rows**2, weights=weight)) <= DISTANCE


def assert_equals_separate(model, X, y, splits, weight=None, **parameters):
    scores, coefs, intercepts = separate(model, X, y, splits, weight, **parameters)
    assert_allclose(model.scores_, scores, **CLOSE)
    weight = np.ones(len(y)) if weight is None else weight
    for k, (train, _) in enumerate(splits):
        total = 3 * weight[train].sum()  # class weights are three at most
        for i, C in enumerate(model.Cs_):
            W, b = model.coefs_paths_[k, i], model.intercepts_paths_[k, i]
            found, expected = (
                softmax(X[train] @ V.T + c, axis=1)
                for V, c in ((W, b), (coefs[k, i], intercepts[k, i]))
            )
            assert_same_proba(found, expected, weight[train])
            if np.isfinite(C):
                assert np.linalg.norm(W - coefs[k, i]) <= DISTANCE * np.sqrt(C * total)


SETTINGS = [
    {},
    {"fit_intercept": False},
    {"class_weight": "balanced"},
    {"class_weight": {0: 3.0}},
    {"label_smoothing": 0.2},
    {"label_smoothing": 0.2, "class_weight": "balanced"},
    {"preconditioner": "kronecker"},
    {"preconditioner": "diagonal", "solver": "lbfgs"},
    {"solver": "newton-cg"},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_equals_separate_fits(data, rng, setting):
    X, y = data
    weight = rng.uniform(0.1, 3, len(y))
    model = search(StratifiedKFold(4), **setting).fit(X, y, sample_weight=weight)
    assert_equals_separate(model, X, y, StratifiedKFold(4).split(X, y), weight, **setting)


@pytest.mark.parametrize("tol", [1e-6, 1e-8, 1e-12])
def test_mean_scores_are_those_of_a_grid_search(data, tol):
    """To √tol, since scores are first order in the distance to the optimum, gaps second."""
    X, y = data
    grid = {"C": np.logspace(-4, 4, 10)}
    model = SoftmaxFCClassifierCV(tol=tol).fit(X, y)
    other = GridSearchCV(SoftmaxFCClassifier(tol=tol), grid, scoring=neg_log_loss_scorer)
    other.fit(X, y)
    found, expected = model.cv_results_, other.cv_results_
    for name in ("mean_test_score", "std_test_score"):
        assert_allclose(found[name], expected[name], rtol=0, atol=np.sqrt(tol))
    assert model.best_index_ == other.best_index_
    assert_allclose(model.C_, other.best_params_["C"], rtol=1e-15)
    assert model.scores_.shape == (5, 10)
    assert model.Cs_[model.best_index_] == model.C_
    assert found["mean_test_score"][model.best_index_] == model.best_score_
    assert found["rank_test_score"][model.best_index_] == 1


@pytest.mark.parametrize("refit", [True, False])
def test_coefficients_are_a_fit_of_all_rows_or_the_mean_of_the_folds(data, refit):
    X, y = data
    model = search(refit=refit).fit(X, y)
    if refit:
        other = SoftmaxFCClassifier(C=model.C_, tol=TOL).fit(X, y)
        assert model.optimality_gap_ <= TOL
        assert len(model.loss_curve_) == model.n_iter_ + 1
        assert_same_proba(model.predict_proba(X), other.predict_proba(X))
    else:
        best = model.best_index_
        assert_allclose(model.coef_, model.coefs_paths_[:, best].mean(axis=0), rtol=1e-12)
        assert_allclose(
            model.intercept_, model.intercepts_paths_[:, best].mean(axis=0), rtol=1e-12
        )
    logits = X @ model.coef_.T + model.intercept_
    assert_array_equal(model.predict(X), model.classes_[logits.argmax(axis=1)])
    model.set_params(refit=not refit).fit(X, y)
    assert hasattr(model, "loss_curve_") == (not refit)
    model.set_params(refit=refit).fit(X, y)
    assert model.score(X, y) == accuracy_score(y, model.predict(X))


SPLITTERS = {
    "stratified": StratifiedKFold(3, shuffle=True, random_state=0),
    "shuffled": ShuffleSplit(2, test_size=0.3, random_state=1),
    "time series": TimeSeriesSplit(3),
}


@pytest.mark.parametrize("kind", SPLITTERS)
def test_splitters(data, kind):
    X, y = data
    splitter = SPLITTERS[kind]
    splits = list(splitter.split(X, y))
    model = search(splitter).fit(X, y)
    assert model.scores_.shape == (len(splits), len(CS))
    assert_equals_separate(model, X, y, splits)
    masks = []
    for train, test in splits:
        masks.append(tuple(np.isin(np.arange(len(y)), rows) for rows in (train, test)))
    for given in (splits, iter(splits), masks):
        other = search(given).fit(X, y)
        assert_allclose(other.scores_, model.scores_, rtol=1e-12)
        assert_allclose(other.coef_, model.coef_, rtol=1e-12)


def test_default_and_integer_folds_are_stratified(data):
    X, y = data
    for cv, n_folds in ((None, 5), (3, 3)):
        model = search(cv).fit(X, y)
        other = search(StratifiedKFold(n_folds)).fit(X, y)
        assert_array_equal(model.scores_, other.scores_)


def test_a_row_drawn_twice_counts_twice(data, rng):
    X, y = data
    train = rng.integers(0, 150, 150)
    test = np.arange(150, 200)
    model = search([(train, test)]).fit(X, y)
    assert_equals_separate(model, X, y, [(train, test)])


def test_groups(data, rng):
    X, y = data
    groups = rng.integers(0, 4, len(y))
    splits = list(LeaveOneGroupOut().split(X, y, groups))
    expected = search(splits).fit(X, y).scores_
    assert_array_equal(search(LeaveOneGroupOut()).fit(X, y, groups=groups).scores_, expected)
    with config_context(enable_metadata_routing=True):
        model = search(LeaveOneGroupOut()).fit(X, y, groups=groups)
        assert_array_equal(model.scores_, expected)
    with pytest.raises(ValueError, match="groups"):
        search(GroupKFold(2)).fit(X, y)
    with pytest.raises(TypeError, match=r"fit takes.*'colour'.*enable_metadata_routing"):
        search(GroupKFold(2)).fit(X, y, groups=groups, colour=groups)


def test_folds_that_miss_a_class(data):
    """Class 2 is in two training sets of four; those two are solved as if it were not."""
    X, y = data
    fold = np.arange(len(y)) % 4
    rows = ~((y == 2) & (fold < 2))
    X, y, fold = X[rows], y[rows], fold[rows]
    two = np.flatnonzero(y == 2)
    splits = []
    for k in range(4):
        train = np.flatnonzero(fold != k)
        splits.append((np.setdiff1d(train, two) if k % 2 else train, np.flatnonzero(fold == k)))
    model = search(splits).fit(X, y)
    assert_equals_separate(model, X, y, splits)
    assert np.isfinite(model.scores_).all()
    assert not model.coefs_paths_[1::2, :, 2].any()
    assert model.coefs_paths_[::2, :, 2].any()
    assert_allclose(model.intercepts_paths_.sum(axis=2), 0, atol=1e-12)


def test_a_class_that_no_row_has(data):
    X, y = data
    model = search(classes=[3, 2, 1, 0]).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2, 3]
    other = SoftmaxFCClassifier(C=model.C_, classes=[0, 1, 2, 3], tol=TOL).fit(X, y)
    assert_same_proba(model.predict_proba(X), other.predict_proba(X))
    assert model.coefs_paths_.shape == (5, 3, 4, 4)


@pytest.mark.parametrize("Cs", [1, [2.0], np.array([0.5, 0.5])], ids=str)
def test_one_C(data, Cs):
    X, y = data
    model = search(3, Cs=Cs).fit(X, y)
    assert_array_equal(model.Cs_, np.logspace(-4, 4, 1) if isinstance(Cs, int) else Cs)
    assert model.best_index_ == 0
    assert_equals_separate(model, X, y, StratifiedKFold(3).split(X, y))


def test_Cs_keep_their_order_and_may_be_infinite(data):
    X, y = data
    Cs = [np.inf, 1e-3, 10.0, 0.1]
    model = search(3, Cs=Cs).fit(X, y)
    assert model.Cs_.tolist() == Cs
    order = np.argsort(Cs)
    other = search(3, Cs=sorted(Cs)).fit(X, y)
    assert_array_equal(model.scores_[:, order], other.scores_)
    assert_array_equal(model.coefs_paths_[:, order], other.coefs_paths_)
    assert_equals_separate(model, X, y, StratifiedKFold(3).split(X, y))


def test_separable_folds_at_infinite_C_are_named():
    X, y = problems.separable()
    with pytest.warns(ConvergenceWarning, match="In 3 of 6 fits of the folds.*separable"):
        model = search(3, Cs=[1.0, np.inf], scoring="accuracy", tol=1e-6).fit(X, y)
    assert model.C_ == 1.0  # the first of equals
    assert_array_equal(model.scores_, 1.0)


def test_too_few_iterations_warn_once(data):
    X, y = data
    with pytest.warns(ConvergenceWarning) as record:
        search(refit=False, max_iter=1, Cs=[1e-3, 1e-1, 10.0, np.inf]).fit(X, y)
    assert len(record) == 1
    message = str(record[0].message)
    assert "of 20 fits of the folds" in message
    assert message.endswith("Raise max_iter or tol.")  # at all Cs
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    ("Cs", "method", "end"),
    [
        ([1.0, 10.0, 5.0], Method(), "Raise max_iter or tol, or leave out the largest Cs."),
        ([1.0, 10.0, 20.0], Method(), "Raise max_iter or tol."),
        (
            [1.0, 10.0, 20.0],
            Method(preconditioner=None),
            "Raise max_iter or tol, or leave preconditioner=None to 'auto'.",
        ),
    ],
)
def test_the_warning_of_a_search_names_the_worst_fit_and_what_helps(Cs, method, end):
    status = np.array([[Status.CONVERGED, Status.MAX_ITER, Status.CONVERGED]] * 2)
    gap = np.array([[0, 1e-3, 0], [0, 2e-3, 0]])  # of two folds
    paths = Paths(None, None, None, gap, status, None)
    with pytest.warns(ConvergenceWarning) as record:
        warn_of_paths(paths, np.array(Cs), method, 1e-6, 7)
    message = str(record[0].message)
    assert "2 of 6 fits" in message
    assert "of fold 1 at C=10, is an estimated 2.0e-03 above" in message
    assert message.endswith(end)


def test_whole_weights_are_repeated_rows(data, rng):
    X, y = data
    weight = rng.integers(1, 4, len(y))
    rows = np.repeat(np.arange(len(y)), weight)
    first = np.arange(len(y)) < 120
    model = search([(first, ~first)]).fit(X, y, sample_weight=weight)
    other = search([(first[rows], ~first[rows])]).fit(X[rows], y[rows])
    assert_allclose(model.scores_, other.scores_, **CLOSE)
    assert_same_proba(model.predict_proba(X), other.predict_proba(X))


def record_weights(estimator, X, y, sample_weight=None):
    record_weights.seen.append(sample_weight)
    return estimator.score(X, y, sample_weight)


def without_weights(estimator, X, y):
    return estimator.score(X, y)


@pytest.mark.parametrize("scoring", ["accuracy", make_scorer(accuracy_score), record_weights])
def test_scorers_get_the_weights_of_the_held_out_rows(data, rng, scoring):
    X, y = data
    weight = rng.uniform(0.1, 3, len(y))
    record_weights.seen = []
    splits = list(KFold(3).split(X))
    model = search(splits, scoring=scoring).fit(X, y, sample_weight=weight)
    scorer = get_scorer(scoring)
    for k, (train, test) in enumerate(splits):
        for i, C in enumerate(CS):
            one = SoftmaxFCClassifier(C=C, tol=TOL).fit(X[train], y[train], weight[train])
            expected = scorer(one, X[test], y[test], sample_weight=weight[test])
            assert_allclose(model.scores_[k, i], expected, rtol=1e-12)
    if scoring is record_weights:
        seen = record_weights.seen[: 3 * len(CS)]
        assert_array_equal(np.concatenate(seen[:: len(CS)]), weight)


def test_a_scorer_without_weights_gets_none(data, rng):
    X, y = data
    weight = rng.uniform(0.1, 3, len(y))
    model = search(3, scoring=without_weights).fit(X, y, sample_weight=weight)
    other = search(3, scoring="accuracy").fit(X, y, sample_weight=weight)
    assert_array_equal(model.coefs_paths_, other.coefs_paths_)
    assert not np.array_equal(model.scores_, other.scores_)


def test_the_default_score_is_that_of_the_scorer(data, rng):
    X, y = data
    weight = rng.uniform(0.1, 3, len(y))
    model = search(3).fit(X, y, sample_weight=weight)
    other = search(3, scoring=neg_log_loss_scorer).fit(X, y, sample_weight=weight)
    assert_allclose(model.scores_, other.scores_, rtol=1e-12)


def test_metadata_routing_of_weights_to_the_scorer(data, rng):
    X, y = data
    weight = rng.uniform(0.1, 3, len(y))
    splits = list(KFold(3).split(X))
    expected = search(splits, scoring="accuracy").fit(X, y, sample_weight=weight)
    plain = search(splits, scoring=without_weights).fit(X, y, sample_weight=weight)
    with config_context(enable_metadata_routing=True):
        for asked, scores in ((True, expected.scores_), (False, plain.scores_)):
            scorer = get_scorer("accuracy").set_score_request(sample_weight=asked)
            model = search(splits, scoring=scorer).fit(X, y, sample_weight=weight)
            assert_array_equal(model.scores_, scores)
        with pytest.raises(ValueError, match="sample_weight"):
            search(splits, scoring=neg_log_loss_scorer).fit(X, y, sample_weight=weight)
        default = search(splits).fit(X, y, sample_weight=weight)
        inner = search(3).set_fit_request(sample_weight=True)
        inner.set_score_request(sample_weight=False)
        cross_val_score(inner, X, y, params={"sample_weight": weight}, cv=2)
    assert_array_equal(default.scores_, search(splits).fit(X, y, sample_weight=weight).scores_)


def test_results_load_into_a_frame(data):
    pd = pytest.importorskip("pandas")
    X, y = data
    table = pd.DataFrame(search(3).fit(X, y).cv_results_)
    other = GridSearchCV(SoftmaxFCClassifier(), {"C": CS}, cv=3, scoring=neg_log_loss_scorer)
    expected = pd.DataFrame(other.fit(X, y).cv_results_)
    timed = {name for name in expected if name.endswith("_time")}
    assert set(expected) - timed == set(table) - {"mean_n_iter"}
    assert table["param_C"].tolist() == CS
    assert table["params"].tolist() == expected["params"].tolist()
    split = table[[f"split{k}_test_score" for k in range(3)]]
    assert_allclose(table["mean_test_score"], split.mean(axis=1))
    assert_allclose(table["std_test_score"], split.std(axis=1, ddof=0))
    assert table["rank_test_score"].dtype == expected["rank_test_score"].dtype


def test_one_standard_error(data):
    X, y = data
    Cs = np.logspace(-5, 3, 9)[::-1]
    best = search(Cs=Cs).fit(X, y)
    model = search(Cs=Cs, selection="one_standard_error").fit(X, y)
    assert_array_equal(model.scores_, best.scores_)
    mean, scores = model.scores_.mean(axis=0), best.scores_[:, best.best_index_]
    bound = mean.max() - np.std(scores, ddof=1) / np.sqrt(len(scores))
    assert min(C for C, m in zip(Cs, mean, strict=True) if m >= bound) == model.C_
    assert model.C_ < best.C_


@pytest.mark.parametrize("worst", [np.nan, -np.inf])
def test_scores_that_are_no_numbers_are_never_best(data, worst):
    X, y = data
    limit = np.median(np.abs(search(3).fit(X, y).coefs_paths_[:, 1]))

    def fussy(estimator, X, y):
        return 1.0 if np.median(np.abs(estimator.coef_)) > limit else worst

    model = search(3, scoring=fussy).fit(X, y)
    assert model.C_ == 10.0
    assert model.cv_results_["rank_test_score"][-1] == 1
    if np.isnan(worst):
        with pytest.raises(ValueError, match="NaN at every C"):
            search(3, scoring=lambda estimator, X, y: np.nan).fit(X, y)


def test_rows_of_probabilities(rng):
    known = problems.known_penalised(n_samples=90)
    X, rows = known.X, known.y
    splits = list(StratifiedKFold(3).split(X, rows.argmax(axis=1)))
    for setting in ({}, {"class_weight": "balanced"}):
        model = search(3, **setting).fit(X, rows)
        assert_equals_separate(model, X, rows, splits, **setting)
    scored = search(3, scoring=neg_log_loss_scorer).fit(X, rows)
    assert_allclose(scored.scores_, search(3).fit(X, rows).scores_, rtol=1e-12)
    hard = np.eye(3)[rows.argmax(axis=1)]
    labels = search(3, classes=[0, 1, 2]).fit(X, rows.argmax(axis=1))
    assert_array_equal(search(3).fit(X, hard).scores_, labels.scores_)


def test_text_labels_and_frames(data):
    pd = pytest.importorskip("pandas")
    X, y = data
    text = np.array(["apple", "pear", "plum"])[y]
    table = pd.DataFrame(X, columns=list("abcd"))
    model = search(scoring="accuracy").fit(table, pd.Series(text))
    assert_array_equal(model.scores_, search(scoring="accuracy").fit(X, y).scores_)
    assert model.feature_names_in_.tolist() == list("abcd")
    assert set(model.predict(table)) <= set(text)


def test_sparse(data):
    X, y = data
    dense = search(preconditioner="diagonal").fit(X, y)
    model = search().fit(sparse.csr_array(X), y)
    assert_allclose(model.scores_, dense.scores_, **CLOSE)
    scored = search(scoring="accuracy").fit(sparse.csr_array(X), y)
    assert_allclose(scored.scores_, search(scoring="accuracy").fit(X, y).scores_)


def test_float32_stays(data):
    X, y = data
    single = SoftmaxFCClassifierCV(Cs=CS).fit(X.astype(np.float32), y)
    for name in ("coef_", "intercept_", "coefs_paths_", "intercepts_paths_"):
        assert getattr(single, name).dtype == np.float32, name
    double = SoftmaxFCClassifierCV(Cs=CS).fit(X, y)
    assert_allclose(single.scores_, double.scores_, rtol=3e-3)
    assert single.scores_.dtype == np.float64


def test_groups_of_folds_change_nothing(data):
    X, y = data
    together = search(4).fit(X, y)
    with override(few_numbers=1):
        alone = search(4).fit(X, y)
        assert _search.groups(X, 3, [0, 1, 2, 3]) == [[0], [1], [2], [3]]
    assert_allclose(alone.scores_, together.scores_, **CLOSE)


def test_problems_left_are_printed(data, capsys):
    search(3, verbose=1, refit=False).fit(*data)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("] ")[2].rpartition(", ")[0] for line in lines] == [
        f"{left} of 9 problems left" for left in (6, 3, 0)
    ]
    search(3, verbose=2).fit(*data)
    assert "iteration" in capsys.readouterr().out
    search(3).fit(*data)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_failed_fit_leaves_the_earlier_one(data, error):
    X, y = data
    model = search(3).fit(X, y)
    before = dict(vars(model))

    def fails(estimator, X, y):
        raise error

    model.scoring = fails
    before["scoring"] = fails
    with pytest.raises(error):
        model.fit(X[:, :2], y)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


WRONG = [
    ({"Cs": 0}, ValueError, "'Cs' parameter.*got 0"),
    ({"Cs": []}, ValueError, "'Cs' parameter"),
    ({"Cs": [1.0, -1.0]}, ValueError, "'Cs' parameter.*-1"),
    ({"Cs": [1.0, np.nan]}, ValueError, "'Cs' parameter.*nan"),
    ({"Cs": [[1.0]]}, ValueError, "'Cs' parameter"),
    ({"Cs": True}, TypeError, "'Cs' parameter.*True"),
    ({"Cs": 2.5}, TypeError, r"'Cs' parameter.*2\.5"),
    ({"Cs": "many"}, TypeError, "'Cs' parameter.*many"),
    ({"selection": "worst"}, ValueError, "'selection' parameter.*one_standard_error.*worst"),
    ({"refit": "C"}, TypeError, "'refit' parameter.*'C'"),
    ({"store_paths": None}, TypeError, "'store_paths' parameter.*None"),
    ({"scoring": ["accuracy"]}, TypeError, "'scoring' parameter.*accuracy"),
    ({"scoring": "beauty"}, ValueError, "'scoring' parameter.*got 'beauty'.*Names like it: none"),
    ({"scoring": "acuracy"}, ValueError, r"Names like it: \['accuracy'"),
    ({"tol": -1}, ValueError, "'tol' parameter of SoftmaxFCClassifierCV"),
    ({"cv": 1}, ValueError, "k-fold"),
    ({"cv": "five"}, ValueError, "five"),
    ({"cv": []}, ValueError, "no split"),
    ({"cv": [([0, 1, 2], [])]}, ValueError, "Fold 0 of cv"),
    ({"cv": [([0, 1, 2], [900])]}, ValueError, "Fold 0 of cv.*900.*200 rows"),
    ({"cv": [([0, 1, -1], [3])]}, ValueError, "Fold 0 of cv.*-1"),
    ({"cv": [([0.5, 1.5], [3])]}, ValueError, "Fold 0 of cv.*float64"),
]


@pytest.mark.parametrize(("parameters", "error", "match"), WRONG, ids=[str(w[0]) for w in WRONG])
def test_wrong_parameters(data, parameters, error, match):
    with pytest.raises(error, match=match):
        search(**{"cv": 3} | parameters).fit(*data)


@pytest.mark.parametrize("scoring", ["f1", "roc_auc"])
def test_a_named_score_that_does_not_suit_the_labels_raises_before_any_work(
    data, scoring, monkeypatch
):
    def solve(*_):
        raise AssertionError("solved")

    X, y = data
    monkeypatch.setattr(_classifier_cv, "solve_folds", solve)
    message = rf"scoring='{scoring}' cannot score .* of fold 0: .*multi.* are \['{scoring}_"
    with pytest.raises(ValueError, match=message):  # three classes
        search(3, scoring=scoring).fit(X, y)
    with pytest.raises(AssertionError, match="solved"):
        search(3, scoring=scoring).fit(X, y > 0)


def test_a_named_score_of_a_fold_that_misses_a_class_raises_before_any_work(data, monkeypatch):
    X, y = data
    rows = np.arange(len(y))
    folds = [(rows, rows), (rows, rows[y > 0])]
    monkeypatch.setattr(_classifier_cv, "solve_folds", None)
    message = r"scoring='roc_auc_ovr' cannot score .* of fold 1: .* miss the classes \[0\]"
    with pytest.raises(ValueError, match=message):
        search(folds, scoring="roc_auc_ovr").fit(X, y)


def test_the_trial_of_a_named_score_says_nothing():
    """No class is predicted there but the first, of which this score warns."""
    model = search(3, Cs=[1.0, 10.0], scoring="precision_macro").fit(*load_iris(return_X_y=True))
    assert np.isfinite(model.scores_).all()


def test_held_out_rows_without_weight(data):
    X, y = data
    first = np.arange(len(y)) < 100
    with pytest.raises(ValueError, match="test rows of fold 0"):
        search([(first, ~first)]).fit(X, y, sample_weight=first.astype(float))


def test_parameters_are_those_of_one_fit_but_for_its_C(data):
    """What one fit takes, the search takes: C, start and end of its fits it finds itself."""
    one = inspect.signature(SoftmaxFCClassifier).parameters
    many = inspect.signature(SoftmaxFCClassifierCV).parameters
    stopping = {"early_stopping", "validation_fraction", "n_iter_no_change"}
    assert set(one) - set(many) == {"C", "l1_ratio", "warm_start"} | stopping
    own = {"Cs", "l1_ratios", "cv", "scoring", "refit", "selection", "store_paths"}
    assert set(many) - set(one) == own
    assert all(many[name].default == one[name].default for name in set(one) & set(many))
    copy = clone(search(3).fit(*data))
    assert not hasattr(copy, "C_")


# -- score, named scorers, frames, the end of the grid, what is kept ---------------------


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "f1_macro", record_weights])
def test_score_is_by_scoring(data, rng, scoring):
    X, y = data
    weight = rng.uniform(0.1, 3, len(y))
    record_weights.seen = []
    model = search(3, scoring=scoring).fit(X, y)
    scorer = get_scorer(scoring)
    assert model.score(X, y) == scorer(model, X, y)
    assert model.score(X, y, weight) == scorer(model, X, y, sample_weight=weight)


def test_score_without_scoring_is_accuracy(data, rng):
    X, y = data
    weight = rng.uniform(0.1, 3, len(y))
    model = search(3).fit(X, y)
    assert model.score(X, y, weight) == accuracy_score(y, model.predict(X), sample_weight=weight)
    assert model.score(X, np.eye(3)[y]) == pytest.approx(model.score(X, y), rel=1e-12)
    for other in (model, search(3, scoring="accuracy").fit(X, y)):
        with pytest.raises(TypeError, match=r"score takes.*'colour'"):
            other.score(X, y, colour=weight)
    with pytest.raises(NotFittedError):
        search(scoring="accuracy").score(X, y)
    plain = search(3, scoring=without_weights).fit(X, y)
    assert plain.score(X, y, weight) == without_weights(plain, X, y)


def test_metadata_routing_of_weights_to_score(data, rng):
    X, y = data
    weight = rng.uniform(0.1, 3, len(y))
    model = search(3, scoring="accuracy").fit(X, y)
    expected = model.score(X, y, weight)
    with config_context(enable_metadata_routing=True):
        scorer = get_scorer("accuracy").set_score_request(sample_weight=True)
        assert model.set_params(scoring=scorer).score(X, y, weight) == expected
        ignores = get_scorer("accuracy").set_score_request(sample_weight=False)
        assert model.set_params(scoring=ignores).score(X, y, weight) == model.score(X, y)
        with pytest.raises(ValueError, match="sample_weight"):
            model.set_params(scoring=neg_log_loss_scorer).score(X, y, weight)
        assert np.isfinite(model.set_params(scoring=None).score(X, y, weight))


BRIER = inspect.signature(brier_score_loss).parameters
NAMED = [
    "neg_log_loss",
    "neg_brier_score",
    "d2_log_loss_score",
    "d2_brier_score",
    "top_k_accuracy",
]


@pytest.mark.parametrize("scoring", NAMED)
def test_named_scores_where_the_test_rows_miss_a_class(data, scoring):
    if scoring not in get_scorer_names():
        pytest.skip("a name of later releases")
    X, y = data
    some = (np.arange(len(y)) % 2 == 0) & (y != 2)
    splits = [(~some, some), (some | (y == 2), ~some)]
    if scoring == "neg_brier_score" and "labels" not in BRIER:  # of two classes only there
        with pytest.raises(ValueError, match=r"1d array|[bB]inary"):
            search(splits, scoring=scoring).fit(X, y)
        return
    model = search(splits, scoring=scoring).fit(X, y)
    assert np.isfinite(model.scores_).all()
    if scoring == "neg_log_loss":
        assert_allclose(model.scores_, search(splits).fit(X, y).scores_, rtol=1e-6)
    one = SoftmaxFCClassifier(C=CS[0], tol=TOL).fit(X[~some], y[~some])
    P = one.predict_proba(X[some])
    if scoring == "neg_brier_score":
        scores = -np.mean(np.sum((P - np.eye(3)[y[some]]) ** 2, axis=1))
        assert_allclose(model.scores_[0, 0] / scores, [1], rtol=1e-6)
    if scoring == "top_k_accuracy":
        second = np.sort(P, axis=1)[:, -2]
        assert model.scores_[0, 0] == np.mean(P[np.arange(len(P)), y[some]] >= second)
    assert np.isfinite(model.score(X[some], y[some]))


@pytest.mark.parametrize("scoring", ["neg_log_loss", "neg_brier_score", "d2_log_loss_score"])
def test_named_scores_of_two_text_classes(data, scoring):
    if scoring not in get_scorer_names():
        pytest.skip("a name of later releases")
    X, y = data
    text = np.array(["b", "a"])[(y > 0).astype(int)]
    model = search(3, scoring=scoring).fit(X, text)
    # Of numbers, which every score takes: zero for "a".
    numbers = search(3, scoring=scoring).fit(X, (text == "b").astype(int))
    assert_array_equal(model.scores_, numbers.scores_)
    for k, (train, test) in enumerate(StratifiedKFold(3).split(X, text)):
        one = SoftmaxFCClassifier(C=CS[1], tol=TOL).fit(X[train], text[train] == "b")
        expected = get_scorer(scoring)(one, X[test], text[test] == "b")
        assert_allclose(model.scores_[k, 1], expected, rtol=1e-5)
    ordered = np.argsort(text, kind="stable")  # the test rows of a fold hold one class
    few = search(KFold(5), scoring=scoring).fit(X[ordered], text[ordered])
    if scoring != "d2_log_loss_score":  # undefined there: the null model has no loss
        assert np.isfinite(few.scores_).all()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_scorers_get_frames_where_X_is_one(data, library):
    library = pytest.importorskip(library)
    X, y = data
    names = ["width", "height", "depth", "price"]
    table = library.DataFrame({name: X[:, j] for j, name in enumerate(names)})
    seen = []

    def of_frames(estimator, rows, y):
        assert isinstance(rows, library.DataFrame)
        assert list(rows.columns) == names
        seen.append(np.asarray(rows["depth"]))
        return estimator.score(rows, y)

    model = search(3, scoring=of_frames).fit(table, library.Series(y))
    for k, (_, test) in enumerate(StratifiedKFold(3).split(X, y)):
        assert_array_equal(seen[k * len(CS)], X[test, 2])
    assert_array_equal(model.scores_, search(3, scoring="accuracy").fit(X, y).scores_)
    assert model.score(table, y) == of_frames(model, table, y)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("Cs", "selection", "end"),
    [
        ([10.0, 100.0, 1e3], "best", "largest"),
        ([1e3, 100.0, 10.0], "best", "largest"),
        ([1e3, 1e6, np.inf], "best", "smallest"),
        ([10.0, 1e3, 1e7], "best", None),
        ([1e6, 1e7], "best", None),  # the curve has levelled off
        ([1e7, 1e6], "best", None),
        ([1e3, 1e3], "best", None),
        ([1e3], "best", None),
        ([10.0, np.inf], "best", None),
        ([1e3, 1e4], "one_standard_error", "smallest"),
    ],
    ids=str,
)
def test_a_choice_at_the_end_of_the_grid_is_said(data, Cs, selection, end):
    X, y = data
    model = SoftmaxFCClassifierCV(Cs=Cs, cv=3, selection=selection)
    if end is None:
        model.fit(X, y)
        return
    with pytest.warns(UserWarning, match=f"C_=1000 is the {end} of Cs.*Extend Cs") as record:
        model.fit(X, y)
    assert len(record) == 1
    assert record[0].category is UserWarning
    assert record[0].filename == __file__


@pytest.mark.parametrize("refit", [True, False])
def test_paths_need_not_be_stored(data, refit):
    X, y = data
    model = search(3, refit=refit).fit(X, y)
    lean = search(3, refit=refit, store_paths=False).fit(X, y)
    paths = {"coefs_paths_", "intercepts_paths_"}
    assert {name for name in vars(model) if name not in vars(lean)} == paths
    assert_array_equal(lean.scores_, model.scores_)
    assert_array_equal(lean.coef_, model.coef_)
    assert not paths & vars(model.set_params(store_paths=False).fit(X, y)).keys()


def test_shapes_beside_those_of_logistic_regression_cv(data):
    """As the docstring says, where scikit-learn has the new shapes."""
    X, y = data
    shapes = search(3).fit(X, y)
    assert shapes.scores_.shape == (3, len(CS))
    assert shapes.coefs_paths_.shape == (3, len(CS), 3, 4)
    assert shapes.intercepts_paths_.shape == (3, len(CS), 3)
    parameters = inspect.signature(LogisticRegressionCV).parameters
    if "use_legacy_attributes" not in parameters:
        return
    other = LogisticRegressionCV(
        Cs=CS, cv=3, l1_ratios=(0,), scoring="neg_log_loss", use_legacy_attributes=False,
        max_iter=10_000,
    ).fit((X - X.mean(axis=0)) / X.std(axis=0), y)  # fmt: skip
    assert isinstance(other.C_, float)
    assert other.scores_.shape == other.n_iter_.shape == (3, 1, len(CS))
    assert other.coefs_paths_.shape == (3, 1, len(CS), 3, 4 + 1)


@pytest.mark.parametrize("Cs", [[2.0], [2.0, 2.0]], ids=str)
def test_the_fit_of_one_C_is_that_of_one_classifier(data, Cs):
    """So is its score, which two fits to `tol` from different starts have to √tol only."""
    X, y = data
    model = SoftmaxFCClassifierCV(Cs=Cs, cv=3, scoring="neg_log_loss").fit(X, y)
    one = SoftmaxFCClassifier(C=2.0).fit(X, y)
    assert_array_equal(model.coef_, one.coef_)
    other = GridSearchCV(SoftmaxFCClassifier(), {"C": [2.0]}, cv=3, scoring="neg_log_loss")
    assert_allclose(model.score(X, y), other.fit(X, y).score(X, y), rtol=1e-12)
