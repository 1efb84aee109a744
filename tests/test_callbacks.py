"""scikit-learn's callbacks: what they see, that they can stop a fit, and what a failure leaves."""

import warnings

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV
from skfc.solvers import SOLVERS

callback = pytest.importorskip("sklearn.callback")


class Recorder:
    """Keeps what it is told; asks to stop after `stop_after` iterations."""

    def __init__(self, stop_after=None, task="iteration", fail=None):
        self.begun, self.ended, self.calls = [], [], []
        self.stop_after, self.task, self.fail = stop_after, task, fail

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        self.calls.append(("begin", context.task_name))
        if context.task_name == self.task:
            self.begun.append(fitted_estimator)

    def on_fit_task_end(
        self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
    ):
        self.calls.append(("end", context.task_name))
        if self.fail == context.task_name:
            raise RuntimeError("no more")
        if context.task_name != self.task:
            return False
        self.ended.append(fitted_estimator)
        self.given = X, y, metadata
        return len(self.ended) == self.stop_after


class Propagated(Recorder):
    max_propagation_depth = None


class Light(Recorder):
    """Asks for nothing that has to be computed."""

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass


@pytest.fixture(scope="module")
def data():
    return problems.overlapping()


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_every_iteration_is_a_task(data, solver):
    X, y = data
    recorder, weight = Recorder(), np.ones(len(y))
    model = SoftmaxFCClassifier(solver=solver, tol=1e-3).set_callbacks(recorder)
    model.fit(X, y, sample_weight=weight)
    assert len(recorder.begun) == len(recorder.ended) == model.n_iter_
    names = [call for call in recorder.calls if "iteration" not in call]
    assert names == ["setup", ("begin", "fit"), ("end", "fit"), "teardown"]
    inner = recorder.calls[2:-2]
    assert inner == [("begin", "iteration"), ("end", "iteration")] * model.n_iter_
    assert recorder.given[0] is X
    assert recorder.given[1] is y
    assert recorder.given[2] == {"sample_weight": weight}
    # Coefficients are in the user's units, and those of the loss curve.
    objective = [
        fitted.log_loss(X, y) + 0.5 * (fitted.coef_**2).sum() / len(y)
        for fitted in (*recorder.begun, recorder.ended[-1])
    ]
    assert_allclose(objective[:-1], model.loss_curve_[:-1], rtol=1e-6)
    # One more Newton step ends the fit.
    assert -1e-12 <= objective[-1] / model.loss_curve_[-1] - 1 <= 1e-3
    assert_allclose(recorder.ended[-1].predict_proba(X), model.predict_proba(X), atol=0.03)
    for after, before in zip(recorder.ended[:-1], recorder.begun[1:], strict=True):
        assert_array_equal(after.coef_, before.coef_)
    assert [fitted.n_iter_ for fitted in recorder.begun] == list(range(model.n_iter_))
    assert [fitted.n_iter_ for fitted in recorder.ended] == list(range(1, model.n_iter_ + 1))


@pytest.mark.parametrize("solver", ["auto", "gd"])
def test_a_fit_says_how_many_iterations_there_may_be(data, solver):
    """Progress bars show the share of `max_iter`."""
    seen = []

    class Root(Recorder):
        def setup(self, estimator, context):
            seen.append(context.max_subtasks)

    for max_iter in (0, 1, 30):
        recorder = Root()
        model = SoftmaxFCClassifier(solver=solver, max_iter=max_iter).set_callbacks(recorder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(*data)
        assert len(recorder.ended) <= max_iter
    assert seen == [0, 1, 30]


@pytest.mark.parametrize("kind", [SoftmaxFCClassifier, SoftmaxFCClassifierCV])
def test_a_fit_without_callbacks_has_no_tasks(data, kind, monkeypatch):
    def begin(*args, **kwargs):
        raise AssertionError("nobody watches")

    monkeypatch.setattr(kind, "_init_callback_context", begin)
    kind(**({"Cs": [1.0]} if kind is SoftmaxFCClassifierCV else {})).fit(*data)


def test_a_fit_that_is_watched_is_the_same(data):
    plain = SoftmaxFCClassifier().fit(*data)
    watched = SoftmaxFCClassifier().set_callbacks(Recorder()).fit(*data)
    assert_array_equal(watched.coef_, plain.coef_)
    assert_array_equal(watched.loss_curve_, plain.loss_curve_)
    left = vars(watched).keys() - vars(plain).keys()
    assert left == {"_skl_callbacks"}


def test_nothing_is_computed_that_nobody_asks_for(data, monkeypatch):
    def refuse(*args):
        raise AssertionError("coefficients that nobody asked for")

    from skfc._callbacks import CallbackMonitor

    before = CallbackMonitor.__init__

    def init(self, task, complete, classes):
        before(self, task, refuse, classes)

    monkeypatch.setattr(CallbackMonitor, "__init__", init)
    SoftmaxFCClassifier().set_callbacks(Light()).fit(*data)


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_a_request_to_stop_is_honoured_at_once(data, solver):
    X, y = data
    recorder = Recorder(stop_after=2)
    model = SoftmaxFCClassifier(solver=solver, tol=1e-9).set_callbacks(recorder).fit(X, y)
    assert model.n_iter_ == len(recorder.ended) == 2  # no warning: warnings are errors
    assert_array_equal(model.coef_, recorder.ended[-1].coef_)
    assert model.optimality_gap_ > 1e-9


def test_in_a_search(data):
    X, y = data
    search = GridSearchCV(SoftmaxFCClassifier(tol=1e-9), {"C": [0.1, 1.0]}, cv=2)
    recorder = Propagated(stop_after=2)
    search.set_callbacks(recorder).fit(X, y)
    full = clone(search.estimator).set_params(C=search.best_params_["C"]).fit(X, y)
    assert recorder.ended[1].n_features_in_ == X.shape[1]
    assert search.best_estimator_.n_iter_ == full.n_iter_ > 2

    class Always(Propagated):
        def on_fit_task_end(self, estimator, context):
            return context.task_name == "iteration"

    search = GridSearchCV(SoftmaxFCClassifier(tol=1e-9), {"C": [0.1, 1.0]}, cv=2)
    search.set_callbacks(Always()).fit(X, y)
    assert search.best_estimator_.n_iter_ == 1


def test_in_a_pipeline(data):
    X, y = data
    recorder = Propagated()
    pipe = make_pipeline(StandardScaler(), SoftmaxFCClassifier()).set_callbacks(recorder)
    pipe.fit(X, y)
    assert len(recorder.ended) == pipe[-1].n_iter_
    assert recorder.calls.count("setup") == recorder.calls.count("teardown") == 1


@pytest.mark.filterwarnings("ignore:C_=")
def test_the_search_of_its_own(data):
    X, y = data
    recorder = Recorder()
    model = SoftmaxFCClassifierCV(Cs=[0.01, 1.0, 100.0], cv=3).set_callbacks(recorder).fit(X, y)
    names = [call for call in recorder.calls if "iteration" not in call]
    assert names == [
        "setup", ("begin", "fit"), ("begin", "search"), ("end", "search"),
        ("begin", "refit"), ("end", "refit"), ("end", "fit"), "teardown",
    ]  # fmt: skip
    assert len(recorder.ended) == model.n_iter_
    assert_allclose(recorder.ended[-1].predict_proba(X), model.predict_proba(X), atol=1e-3)
    stopped = SoftmaxFCClassifierCV(Cs=[1.0, 100.0], cv=3, tol=1e-10)
    stopped.set_callbacks(Recorder(stop_after=1)).fit(X, y)
    assert stopped.n_iter_ == 1


@pytest.mark.filterwarnings("ignore:C_=")
@pytest.mark.parametrize("kind", [SoftmaxFCClassifier, SoftmaxFCClassifierCV])
@pytest.mark.parametrize("fail", ["iteration", "fit"])
def test_a_callback_that_raises_leaves_the_earlier_fit(data, kind, fail):
    X, y = data
    recorder = Recorder(fail=fail)
    model = kind().fit(X, y)
    before = vars(model).copy()
    model.set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X[::2], y[::2])
    assert recorder.calls[-1] == "teardown"
    assert vars(model).keys() - before.keys() == {"_skl_callbacks"}
    assert all(vars(model)[name] is before[name] for name in before)


def test_wrong_parameters_are_found_with_callbacks(data):
    recorder = Recorder()
    model = SoftmaxFCClassifier(C=-1).set_callbacks(recorder)
    with pytest.raises(ValueError, match="'C'"):
        model.fit(*data)
    assert recorder.calls == ["setup", "teardown"]


def test_an_interrupt_leaves_the_earlier_fit(data):
    X, y = data

    class Interrupt(Recorder):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "iteration":
                raise KeyboardInterrupt

    model = SoftmaxFCClassifier().fit(X, y)
    before = model.coef_
    with pytest.raises(KeyboardInterrupt):
        model.set_callbacks(Interrupt()).fit(X[::2], y[::2])
    assert model.coef_ is before


def test_with_early_stopping_and_without_weight(data):
    X, y = data
    recorder = Recorder()
    model = SoftmaxFCClassifier(classes=range(5), early_stopping=True, random_state=0, C=1e9)
    model.set_callbacks(recorder).fit(X, y)
    assert recorder.ended[0].predict_proba(X).shape == (len(X), 5)
    assert len(recorder.ended) == model.n_iter_


def test_one_class_has_no_iteration(data):
    X, _ = data
    recorder = Recorder()
    SoftmaxFCClassifier(classes=[0, 1]).set_callbacks(recorder).fit(X, np.zeros(len(X)))
    assert not recorder.ended


def test_scikit_learns_own(data):
    X, y = data
    monitor, tol = callback.ScoringMonitor(scoring="neg_log_loss"), 1e-12
    model = SoftmaxFCClassifier(tol=tol).set_callbacks(monitor).fit(X, y)
    logs = monitor.get_logs().data
    scores = [row["neg_log_loss"] for row in logs if row["task_name"] == "iteration"]
    assert len(scores) == model.n_iter_
    assert_allclose(-scores[-1], model.log_loss(X, y), rtol=np.sqrt(tol))  # a last step follows


def test_the_progress_bar(data, capsys):
    pytest.importorskip("rich")
    model = SoftmaxFCClassifier().set_callbacks(callback.ProgressBar())
    model.fit(*data)
    assert "SoftmaxFCClassifier" in capsys.readouterr().out


def test_warnings_point_at_the_caller(data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        SoftmaxFCClassifier(max_iter=1).fit(*data)
    assert [w.filename for w in caught] == [__file__]
