"""
A linear probe where the embeddings are
=======================================

Embeddings from a file, a search over `C`, and the accuracy on held-out rows. With PyTorch the
rows are tensors: on a GPU where there is one, else in the memory of the CPU. Without PyTorch the
same lines run on NumPy arrays. Embeddings of your own take the place of the pixels of digits.

    python examples/plot_probe.py [folder for the picture]
"""

import os

os.environ["SCIPY_ARRAY_API"] = "1"  # scikit-learn asks for it, before SciPy is imported

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skfc import SoftmaxFCClassifierCV

try:
    import torch
except ImportError:
    torch = None

# %%
# A file with a row per image, as a network leaves it: float32 is enough.
pixels, y = load_digits(return_X_y=True)
with TemporaryDirectory() as folder:
    np.save(Path(folder) / "embeddings.npy", pixels.astype(np.float32))
    X = np.load(Path(folder) / "embeddings.npy")

# %%
# To move the fit to a GPU, move the rows. Labels may stay where they are.
if torch is not None:
    sklearn.set_config(array_api_dispatch=True)
    X = torch.asarray(X, device="cuda" if torch.cuda.is_available() else "cpu")
train, test = train_test_split(np.arange(len(y)), stratify=y, random_state=0)
X_train, X_test = X[train, :], X[test, :]

# %%
# Every value of C starts from the ones before it; the folds are weights on one copy of the rows.
probe = SoftmaxFCClassifierCV(Cs=np.logspace(-5, 0, 6), cv=3, tol=1e-4)
probe.fit(X_train, y[train])
print(f"rows: {type(X).__module__}, coefficients: {type(probe.coef_).__module__}")
print(f"C = {probe.C_:.0e}, accuracy {probe.score(X_test, y[test]):.3f}")

# %%
# Scores are where the rows are; a picture is drawn from a copy on the host.
scores = np.asarray(probe.scores_ if torch is None else probe.scores_.cpu())
fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.semilogx(probe.cv_results_["param_C"], -scores.T, color="0.7", marker=".")
ax.semilogx(probe.cv_results_["param_C"], -scores.mean(axis=0), color="C0", marker="o")
ax.axvline(probe.C_, color="C0", linestyle=":")
ax.set(xlabel="C", ylabel="held-out log loss", title="Folds, and their mean")

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = folder / "probe.png"
fig.savefig(picture, dpi=150)
print(f"picture of the search: {picture}")
