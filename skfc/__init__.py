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
