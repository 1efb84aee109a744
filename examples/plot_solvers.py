"""
Gradient descent, momentum, preconditioner, second order
========================================================

Every solver of skfc minimises the same objective. Here they do so on features in different
units, from the gradient descent of textbooks to Newton's method: each line of the table adds
one idea. The excess says how far, relatively, the objective is above its minimum.

    python examples/plot_solvers.py [folder for the picture]
"""

import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning

from skfc import SoftmaxFCClassifier


def made_up():
    """4000 rows, 30 features in units from 0.1 to 10, none centred at zero."""
    X, y = make_classification(
        4000, 30, n_informative=12, n_classes=4, class_sep=0.7, random_state=0
    )
    rng = np.random.default_rng(0)
    return (X + rng.uniform(-3, 3, 30)) * 10.0 ** rng.uniform(-1, 1, 30), y


problems = {"wine": load_wine(return_X_y=True), "generated": made_up()}

plain = {"solver": "gd", "preconditioner": None}
ladder = {
    "gradient descent": plain | {"momentum": 0},
    "with momentum": plain,
    "diagonal preconditioner": {"solver": "gd", "preconditioner": "diagonal"},
    "Kronecker preconditioner": {"solver": "gd", "preconditioner": "kronecker"},
    "L-BFGS, Kronecker": {"solver": "lbfgs", "preconditioner": "kronecker"},
    "Newton-CG, Kronecker": {"solver": "newton-cg", "preconditioner": "kronecker"},
}

# %%
# An iteration of gradient descent or of L-BFGS is one pass over X. An iteration of Newton-CG is
# one pass, and some Hessian products on a sample of rows.
print(f"{'data':<10} {'':<26} {'iterations':>10} {'seconds':>8} {'excess':>8}")
curves = {}
for name, (X, y) in problems.items():
    best = SoftmaxFCClassifier(tol=1e-12).fit(X, y).loss_curve_[-1]
    for label, parameters in ladder.items():
        model = SoftmaxFCClassifier(**parameters, tol=1e-8)
        start = time.perf_counter()
        with warnings.catch_warnings():  # the first two do not get there
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y)
        seconds = time.perf_counter() - start
        excess = np.maximum(model.loss_curve_ / best - 1, 1e-10)
        curves[name, label] = excess
        print(f"{name:<10} {label:<26} {model.n_iter_:>10} {seconds:>8.2f} {excess[-1]:>8.0e}")

# %%
# Momentum takes about the square root of the iterations, a preconditioner removes the units,
# and second order the rest of the curvature.
fig, axes = plt.subplots(1, 2, figsize=(10, 4.6), sharey=True, layout="constrained")
colors = ["0.55", "k", "#e69f00", "#009e73", "#0072b2", "#c1272d"]  # apart for the colour-blind
markers = ["", "", "", "", "s", "o"]
for ax, name in zip(axes, problems, strict=True):
    for label, color, marker in zip(ladder, colors, markers, strict=True):
        curve = curves[name, label][1:]
        steps = np.arange(1, len(curve) + 1)
        ax.loglog(steps, curve, color=color, lw=2, marker=marker, ms=4, label=label)
    n, N = problems[name][0].shape
    ax.set(title=f"{name}, {n} × {N}", xlabel="iterations", ylim=(1e-9, 1e3))
    ax.grid(alpha=0.25)
axes[0].set_ylabel("(objective − minimum) / minimum")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = folder / "solvers.png"
fig.savefig(picture, dpi=200)
print(f"\npicture of the excess against iterations: {picture}")
