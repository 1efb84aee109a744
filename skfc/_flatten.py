"""Flatten: from feature maps to rows of features, and back."""

from itertools import product
from math import prod

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from skfc._input import readable

# Letters of the axes after the samples', by their number; other numbers have none.
AXES = {2: "hw", 3: "chw", 4: "cdhw"}
ACCEPTED = {"allow_nd": True, "ensure_all_finite": False}


class Flatten(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """From feature maps (n_samples, channels, height, width) to rows of features.

    The maps may have any number of axes; the last one varies fastest in the rows. Nothing
    is copied where the memory of X allows that, as it does for C-contiguous arrays, and
    types are kept. Two-dimensional X passes through, with its feature names.

    Attributes
    ----------
    shape_ : tuple of int
        Shape of one sample, X.shape[1:].
    n_features_in_ : int
        Size of the first axis after the samples': channels, or features of 2-d X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features of 2-d X, if those are all strings.

    See Also
    --------
    SoftmaxFCClassifier : The layer that the rows go into.

    Examples
    --------
    Two samples of a hundred 4 x 4 maps become the 1600 inputs of a layer:

    >>> import numpy as np
    >>> from skfc import Flatten
    >>> maps = np.zeros((2, 100, 4, 4))
    >>> flatten = Flatten().fit(maps)
    >>> rows = flatten.transform(maps)
    >>> rows.shape, bool(np.shares_memory(rows, maps))
    ((2, 1600), True)
    >>> flatten.get_feature_names_out()[[0, 1, 1599]].tolist()
    ['c0_h0_w0', 'c0_h0_w1', 'c99_h3_w3']
    >>> flatten.inverse_transform(rows).shape
    (2, 100, 4, 4)
    """

    def fit(self, X, y=None):
        """Note the shape of the samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Feature maps, of one axis and more after the samples'.
        y : None
            Ignored.

        Returns
        -------
        self : Flatten

        Raises
        ------
        ValueError
            If X has no axis but the samples', or one of size zero.
        """
        X = readable(X, "X")
        shape = check_array(X, input_name="X", **ACCEPTED).shape
        if 0 in shape:
            raise ValueError(f"X must not be empty along any axis; got shape {shape}.")
        validate_data(self, X, **ACCEPTED)  # notes names: only when nothing can fail
        self.shape_ = shape[1:]
        return self

    def transform(self, X):
        """Rows of features.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Maps of the shape seen in `fit`.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features_out)
            A view of X where its memory allows, else a copy.

        Raises
        ------
        ValueError
            If the samples are not of the shape seen in `fit`.
        """
        check_is_fitted(self)
        X = readable(X, "X")
        if len(self.shape_) == 1:  # scikit-learn compares 2-d X, names and all
            X = validate_data(self, X, reset=False, **ACCEPTED)
        else:
            X = check_array(X, input_name="X", **ACCEPTED)
        if X.shape[1:] != self.shape_:
            raise ValueError(
                f"X must hold samples of shape {self.shape_}, as in fit; got {X.shape[1:]}."
            )
        return X.reshape(len(X), -1)

    def inverse_transform(self, X):
        """Feature maps from rows: of data, or of the `coef_` of a layer.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features_out)
            Rows in the order that `transform` gives them.

        Returns
        -------
        maps : ndarray of shape (n_rows, ...)
            A view of X where its memory allows, else a copy.

        Raises
        ------
        ValueError
            If the rows have another number of features.
        """
        check_is_fitted(self)
        X = check_array(readable(X, "X"), ensure_all_finite=False)
        if X.shape[1] != prod(self.shape_):
            raise ValueError(
                f"X must have {prod(self.shape_)} features, for samples of shape "
                f"{self.shape_}; got {X.shape[1]}."
            )
        return X.reshape(len(X), *self.shape_)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns, which tell their place: ``c0_h1_w2``.

        Axes are called c, h, w for four axes of X, h, w for three and c, d, h, w for five;
        for other numbers the name is x with all positions, ``x0_1_2_0_1``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            For 2-d X only: its names, which are those of the result.

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        if len(self.shape_) == 1:
            return super().get_feature_names_out(input_features)
        if input_features is not None:
            raise ValueError(
                f"Samples of shape {self.shape_} have no feature names; input_features must "
                "be None."
            )
        letters = AXES.get(len(self.shape_))
        places = product(*map(range, self.shape_))
        if letters is None:
            names = ["x" + "_".join(map(str, place)) for place in places]
        else:
            names = ["_".join(map("{}{}".format, letters, place)) for place in places]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
