import numpy as np
import open_clip
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import BlockSelector
from sklearn_clipsid._block_selector import VIT_MEASURES

X = np.arange(24.0).reshape(2, 12)  # 3 blocks of width 4


@pytest.mark.parametrize("block", [1, 2, 3, -1, -2, -3])
def test_the_chosen_block_is_returned(block):
    picked = BlockSelector(block=block, n_blocks=3).fit_transform(X)
    expected = np.split(X, 3, axis=1)[block - 1 if block > 0 else block]
    np.testing.assert_array_equal(picked, expected)


def test_every_vit_of_open_clip_is_recognised_by_its_width():
    for name in open_clip.list_models():
        vision = open_clip.get_model_config(name)["vision_cfg"]
        n_blocks = vision.get("layers")
        if isinstance(n_blocks, int) and not vision.get("timm_model_name"):
            features = np.zeros((1, n_blocks * vision["width"]), dtype=np.float32)
            assert BlockSelector().fit(features).n_blocks_ == n_blocks, name


def test_no_two_models_have_the_same_width_of_all_blocks():
    products = [n_blocks * width for n_blocks, width in VIT_MEASURES]
    assert len(set(products)) == len(products)


def test_another_width_asks_for_the_number_of_blocks():
    with pytest.raises(ValueError, match=r"Got 12 features.*pass n_blocks"):
        BlockSelector().fit(X)
    with pytest.raises(ValueError, match="a multiple of n_blocks=5"):
        BlockSelector(n_blocks=5).fit(X)


@pytest.mark.parametrize("block", [0, 4, -4])
def test_a_block_that_is_not_there_is_refused(block):
    with pytest.raises(ValueError, match=f"Got block={block} but expected 1 to 3"):
        BlockSelector(block=block, n_blocks=3).fit(X)
    fitted = BlockSelector(n_blocks=3).fit(X).set_params(block=block)
    with pytest.raises(ValueError, match=f"Got block={block} but expected 1 to 3"):
        fitted.transform(X)


@pytest.mark.parametrize(
    "parameter", [{"block": 1.5}, {"block": "last"}, {"n_blocks": 0}], ids=str
)
def test_a_bad_parameter_is_named(parameter):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter"):
        BlockSelector(**parameter).fit(X)


def test_rows_of_unreadable_images_stay_nan():
    with_nan = X.copy()
    with_nan[1] = np.nan
    picked = BlockSelector(block=2, n_blocks=3).fit(X).transform(with_nan)
    assert np.isnan(picked).all(axis=1).tolist() == [False, True]


def test_single_precision_is_kept():
    assert BlockSelector(n_blocks=3).fit_transform(X.astype("f4")).dtype == np.float32


def test_names_are_those_of_the_chosen_columns():
    frame = pd.DataFrame(X, columns=[f"token{i}" for i in range(12)], index=["a", "b"])
    selector = BlockSelector(block=2, n_blocks=3).set_output(transform="pandas")
    picked = selector.fit_transform(frame)
    pd.testing.assert_frame_equal(picked, frame.iloc[:, 4:8])
    chained = make_pipeline(clone(selector), clone(selector).set_params(n_blocks=2))
    assert list(chained.fit(frame).get_feature_names_out()) == ["token6", "token7"]
