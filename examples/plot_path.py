"""
The path of C: coefficients shrink, the held-out log loss has a valley
======================================================================

One call solves ten folds at 25 values of `C` on the wine data, whose columns have
standard deviations from 0.1 to 314. Upper picture: the norms of the coefficients of every
feature, in units of its standard deviation, averaged over the folds. Lower picture: the log
loss of training and of held-out rows, with the best `C` and the smallest one within a
standard error of it.

    python examples/plot_path.py [folder for the picture]
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import log_softmax
from sklearn.datasets import load_wine
from sklearn.model_selection import StratifiedKFold

from skfc import SoftmaxFCClassifierCV

data = load_wine()
X, y = data.data, data.target
folds = list(StratifiedKFold(10, shuffle=True, random_state=0).split(X, y))
search = SoftmaxFCClassifierCV(Cs=np.logspace(-5, 3, 25), cv=folds).fit(X, y)
simple = SoftmaxFCClassifierCV(
    Cs=search.Cs_, cv=folds, selection="one_standard_error", refit=False
).fit(X, y)
print(f"{search.scores_.size} fits; best C {search.C_:.3g}: log loss {-search.best_score_:.4f}")
print(f"within one standard error: C {simple.C_:.3g}, log loss {-simple.best_score_:.4f}")

# %%
# Every fold has its path: here the log loss of its own training rows.
training = np.empty_like(search.scores_)
for k, (rows, _) in enumerate(folds):
    logits = X[rows] @ search.coefs_paths_[k].transpose(0, 2, 1)
    log_proba = log_softmax(logits + search.intercepts_paths_[k][:, None], axis=2)
    training[k] = -log_proba[:, np.arange(len(rows)), y[rows]].mean(axis=1)

# %%
# The pictures share their axis of C.
fig, (above, below) = plt.subplots(2, 1, figsize=(7, 6.5), sharex=True, layout="constrained")
norms = np.linalg.norm(search.coefs_paths_, axis=2).mean(axis=0) * X.std(axis=0)
largest = np.argsort(norms[search.best_index_])[::-1]
colors = dict(zip(largest, ["#0072b2", "#e69f00", "#009e73", "#c1272d"], strict=False))
for j in largest:
    named = j in colors
    above.plot(
        search.Cs_,
        norms[:, j],
        color=colors.get(j, "0.8"),
        label=data.feature_names[j] if named else None,
        zorder=2 if named else 1,
    )
above.set(title="wine: coefficients, log loss and C", yscale="log", ylim=(1e-3, None))
above.set_ylabel("norm of coefficients,\nper standard deviation")
above.legend(title="largest at the best C")

held_out = -search.scores_.mean(axis=0)
error = search.scores_.std(axis=0, ddof=1) / np.sqrt(len(folds))
below.plot(search.Cs_, training.mean(axis=0), "--", color="#0072b2", label="training rows")
below.plot(search.Cs_, held_out, "o-", ms=4, color="#c1272d", label="held-out rows")
low, high = held_out - error, held_out + error
below.fill_between(search.Cs_, low, high, color="#c1272d", alpha=0.15, label="± standard error")
for C, name in (search.C_, "best"), (simple.C_, "one standard error"):
    below.axvline(C, color="k", lw=1, ls="-" if name == "best" else ":")
    below.text(C, 0.6, f"{name} ", rotation=90, ha="right", va="top")
below.set(xscale="log", xlabel="C", ylabel="mean log loss, nats", ylim=(0, None))
below.legend(loc="upper right")

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = folder / "path.png"
fig.savefig(picture, dpi=200)
print(f"picture of the path and of the log loss along it: {picture}")
