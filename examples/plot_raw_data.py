"""
Raw, badly scaled data beside LogisticRegression
================================================

Features in different units make the plain gradient methods crawl. Here
`LogisticRegression` and `SoftmaxFCClassifier`, both as they come, minimise the same
objective on data that nobody scaled. The excess is how far, relatively, each ends above
the minimum; both are evaluated by the one function below, in float64.

    python examples/plot_raw_data.py [folder for the picture]
"""

import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import load_breast_cancer, load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from skfc import SoftmaxFCClassifier


def objective(model, X, y):
    """C * sum of the losses + |W|^2 / 2, at C = 1."""
    W, b = model.coef_, model.intercept_
    if len(W) == 1:  # two classes: one row that stands for the difference of two
        W, b = np.vstack([-W, W]) / 2, np.concatenate([-b, b]) / 2
    logits = X @ W.T + b
    loss = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return loss.sum() + (W**2).sum() / 2


def fit(model, X, y):
    """The fitted model, and whether it warned that it had not converged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    return model, any(issubclass(w.category, ConvergenceWarning) for w in caught)


def made_up():
    """2000 rows, 20 features in units from 1e-3 to 1e3, none centred at zero."""
    X, y = make_classification(
        2000, 20, n_informative=10, n_classes=4, class_sep=0.7, random_state=0
    )
    rng = np.random.default_rng(0)
    return (X + rng.uniform(-10, 10, 20)) * 10.0 ** rng.uniform(-3, 3, 20), y


problems = {
    "wine": load_wine(return_X_y=True),
    "breast cancer": load_breast_cancer(return_X_y=True),
    "generated": made_up(),
}

# %%
# Default settings. For two classes the softmax objective at `C` is the binomial one at
# `2 C`, so that is what `LogisticRegression` is given there.
print(f"{'data':<14} {'model':<20} {'iterations':>10} {'excess':>9}  warned")
budgets = [10, 30, 100, 300, 1000]
curves = {}
for name, (X, y) in problems.items():
    C = 1.0 if y.max() > 1 else 2.0
    best = objective(SoftmaxFCClassifier(tol=1e-12).fit(X, y), X, y)
    for model in LogisticRegression(C=C), SoftmaxFCClassifier():
        model, warned = fit(model, X, y)
        excess = objective(model, X, y) / best - 1
        print(
            f"{name:<14} {type(model).__name__:<20} {np.max(model.n_iter_):>10} "
            f"{excess:>9.0e}  {'yes' if warned else 'no'}"
        )
    # Would more iterations help? LogisticRegression with larger and larger budgets.
    theirs = [fit(LogisticRegression(C=C, max_iter=m), X, y)[0] for m in budgets]
    ours = model.loss_curve_ * len(y)
    curves[name] = [objective(m, X, y) / best - 1 for m in theirs], ours / best - 1

# %%
# The excess against iterations, each of which costs either model about one pass over X.
fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
for (name, (theirs, ours)), ax in zip(curves.items(), axes, strict=True):
    ax.loglog(budgets, theirs, "o-", color="tab:gray", label="LogisticRegression, max_iter")
    ax.loglog(range(1, len(ours)), ours[1:], "-", color="tab:red", label="skfc, each iteration")
    ax.set(title=name, xlabel="iterations", ylim=(1e-9, 30))
axes[0].set_ylabel("excess over the minimum")
axes[0].legend(loc="lower right", fontsize="small")

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = folder / "raw_data.png"
fig.savefig(picture, dpi=90)
print(f"\npicture of the excess against iterations: {picture}")
