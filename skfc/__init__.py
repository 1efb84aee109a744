"""Softmax regression for scikit-learn: one fully connected layer, softmax, cross-entropy."""

from skfc._classifier import SoftmaxFCClassifier
from skfc._classifier_cv import SoftmaxFCClassifierCV
from skfc._flatten import Flatten
from skfc._functions import log_softmax, softmax, softmax_cross_entropy
from skfc._scoring import neg_log_loss_scorer

__version__ = "0.1.0.dev0"
__all__ = [
    "Flatten",
    "SoftmaxFCClassifier",
    "SoftmaxFCClassifierCV",
    "log_softmax",
    "neg_log_loss_scorer",
    "softmax",
    "softmax_cross_entropy",
]

# Public names say where they are imported from: in pickles, in lists of trusted types, in the
# HTML of notebooks. scikit-learn shows what it knows of a parameter where there is a link to
# go with it; without published pages it is an anchor.
for _public in (Flatten, SoftmaxFCClassifier, SoftmaxFCClassifierCV):
    _public.__module__ = __name__
    _public._doc_link_module = __name__
    _public._doc_link_template = "#{estimator_module}.{estimator_name}"
for _public in (log_softmax, softmax, softmax_cross_entropy):
    _public.__module__ = __name__
del _public
