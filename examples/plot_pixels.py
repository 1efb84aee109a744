"""
Which pixels the digits need
============================

An L1 penalty leaves out what the data do not need. The pixels of 8 x 8 digits are taken up
one after the other as `C` grows. The picture shows how many classes use each of them along the
path, and what the pixels say about each digit where the penalty is strong.

    python examples/plot_pixels.py [folder for the picture]
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skfc import SoftmaxFCClassifier, l1_min_C

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)

# %%
# From the smallest C with a coefficient other than zero, every fit starts from the last one.
Cs = l1_min_C(X_train, y_train) * np.array([2, 5, 20, 100, 1000])
layer = SoftmaxFCClassifier(l1_ratio=1.0, warm_start=True, tol=1e-4)
coefs, told = [], []
print(f"{'C':>8} {'pixels':>7} {'weights':>8} {'accuracy':>9}")
for C in Cs:
    layer.set_params(C=C).fit(X_train, y_train)
    accuracy = layer.score(X_test, y_test)
    coefs.append(layer.coef_)
    pixels = (layer.coef_ != 0).any(axis=0).sum()
    told.append(f"C = {C:.1g}\n{pixels} pixels, {accuracy:.0%} right")
    print(f"{C:>8.1e} {pixels:>7} {(layer.coef_ != 0).sum():>8} {accuracy:>9.3f}")

# %%
# Above, along the path: white pixels have no weight in any class. Below, at the second C: ink in
# a red pixel speaks for the digit, ink in a blue one against it; the mean digit is grey.
fig = plt.figure(figsize=(10, 5), layout="constrained")
above, below = fig.subfigures(2, 1, height_ratios=[1, 1.1])
above.suptitle("How many classes use a pixel")
axes = above.subplots(1, len(Cs))
for ax, coef, title in zip(axes, coefs, told, strict=True):
    classes = (coef != 0).sum(axis=0).reshape(8, 8)
    shown = np.where(classes > 0, classes, np.nan)
    image = ax.imshow(shown, cmap="viridis_r", vmin=1, vmax=10)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])
above.colorbar(image, ax=axes, shrink=0.9, ticks=[1, 5, 10])

below.suptitle(f"Weights of every digit at C = {Cs[1]:.1g}")
axes, largest = below.subplots(2, 5), np.abs(coefs[1]).max()
rows, columns = np.divmod(np.arange(64), 8)
for digit, ax in enumerate(axes.flat):
    weight = coefs[1][digit]
    ax.imshow(X_train[y_train == digit].mean(axis=0).reshape(8, 8), cmap="Greys", vmax=32)
    ax.scatter(
        columns[weight != 0], rows[weight != 0], c=weight[weight != 0], s=40, marker="s",
        cmap="RdBu_r", vmin=-largest, vmax=largest, edgecolors="black", linewidths=0.5,
    )  # fmt: skip
    ax.set_title(str(digit), fontsize=9)
    ax.set(xticks=[], yticks=[])

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = folder / "pixels.png"
fig.savefig(picture, dpi=150)
print(f"picture of the pixels that are used: {picture}")
