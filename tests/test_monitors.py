"""Lines of progress: what `verbose` prints, and when."""

import re

import numpy as np
import problems
import pytest

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV, _monitors
from skfc._monitors import Progress, ProgressLines
from skfc._outcome import Fit, Status

LINE = r"iteration (\d+): objective [\d.e-]+, estimated gap (?:[\d.]+e[+-]\d+|–), \d+\.\d s"
END = r"converged: (\d+) iterations, gap [\d.]+e[+-]\d+, \d+\.\d s"


@pytest.fixture(scope="module")
def data():
    return problems.overlapping(150)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(_monitors.time, "perf_counter", lambda: now[0])
    return now


def progress(n_iter, gap=0.25, n_left=1, n=1):
    values = np.full(n_left, 0.5)
    return Progress(n_iter, np.arange(n_left), n, values, np.full(n_left, gap), None)


@pytest.mark.parametrize(("verbose", "every"), [(1, 10), (True, 10), (2, 2), (3, 1), (9, 1)])
def test_lines_by_count(data, capsys, verbose, every):
    model = SoftmaxFCClassifier(verbose=verbose, tol=1e-10).fit(*data)
    *lines, end = capsys.readouterr().out.splitlines()
    shown = [int(re.fullmatch(rf"\[skfc\] {LINE}", line)[1]) for line in lines]
    assert shown == list(range(0, model.n_iter_ + 1, every))
    assert int(re.fullmatch(rf"\[skfc\] {END}", end)[1]) == model.n_iter_


def test_a_line_whenever_ten_seconds_have_passed(clock, capsys):
    lines = ProgressLines(1)
    for n_iter, seconds in ((0, 0.0), (1, 4.0), (2, 9.9), (3, 10.1), (4, 12.0), (5, 31.5)):
        clock[0] = 100.0 + seconds
        assert lines.step(progress(n_iter)) is None
    shown = capsys.readouterr().out.splitlines()
    assert [re.search(r"iteration (\d+).* ([\d.]+) s$", line).groups() for line in shown] == [
        ("0", "0.0"), ("3", "10.1"), ("5", "31.5"),
    ]  # fmt: skip


def test_an_unknown_gap_is_a_dash(clock, capsys):
    ProgressLines(1).step(progress(0, gap=np.inf))
    ProgressLines(1).step(progress(0, gap=2.2e-7))
    unknown, known = capsys.readouterr().out.splitlines()
    assert "estimated gap –, " in unknown
    assert "estimated gap 2e-07, " in known


def test_the_closing_line(clock, capsys):
    def fit(status, n_iter, gap):
        return Fit(None, status, n_iter, 1.0, gap, False, [])

    lines = ProgressLines(1, "skfc refit")
    clock[0] = 101.25
    lines.end([fit(Status.CONVERGED, 7, 2e-7)])
    lines.end([fit(Status.CONVERGED, 7, 2e-7), fit(Status.CONVERGED, 9, 1e-8)])
    lines.end([fit(Status.CONVERGED, 7, 2e-7), fit(Status.MAX_ITER, 20, np.inf)])
    assert capsys.readouterr().out.splitlines() == [
        "[skfc refit] converged: 7 iterations, gap 2e-07, 1.2 s",
        "[skfc refit] converged (2 problems): 9 iterations, gap 2e-07, 1.2 s",
        "[skfc refit] converged, max_iter reached (2 problems): 20 iterations, gap –, 1.2 s",
    ]


def test_lines_say_how_many_problems_are_left(clock, capsys):
    ProgressLines(1).step(progress(0, n_left=2, n=5))
    assert capsys.readouterr().out.endswith("0.0 s, 2 of 5 problems left\n")


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_a_search_names_folds_C_and_refit(data, capsys, solver):
    """Folds in lock-step, where the solver takes several problems, or one by one."""
    together = solver == "lbfgs"
    search = SoftmaxFCClassifierCV(Cs=[10.0, 0.1, 1.0], cv=3, solver=solver, verbose=2)
    search.fit(*data)
    names = re.findall(r"^\[(.+?)\] ", capsys.readouterr().out, re.MULTILINE)
    found = list(dict.fromkeys(names))
    expected = []
    for C in ("0.1", "1", "10"):
        each = [] if together else [f"skfc fold {k}, C={C}" for k in range(3)]
        expected += [*each, f"skfc folds 0-2, C={C}"]
    assert found == [*expected, "skfc refit"]


def test_a_search_names_the_folds_that_are_solved_apart(data, capsys):
    """A training part of two classes is no problem of three."""
    X, y = data
    two, rows = np.flatnonzero(y < 2), np.arange(len(y))
    split = [(rows[:100], rows[100:]), (two, rows), (rows[50:], rows[:50]), (rows[::2], rows)]
    SoftmaxFCClassifierCV(Cs=[1.0], cv=split, verbose=1, refit=False).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(", ")[0] for line in lines] == [
        "[skfc folds 0, 2-3, C=1] 1 of 4 problems left",
        "[skfc fold 1, C=1] 0 of 4 problems left",
    ]
    assert all(re.search(r", \d+\.\d s$", line) for line in lines)
