"""
Handwritten digits: a pipeline, a search over C, and what the layer learned
===========================================================================

Softmax regression on the 8 x 8 images of digits that come with scikit-learn. Pixels that
are blank in every image are dropped, `C` is searched by cross-validated log loss, and
the weights of each class are drawn as an image again: the template that its logit
compares a digit with.

    python examples/plot_digits.py [folder for the picture]
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.feature_selection import VarianceThreshold
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline

from skfc import SoftmaxFCClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)

# %%
# Pixels share one unit, grey levels from 0 to 16, so nothing is scaled.
model = make_pipeline(VarianceThreshold(), SoftmaxFCClassifier())
search = GridSearchCV(
    model,
    {"softmaxfcclassifier__C": np.logspace(-4, 1, 6)},
    scoring={"log loss": "neg_log_loss", "accuracy": "accuracy"},
    refit="log loss",
    cv=5,
).fit(X_train, y_train)

results = search.cv_results_
print(f"{'C':>8} {'log loss':>10} {'accuracy':>10}   (means of 5 folds)")
for i, C in enumerate(results["param_softmaxfcclassifier__C"]):
    best = "  <- best" if i == search.best_index_ else ""
    loss, accuracy = -results["mean_test_log loss"][i], results["mean_test_accuracy"][i]
    print(f"{C:>8.0e} {loss:>10.4f} {accuracy:>10.4f}{best}")

# %%
# The best model, fitted again on all training rows, on digits that it has not seen.
filled, layer = search.best_estimator_
X_test = filled.transform(X_test)
loss, accuracy = layer.log_loss(X_test, y_test), layer.score(X_test, y_test)
print(f"\ntest set: log loss {loss:.4f}, accuracy {accuracy:.4f}")
print(f"{layer.n_iter_} iterations, objective within {layer.optimality_gap_:.0e} of its minimum")

# %%
# One template per class: red pixels raise the logit of the digit, blue ones lower it.
templates = filled.inverse_transform(layer.coef_).reshape(-1, 8, 8)
limit = np.abs(templates).max()
fig, axes = plt.subplots(2, 5, figsize=(6, 3.2), layout="constrained")
for label, template, ax in zip(layer.classes_, templates, axes.flat, strict=True):
    image = ax.imshow(template, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(title=str(label), xticks=[], yticks=[])
fig.suptitle("Weights of the ten classes, pixel by pixel")
fig.colorbar(image, ax=axes, label="logit per grey level", shrink=0.9)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = folder / "digits_templates.png"
fig.savefig(picture, dpi=200)
print(f"picture of the ten weight templates: {picture}")
