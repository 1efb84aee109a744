"""
Which pixels the digits need
============================

An L1 penalty leaves out what the data do not need. The pixels of 8 x 8 digits are taken up
one after the other as `C` grows; the picture shows those that some class uses, along the path.

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
used = []
print(f"{'C':>8} {'pixels':>7} {'weights':>8} {'accuracy':>9}")
for C in Cs:
    layer.set_params(C=C).fit(X_train, y_train)
    used.append(np.abs(layer.coef_).max(axis=0).reshape(8, 8))
    pixels, weights = (used[-1] > 0).sum(), (layer.coef_ != 0).sum()
    print(f"{C:>8.1e} {pixels:>7} {weights:>8} {layer.score(X_test, y_test):>9.3f}")

# %%
# White pixels have no weight in any class. Each picture has its own scale: weights grow with C.
fig, axes = plt.subplots(1, len(Cs), figsize=(10, 2.4), layout="constrained")
for ax, C, image in zip(axes, Cs, used, strict=True):
    shown = ax.imshow(np.where(image > 0, image, np.nan), cmap="viridis_r", vmin=0)
    ax.set(title=f"C = {C:.1e}\n{(image > 0).sum()} of 64 pixels", xticks=[], yticks=[])
    bar = fig.colorbar(shown, ax=ax, orientation="horizontal", pad=0.04)
    bar.set_ticks([0, np.floor(10 * image.max()) / 10])
axes[0].set_ylabel("8 × 8 digits")
fig.supxlabel("largest weight of a pixel in any class, logit per unit of grey", fontsize="medium")

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = folder / "pixels.png"
fig.savefig(picture, dpi=200)
print(f"picture of the pixels that are used: {picture}")
