"""Softmax regression for scikit-learn: one fully connected layer, softmax, cross-entropy."""

import sys
from pathlib import Path

from skfc._classifier import SoftmaxFCClassifier
from skfc._classifier_cv import SoftmaxFCClassifierCV
from skfc._flatten import Flatten
from skfc._functions import log_softmax, softmax, softmax_cross_entropy
from skfc._l1_min_C import l1_min_C
from skfc._scoring import neg_log_loss_scorer

__version__ = "0.1.0.dev0"
__all__ = [
    "Flatten",
    "SoftmaxFCClassifier",
    "SoftmaxFCClassifierCV",
    "l1_min_C",
    "log_softmax",
    "neg_log_loss_scorer",
    "softmax",
    "softmax_cross_entropy",
]

# Public names say where they are imported from: in pickles, in lists of trusted types, in the
# HTML of notebooks. scikit-learn explains parameters there only beside a link. No page is
# published, so that it leads to a file: the API page of a checkout, else the docstrings.
_root = Path(__file__).absolute().parents[1]
for _public in (Flatten, SoftmaxFCClassifier, SoftmaxFCClassifierCV):
    _page = _root / "docs" / "api.md"
    if not (_page.is_file() and (_root / "pyproject.toml").is_file()):
        _page = Path(sys.modules[_public.__module__].__file__).absolute()
    _public._doc_link_module = __name__
    _public._doc_link_template = _page.as_uri()
    _public.__module__ = __name__
for _public in (l1_min_C, log_softmax, softmax, softmax_cross_entropy):
    _public.__module__ = __name__
del Path, sys, _public, _page, _root
