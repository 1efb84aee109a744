"""
The loss of one sample: minus the logarithm of one probability
==============================================================

A layer gives five classes probabilities, and the fourth class is the true one. Of the
five numbers the loss sees one, that of the true class: its -log.

    python examples/plot_cross_entropy.py [picture, or a folder for it]
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skfc import softmax, softmax_cross_entropy

TRUE = 3  # the fourth class
answers = {
    "confident, right": [0.1, 0.15, 0.05, 0.6, 0.1],
    "wrong": [0.15, 0.2, 0.4, 0.1, 0.15],
    "undecided": [0.05, 0.15, 0.4, 0.3, 0.1],
}

# %%
# The functions take logits. Those of given probabilities are their logarithms, up to a
# number added to all of them, which changes nothing.
losses = {}
print(
    f"{'answer':<18} {'p of the true class':>19} {'loss':>7}   gradient of the loss in the logits"
)
for name, p in answers.items():
    logits = np.log(p) + 7.0
    losses[name] = softmax_cross_entropy(logits, TRUE)
    gradient = softmax(logits) - np.eye(5)[TRUE]
    print(f"{name:<18} {p[TRUE]:>19} {losses[name]:>7.4f}   {gradient.round(2)}")
print(
    f"mean of the three: {softmax_cross_entropy(np.log(list(answers.values())), [TRUE] * 3):.4f}"
)

# %%
# Label smoothing moves a part of the target to the other classes: certainty is no longer
# the best answer.
certainty = np.linspace(0.02, 0.999, 300)
others = (1 - certainty) / 4
logits = np.log(np.column_stack([others, others, others, certainty, others]))
smoothed = [softmax_cross_entropy(row, TRUE, label_smoothing=0.1) for row in logits]

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
width = 0.27
for i, (name, p) in enumerate(answers.items()):
    left.bar(np.arange(5) + (i - 1) * width, p, width, label=name, color=f"C{i}")
    right.plot(p[TRUE], losses[name], "o", color=f"C{i}")
    right.annotate(
        f"-log {p[TRUE]} = {losses[name]:.2f}", (p[TRUE], losses[name]),
        xytext=(8, 12), textcoords="offset points",
    )  # fmt: skip
left.axvspan(TRUE - 0.5, TRUE + 0.5, color="0.92", zorder=0, label="true class")
left.set(xlabel="class", ylabel="probability", title="three answers of the layer")
left.set_xticks(range(5), range(1, 6))
left.legend(fontsize="small")
right.plot(certainty, -np.log(certainty), "k", zorder=0, label="-log p")
right.plot(certainty, smoothed, "k:", zorder=0, label="with label_smoothing=0.1")
right.set(xlabel="probability p of the true class", ylabel="loss, nats", title="their losses")
right.legend(fontsize="small")

picture = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
picture = picture / "plot_cross_entropy.png" if picture.is_dir() else picture
fig.savefig(picture, dpi=200)
print(f"picture of -log p: {picture}")
