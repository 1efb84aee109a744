"""The choice of C from scores of folds."""

import numpy as np
import pytest

from skfc._search import select

CS = np.array([1e-2, 1.0, 1e2, 1e4])


def folds(mean, best_std):
    """Scores (2, n_Cs) of these means; the best C's have this sample standard deviation."""
    best = np.argmax(mean)
    scores = np.tile(mean, (2, 1))
    scores[:, best] += np.array([1.0, -1.0]) * best_std / np.sqrt(2)
    return scores


def test_the_best_mean_is_chosen():
    assert select(folds([-3.0, -1.0, -2.0, -1.5], 5.0), CS, "best") == 1


def test_the_first_of_equal_means_is_chosen():
    assert select(folds([-3.0, -1.0, -1.0, -1.5], 0.0), CS, "best") == 1


def test_one_standard_error_is_that_of_a_sample():
    """s / √n with s² = Σ (x - mean)² / (n - 1): √2 times the population's, for two folds."""
    for distance, expected in ((0.99, 0), (1.01, 2)):
        scores = folds([-distance, -5.0, 0.0, -1e-3], np.sqrt(2))  # an error of one
        assert scores[:, 2].std(ddof=1) / np.sqrt(2) == pytest.approx(1.0)
        assert select(scores, CS, "one_standard_error") == expected


def test_the_strongest_penalty_near_the_best_is_chosen_in_any_order():
    scores = folds([-0.5, -5.0, 0.0, -1e-3], np.sqrt(2))
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        index = select(scores[:, order], CS[order], "one_standard_error")
        assert CS[order][index] == CS[0]


def test_one_fold_has_no_standard_error():
    scores = np.array([[-0.5, -5.0, 0.0, -1e-3]])
    assert select(scores, CS, "one_standard_error") == 2


def test_scores_that_are_no_numbers_are_never_best():
    scores = folds([np.nan, -1.0, -2.0, -3.0], 0.0)
    scores[:, 0] = np.nan
    assert select(scores, CS, "best") == 1
    with pytest.raises(ValueError, match="NaN at every C"):
        select(np.full((2, 4), np.nan), CS, "best")
