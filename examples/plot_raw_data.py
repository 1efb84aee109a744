"""
Raw, badly scaled data beside LogisticRegression
================================================

Gradient methods converge slowly when the features have different units. Here
`LogisticRegression` and `SoftmaxFCClassifier` minimise the same objective on raw features,
and `LogisticRegression` minimises it on standardised ones, too. The excess says how far,
relatively, a fit ends above the minimum of its own problem: standardising changes what is
penalised, and therefore the minimum. One function evaluates all fits, in float64.

    python examples/plot_raw_data.py [folder for the picture]
"""

import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import load_digits, load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skfc import SoftmaxFCClassifier

threadpool_limits(1)  # on data this small, more threads cost more than they bring


def objective(model, X, y):
    """Sum of the losses + |W|^2 / 2, the objective at C = 1."""
    logits = X @ model.coef_.T + model.intercept_
    loss = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return loss.sum() + (model.coef_**2).sum() / 2


def fit(model, X, y):
    """The fitted model, the milliseconds of its fastest fit, and whether it warned.

    Processor time: other programs hardly change it.
    """
    seconds = []
    while len(seconds) < 5 and sum(seconds) < 0.1:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = time.process_time()
            model.fit(X, y)
            seconds.append(time.process_time() - start)
    warned = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return model, 1000 * min(seconds), warned


def made_up():
    """5000 rows, 30 features in units from 1e-3 to 1e3, none centred at zero."""
    X, y = make_classification(
        5000, 30, n_informative=15, n_classes=6, class_sep=0.7, random_state=0
    )
    rng = np.random.default_rng(0)
    return (X + rng.uniform(-10, 10, 30)) * 10.0 ** rng.uniform(-3, 3, 30), y


problems = {
    "wine\n178 × 13, 3 classes": load_wine(return_X_y=True),
    "digits\n1797 × 64, 10 classes": load_digits(return_X_y=True),
    "generated\n5000 × 30, 6 classes": made_up(),
}
contestants = {
    # name: (estimator, whether the features are standardised, budgets of iterations)
    "skfc,\nraw": (SoftmaxFCClassifier, False, [1, 2, 3, 4, 6, 8, 10, 12, 15, 20]),
    "LogisticRegression,\nraw": (LogisticRegression, False, [3, 10, 30, 100, 300]),
    "LogisticRegression,\nstandardised": (LogisticRegression, True, [3, 5, 10, 20, 40, 80, 160]),
}

# %%
# The default settings of each, then the same with larger and larger budgets of iterations
# and a `tol` that hardly ends a fit before its budget.
FLOOR = 1e-9  # what is closer to the minimum is drawn here
print(f"{'data':<10} {'model':<34} {'iterations':>10} {'ms':>7} {'excess':>7}  warned")
curves, defaults = {}, {}
for problem, (X, y) in problems.items():
    for name, (estimator, standardised, budgets) in contestants.items():
        A = StandardScaler().fit_transform(X) if standardised else X
        best = objective(SoftmaxFCClassifier(tol=1e-12).fit(A, y), A, y)
        model, ms, warned = fit(estimator(), A, y)
        excess = objective(model, A, y) / best - 1
        defaults[problem, name] = ms, max(excess, FLOOR)
        print(
            f"{problem.split()[0]:<10} {' '.join(name.split()):<34} "
            f"{np.max(model.n_iter_):>10} {ms:>7.1f} {excess:>7.0e}  {'yes' if warned else 'no'}"
        )
        curve = []
        for budget in budgets:
            model, ms, _ = fit(estimator(max_iter=budget, tol=1e-10), A, y)
            curve.append((ms, max(objective(model, A, y) / best - 1, FLOOR)))
            if curve[-1][1] == FLOOR:
                break
        curves[problem, name] = curve

# %%
# Excess against time. A ring marks where the default settings end.
colors = dict(zip(contestants, ["#c1272d", "0.4", "#0b6fa4"], strict=True))
fig, axes = plt.subplots(1, 3, figsize=(10, 3.8), sharex=True, sharey=True, layout="constrained")
for ax, problem in zip(axes, problems, strict=True):
    for name, color in colors.items():
        ax.loglog(*zip(*curves[problem, name], strict=True), ".-", color=color, lw=2)
        ax.loglog(*defaults[problem, name], "o", ms=11, mfc="none", mec=color, mew=1.5)
    ax.set(title=problem, xlabel="milliseconds of a fit, one core", ylim=(FLOOR / 2, 1e3))
    ax.set(xlim=(0.8, 700), xticks=(ticks := [1, 3, 10, 30, 100, 300]), xticklabels=ticks)
    ax.minorticks_off()
    ax.grid(alpha=0.25)
axes[0].set_ylabel("(objective − minimum) / minimum")
places = [(0.97, 0.3, "right"), (0.97, 0.86, "right"), (0.03, 0.3, "left")]  # in the second
for (name, color), (x, height, side) in zip(colors.items(), places, strict=True):
    axes[1].text(
        *(x, height), name, color=color, ha=side, weight="bold", transform=axes[1].transAxes
    )
axes[0].text(
    *(0.97, 0.06), "rings: default settings", ha="right", color="0.3", transform=axes[0].transAxes
)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = folder / "raw_data.svg"
fig.savefig(picture, metadata={"Date": None})
print(f"\npicture of the excess against milliseconds: {picture}")
