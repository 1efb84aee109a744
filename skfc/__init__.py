"""Softmax regression for scikit-learn: one fully connected layer, softmax, cross-entropy."""

from skfc._classifier import SoftmaxFCClassifier

__version__ = "0.1.0.dev0"
__all__ = ["SoftmaxFCClassifier"]
