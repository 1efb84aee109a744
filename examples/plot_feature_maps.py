"""
Feature maps: convolutions, flattened, and one fully connected layer
====================================================================

The last layer of a convolutional network, by itself. Eight fixed filters turn every 8 x 8
image of a digit into eight maps, halved to 3 x 3 by taking largest values; `Flatten` makes
72 inputs of them for the layer. Its weights, in the shape of the maps again, show which edge
counts where.

    python examples/plot_feature_maps.py [picture, or a folder for it]
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skfc import Flatten, SoftmaxFCClassifier

# %%
# Edges in eight directions: a 3 x 3 filter that rises along the direction.
angles = np.arange(8) * np.pi / 4
down, across = np.mgrid[-1:2, -1:2]
filters = np.cos(angles)[:, None, None] * across - np.sin(angles)[:, None, None] * down


def feature_maps(images):
    """Maps (n, 8, 3, 3): convolve, drop what is negative, take the largest of 2 x 2."""
    windows = sliding_window_view(images, (3, 3), axis=(1, 2))
    maps = np.maximum(np.einsum("nhwij,cij->nchw", windows, filters), 0)
    n, c, h, w = maps.shape
    return maps.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


images, y = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8) / 16
parts = train_test_split(images, y, random_state=0, stratify=y)
X_train, X_test, y_train, y_test = feature_maps(parts[0]), feature_maps(parts[1]), *parts[2:]

# %%
# The pipeline takes the maps as they are, with four axes.
model = make_pipeline(Flatten(), SoftmaxFCClassifier(C=1.0)).fit(X_train, y_train)
pixels = make_pipeline(Flatten(), SoftmaxFCClassifier(C=1.0)).fit(parts[0], y_train)
flatten, layer = model
print(f"maps {X_train.shape} -> rows {flatten.transform(X_train).shape}")
print(f"accuracy on new digits: {model.score(X_test, y_test):.4f} from the maps, ", end="")
print(f"{pixels.score(parts[1], y_test):.4f} from the pixels")

# %%
# The weights of one class, the sevens, as maps again.
DIGIT = 7
weights = flatten.inverse_transform(layer.coef_)[DIGIT]
names = flatten.get_feature_names_out()
strongest = np.argsort(layer.coef_[DIGIT])[-3:][::-1]
print(f"largest weights for a {DIGIT}: {', '.join(names[strongest])}")

example = parts[0][y_train == DIGIT][0]
limit = np.abs(weights).max()
fig, axes = plt.subplots(3, 9, figsize=(9, 3.3), layout="constrained")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
axes[1, 0].imshow(example, cmap="gray_r")
axes[1, 0].set_title("image")
axes[0, 0].axis("off")
axes[2, 0].axis("off")
for c in range(8):
    axes[0, c + 1].set_title(f"{45 * c}°")
    axes[0, c + 1].imshow(filters[c], cmap="PuOr_r", vmin=-1.5, vmax=1.5)
    axes[1, c + 1].imshow(feature_maps(example[None])[0, c], cmap="gray_r", vmin=0, vmax=4)
    image = axes[2, c + 1].imshow(weights[c], cmap="RdBu_r", vmin=-limit, vmax=limit)
for row, label in zip(axes[:, 1], ["filter", "map", "weights"], strict=True):
    row.set_ylabel(label)
fig.suptitle(f"A {DIGIT}: eight edge filters, their 3 × 3 maps, and the weights of the maps")
fig.colorbar(image, ax=axes[2], label="logit per\nunit of map")

picture = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = picture / "plot_feature_maps.png" if picture.is_dir() else picture
fig.savefig(picture, dpi=200)
print(f"picture of the weights for a {DIGIT}: {picture}")
