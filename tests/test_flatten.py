"""Flatten: maps to rows and back, names, containers, and the layer behind it."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfc import Flatten, SoftmaxFCClassifier

SHAPES = {
    2: (6, 5),
    3: (6, 4, 5),
    4: (6, 2, 3, 4),
    5: (6, 2, 3, 2, 2),
    6: (6, 2, 1, 2, 3, 2),
}
NAMES = {
    2: ["x0", "x1", "x2", "x3", "x4"],
    3: ["h0_w0", "h0_w1", "h3_w4"],
    4: ["c0_h0_w0", "c0_h0_w1", "c0_h1_w2", "c1_h2_w3"],
    5: ["c0_d0_h0_w0", "c1_d2_h1_w0"],
    6: ["x0_0_0_0_0", "x1_0_1_2_0"],
}


@pytest.fixture(params=SHAPES, ids="{}-d".format)
def maps(request, rng):
    return rng.standard_normal(SHAPES[request.param])


checks = parametrize_with_checks([Flatten()])
names, cases = checks.args


# A list: the generator of older scikit-learn releases is deprecated in pytest.
@pytest.mark.parametrize(names, list(cases), **checks.kwargs)
def test_estimator_checks(estimator, check):
    check(estimator)


def test_tags():
    tags = Flatten().__sklearn_tags__().input_tags
    assert tags.two_d_array
    assert tags.three_d_array
    assert tags.allow_nan
    assert not tags.sparse


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8", "bool"])
def test_rows_are_a_view_of_the_maps(maps, dtype):
    maps = maps.astype(dtype)
    flatten = Flatten()
    rows = flatten.fit_transform(maps)
    assert rows.dtype == dtype
    assert np.shares_memory(rows, maps)
    assert_array_equal(rows, [sample.ravel() for sample in maps])
    back = flatten.inverse_transform(rows)
    assert np.shares_memory(back, maps)
    assert_array_equal(back, maps)
    assert flatten.shape_ == maps.shape[1:]


def test_memory_that_allows_no_view(maps):
    expected = Flatten().fit_transform(maps)
    turned = np.ascontiguousarray(maps.T).T
    for other in (turned, np.repeat(maps, 2, axis=0)[::2], maps.tolist()):
        assert_array_equal(Flatten().fit_transform(other), expected)


def test_memory_maps_and_read_only_arrays(maps, tmp_path):
    np.save(tmp_path / "maps.npy", maps)
    mapped = np.load(tmp_path / "maps.npy", mmap_mode="r")
    rows = Flatten().fit_transform(mapped)
    assert np.shares_memory(rows, mapped)
    assert not rows.flags.writeable
    assert_array_equal(Flatten().fit(mapped).inverse_transform(rows), maps)


def test_nan_passes(maps):
    maps.flat[0] = np.nan
    assert_array_equal(Flatten().fit_transform(maps), maps.reshape(6, -1))


@pytest.mark.parametrize("n_axes", SHAPES)
def test_names(n_axes, rng):
    maps = rng.standard_normal(SHAPES[n_axes])
    flatten = Flatten().fit(maps)
    names = flatten.get_feature_names_out()
    assert len(set(names)) == len(names) == flatten.transform(maps).shape[1]
    assert set(NAMES[n_axes]) <= set(names)
    # Every name leads to the place it tells.
    for name, column in zip(names, flatten.transform(maps).T, strict=True):
        if n_axes > 2:
            place = [int("".join(filter(str.isdigit, part))) for part in name.split("_")]
            assert_array_equal(maps[(slice(None), *place)], column)


def test_frames(rng):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rng.standard_normal((4, 2)), columns=["a", "b"], index=list("wxyz"))
    flatten = Flatten().fit(frame)
    assert flatten.get_feature_names_out().tolist() == ["a", "b"]
    assert flatten.get_feature_names_out(["a", "b"]).tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        flatten.transform(frame[["b", "a"]])
    pd.testing.assert_frame_equal(flatten.set_output(transform="pandas").transform(frame), frame)
    assert_array_equal(flatten.inverse_transform(frame), frame)


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_set_output(maps, container):
    pytest.importorskip(container)
    frame = Flatten().set_output(transform=container).fit_transform(maps)
    assert list(frame.columns) == Flatten().fit(maps).get_feature_names_out().tolist()
    assert_array_equal(frame.to_numpy(), maps.reshape(6, -1))


def test_clone_and_pickle(maps):
    flatten = Flatten().fit(maps)
    again = pickle.loads(pickle.dumps(flatten))
    assert_array_equal(again.transform(maps), flatten.transform(maps))
    assert not hasattr(clone(flatten), "shape_")


@pytest.mark.parametrize("n_axes", SHAPES)
def test_other_shapes_than_in_fit(n_axes, rng):
    maps = rng.standard_normal(SHAPES[n_axes])
    flatten = Flatten().fit(maps)
    wider = np.repeat(maps, 2, axis=-1)
    expected = "is expecting 5 features" if n_axes == 2 else "as in fit; got"
    with pytest.raises(ValueError, match=expected):
        flatten.transform(wider)
    with pytest.raises(ValueError, match="as in fit; got"):
        flatten.transform(maps[..., None])
    if n_axes > 2:
        with pytest.raises(ValueError, match="as in fit; got"):
            flatten.transform(maps[..., 0])
        with pytest.raises(ValueError, match="as in fit; got"):
            flatten.transform(maps.reshape(6, -1))
        with pytest.raises(ValueError, match="have no feature names"):
            flatten.get_feature_names_out(NAMES[n_axes])
    with pytest.raises(ValueError, match="features, for samples of shape"):
        flatten.inverse_transform(wider.reshape(6, -1))


def test_what_it_cannot_flatten():
    with pytest.raises(ValueError, match="Expected 2D array"):
        Flatten().fit(np.zeros(3))
    with pytest.raises(ValueError, match=r"not be empty.*\(2, 0, 3\)"):
        Flatten().fit(np.zeros((2, 0, 3)))
    with pytest.raises(ValueError, match="Complex data not supported"):
        Flatten().fit(np.zeros((2, 2, 2), dtype=complex))


def test_a_failed_fit_changes_nothing(maps):
    flatten = Flatten().fit(maps)
    with pytest.raises(ValueError, match="empty"):
        flatten.fit(np.zeros((2, 0, 3)))
    assert_array_equal(flatten.transform(maps), maps.reshape(6, -1))


def test_in_front_of_the_layer():
    images, y = load_digits().images[:300, None], load_digits().target[:300]  # (n, 1, 8, 8)
    model = make_pipeline(Flatten(), SoftmaxFCClassifier(C=0.01)).fit(images, y)
    flat = SoftmaxFCClassifier(C=0.01).fit(images.reshape(300, 64), y)
    assert_array_equal(model.predict_proba(images), flat.predict_proba(images.reshape(300, 64)))
    assert model.score(images, y) == flat.score(images.reshape(300, 64), y)
    templates = model[0].inverse_transform(model[1].coef_)
    assert templates.shape == (10, 1, 8, 8)
    assert_array_equal(templates[3, 0], flat.coef_[3].reshape(8, 8))
    assert model[:-1].get_feature_names_out()[9] == "c0_h1_w1"
    search = GridSearchCV(model, {"softmaxfcclassifier__C": [1e-3, 1e-2]}, cv=3).fit(images, y)
    assert search.predict(images).shape == (300,)
