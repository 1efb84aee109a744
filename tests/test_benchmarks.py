"""The benchmark package: the common objective, the climb, the runner on a toy problem."""

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from skfc import SoftmaxFCClassifier
from skfc._tuned import TUNED, Tuned

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import (
    ablate,
    cores,
    families,
    probe,
    problems,
    report,
    runner,
    streams,
    unseen,
)
from benchmarks.objective import mean_objective
from benchmarks.rivals import Rival, all_rivals, two_rows
from benchmarks.worker import Failed, Worker


@pytest.mark.parametrize("C", [0.1, 10.0, np.inf])
def test_objective_is_that_of_the_loss_curve(C):
    X, y = problems.generate(400, 6, 3)
    model = SoftmaxFCClassifier(C=C).fit(X, y)
    value = mean_objective(X, y, model.coef_, model.intercept_, C)
    assert value == pytest.approx(model.loss_curve_[-1], rel=1e-12)
    in_csr = mean_objective(sparse.csr_matrix(X), y, model.coef_, model.intercept_, C)
    assert in_csr == pytest.approx(value, rel=1e-12)


def test_objective_of_two_rows_is_the_binomial_one():
    X, y = problems.generate(300, 4, 2)
    model = LogisticRegression(C=2.0, tol=1e-8).fit(X, y)
    z = model.decision_function(X)
    loss = np.logaddexp(0, np.where(y == 1, -z, z)).mean()
    expected = loss + 0.5 * np.vdot(model.coef_, model.coef_) / (2.0 * len(y))
    value = mean_objective(X, y, *two_rows(model.coef_, model.intercept_), C=1.0)
    assert value == pytest.approx(expected, rel=1e-12)


def test_generated_spectrum_and_labels():
    X, y = problems.generate(20_000, 5, 3, power=1.5)
    values = np.linalg.svd(X, compute_uv=False)
    # Singular values of n Gaussian rows agree to about sqrt(N / n).
    np.testing.assert_allclose(values / values[0], np.arange(1, 6) ** -1.5, rtol=0.05)
    assert set(y) == {0, 1, 2}


def test_standardised_variant():
    X = problems.load("wine:std").X
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X.std(axis=0), 1, rtol=1e-12)


def test_local_folder_is_read_before_a_download(tmp_path):
    X, y = sparse.random(6, 4, 0.5, format="csr", random_state=0), np.array(list("abcabc"))
    np.savez(tmp_path / "letter.npz", X_data=X.data, X_indices=X.indices, X_indptr=X.indptr,
             X_shape=X.shape, y=y)  # fmt: skip
    problem = problems.load("letter", tmp_path)
    assert (problem.X != X).nnz == 0
    assert problem.y.tolist() == [0, 1, 2, 0, 1, 2]


def test_data_that_cannot_be_had_says_so(tmp_path):
    with pytest.raises(problems.Unavailable, match="--data"):
        problems.load("khan", tmp_path)


def test_climb_finds_the_loosest_setting():
    gaps, tried = [1, 0.5, 0.09, 0.05, 0.002, 0.0005, 0.0004], []

    def attempt(i):
        tried.append(i)
        return gaps[i]

    runner.climb(attempt, len(gaps), (0.1, 1e-3))
    assert tried == [0, 2, 1, 4, 6, 5]


def test_missing_rival_is_reported(monkeypatch):
    absent = Rival("absent-one", "no_such_package", "no-such", fit=None, ladder=())
    monkeypatch.setattr(runner, "all_rivals", lambda: {**all_rivals(), absent.name: absent})
    contestants, missing = runner.contest(["absent"])
    assert set(missing) == {"absent-one"}
    assert "absent-one" not in contestants
    text = report.run_markdown([], (1e-3,), [], missing, {})
    assert "absent-one: no-such is not installed" in text


def test_unknown_rival_raises():
    with pytest.raises(ValueError, match="unknown rivals"):
        runner.contest(["nobody"])


def test_failure_in_a_worker_is_told_and_the_worker_goes_on(tmp_path):
    worker = Worker("logistic-newton-cholesky")
    try:
        with pytest.raises(Failed, match="FileNotFoundError"):
            worker.take(tmp_path / "nothing")
        worker.data = None
        worker.wait()
    finally:
        worker.close()


def test_runner_on_a_toy_problem():
    problem = problems.Problem("toy", *load_iris(return_X_y=True))
    names = ("skfc", "logistic-newton-cholesky")
    contestants = {name: (all_rivals()[name], None) for name in names}
    options = runner.Options(targets=(1e-2, 1e-5))
    with runner.Field(contestants, log=lambda text: None) as field:
        cell = runner.measure(problem, 1.0, field, options, declined=field.take(problem))
    for target in options.targets:
        assert set(cell.times[target]) == set(names)
        for timing in cell.times[target].values():
            assert timing["gap"] <= target
            assert len(timing["seconds"]) >= 1
        assert cell.ratio(target, "skfc", names[1:]) > 0
        assert cell.best(target, names[1:]) == names[1]
    assert all(run.value >= cell.optimum for runs in cell.runs.values() for run in runs)
    text = report.run_markdown([cell], options.targets, names[1:], {}, {})
    assert "| toy, C=1 | 150×4×3 |" in text
    assert "Geometric mean of 1 ratios" in text


def test_capped_and_missing_times():
    stopped = runner.Run(0.1, 30.0, note="stopped")
    cell = runner.Cell("toy", (1, 1, 2), 1.0, runs={"skfc": [], "other": [stopped]})
    timing = {"median": 1.0}
    cell.times = {
        "both": {"skfc": timing, "other": {"median": 100.0}},
        "ours": {"skfc": timing},
        "theirs": {"other": timing},
    }
    assert [cell.ratio(t, "skfc", ["other"], cap=20) for t in cell.times] == [20, 20, 1 / 20]
    alone = dataclasses.replace(cell, runs={"skfc": []})
    assert alone.ratio("ours", "skfc", ["other"]) is None
    stopped.note = runner.NO_TIME
    assert cell.ratio("ours", "skfc", ["other"]) is None
    late = dataclasses.replace(cell, runs={"skfc": [stopped], "other": [runner.Run(0.1, 1.0)]})
    assert late.ratio("theirs", "skfc", ["other"]) is None


def test_tables_are_placed_between_their_marks():
    page = "a\n<!-- run -->\nold\n<!-- end run -->\nb\n"
    assert report.placed(page, "run", "new\n") == "a\n<!-- run -->\nnew\n<!-- end run -->\nb\n"
    with pytest.raises(ValueError, match="no marks"):
        report.placed(page, "grid", "new")


def test_ablation_of_two_fields_and_one_that_nothing_reads(monkeypatch):
    assert set(ablate.OFF) == {field.name for field in dataclasses.fields(Tuned)}
    chosen = [ablate.Case("iris", 1.0, 1e-3), ablate.Case("iris", 100.0, 1e-6)]
    # The value that it has is no change; iris has no work for float32.
    monkeypatch.setitem(ablate.OFF, "armijo", TUNED.armijo)
    names = ("armijo", "hessian_size", "merge_share")
    rows, idle = ablate.run(names, chosen, repeats=1)
    assert idle == ["merge_share"]
    same, other = rows
    assert (same.n_cases, same.n_changed, same.passes, same.products) == (2, 0, 1.0, 1.0)
    assert (other.n_cases, other.n_changed) == (2, 2)
    assert not any((row.missed, row.failed) != ([], []) for row in rows)
    assert type(TUNED) is Tuned
    text = ablate.markdown(rows, idle, len(chosen))
    assert text.index("| armijo |") < text.index("Not judged") < text.index("merge_share")


def test_a_stream_beside_its_fit():
    X, y, X_test, y_test = streams.split("gen-1200x6x3", None)
    assert (len(y), len(y_test)) == (900, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "OTHER_BATCHES", (300,))
        cell = streams.measure(X, y, X_test, y_test)
    assert len(cell["skfc"]) == len(cell["SGDClassifier"]) == streams.ORDERS
    for loss in (cell["skfc"][0][0], cell["batches"][300], cell["passes"]):
        assert loss < 1.05 * cell["full"]
    assert streams.told(cell, "skfc").count(".") == 2


def test_the_probe_measures_all_by_one_objective(monkeypatch):
    """The points of every climb, on tensors, and the line of a table for each."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(probe, "BLOCK", 64)
    X, y = problems.embeddings(200, 8, 3)
    X, y = torch.asarray(X.astype(np.float32)), torch.asarray(y)
    with sklearn.config_context(array_api_dispatch=True):
        values, memory = probe.climbs(torch, X, y, 3, 1.0, (1e-3,), 8)
        model = SoftmaxFCClassifier(tol=1e-8).fit(X, y)
    right = mean_objective(X.numpy().astype(float), y.numpy(), model.coef_, model.intercept_, 1.0)
    least = min(value for points in values.values() for _, value in points)
    assert least == pytest.approx(right, rel=1e-5)
    lines = list(probe.table(values, memory, (1e-3,)))
    assert len(lines) == 2 + len(values)
    assert probe.seconds_to([(1.0, 2.0), (2.0, 1.001), (3.0, 1.0)], 1.0, 1e-2) == 2.0
    assert probe.seconds_to([(1.0, 2.0)], 1.0, 1e-2) == np.inf


def test_numbers_of_threads_end_with_all_cores():
    assert [cores.numbers_of_threads(n) for n in (1, 2, 6, 16)] == [
        [1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]
    ]  # fmt: skip


def test_threads_are_told_to_processes_and_taken_back(monkeypatch):
    monkeypatch.setenv(cores.VARIABLES[0], "7")
    monkeypatch.delenv(cores.VARIABLES[1], raising=False)
    with cores.threads(3):
        assert {os.environ[name] for name in cores.VARIABLES} == {"3"}
    assert os.environ[cores.VARIABLES[0]] == "7"
    assert cores.VARIABLES[1] not in os.environ


@pytest.mark.parametrize("kind", families.KINDS)
def test_family_is_the_same_again_and_has_all_classes(kind):
    first, again = (problems.load(f"{kind}-300x24x4") for _ in range(2))
    assert first.X.shape == (300, 24)
    assert set(first.y) == set(range(4))
    np.testing.assert_array_equal(first.y, again.y)
    assert abs(first.X - again.X).max() == 0


def test_difficulty_of_families_is_as_stated():
    X = problems.load("near-2000x10x3").X
    values = np.linalg.svd(X, compute_uv=False)
    assert values[-1] / values[0] < 1e-3  # five features are nearly sums of others
    X = problems.load("tails-2000x9x3").X
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    assert np.abs(standardised).max() > 20  # of a normal one of 2000 rows: 4
    X = problems.load("onehot-500x40x3").X
    np.testing.assert_array_equal(X.sum(axis=1), families.CATEGORIES)
    X = problems.load("text-500x400x3").X
    np.testing.assert_allclose(np.sqrt(X.power(2).sum(axis=1)), 1.0)


def test_choice_without_a_set_ignores_it_and_its_variant():
    gain, none = np.array([0.5, 1.0]), np.array([1.0, 1.0])
    costs = {name: dict.fromkeys(unseen.OF_SPEED, none) for name in ("a", "a:std", "b", "c")}
    costs["a"] = costs["a:std"] = costs["a"] | {"probes": gain}
    assert unseen.chosen_without("a", costs) == {}
    assert unseen.chosen_without("b", costs) == {"probes": TUNED.probes // 2}


def test_values_of_thresholds_keep_their_type():
    for name in unseen.OF_SPEED:
        for value in unseen.half_and_double(name):
            assert type(value[name]) is type(getattr(TUNED, name))


def test_race_is_timed_in_one_process():
    problem = problems.load("tails-300x4x3")
    rivals = all_rivals()
    entries = [(rivals["skfc"], 1e-3), (rivals["logistic-newton-cholesky"], 1e-3)]
    (ours, theirs) = unseen.in_turns(entries, problem, 1.0)
    assert min(*ours, *theirs) > 0
    race = unseen.Race("", 1.0, 1e-3, (1.0, 2.0), "", (3.0, 5.0))
    assert race.ratios == (3.0, 2.5)
    text = unseen.ratios_markdown([race])
    assert "geometric mean **3.00**, 0 below 1" in text
