import numpy as np
import pandas as pd
import pytest
import skops.io
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_clipsid import BlockMixer, CommonSupportClassifier
from sklearn_clipsid._block_mixer import mixture_loss

WEIGHTS = ["block", "feature"]
N_BLOCKS, WIDTH = 3, 4


@pytest.fixture
def data(rng):
    """Three noisy views of four features, of which the first tells classes apart."""
    y = np.repeat([0, 1], 150)
    signal = rng.standard_normal((300, 1, WIDTH))
    signal[:, 0, 0] += 2 * y
    noise = rng.standard_normal((300, N_BLOCKS, WIDTH)) * [[[0.8], [1.0], [1.4]]]
    X = (signal + noise).reshape(300, -1)
    return X * rng.uniform(0.1, 9, 12) + rng.standard_normal(12), y


def mixed(X, weights):
    """Return the weighted sum of standardised blocks."""
    blocks = StandardScaler().fit_transform(X).reshape(len(X), N_BLOCKS, WIDTH)
    return np.einsum("nbf,bf->nf", blocks, np.broadcast_to(weights, (N_BLOCKS, WIDTH)))


def best_loss(X, y, weights, alpha):
    """Return the loss at its minimum for given weights, by scikit-learn."""
    Z = mixed(X, weights)
    model = LogisticRegression(C=1 / (alpha * len(y)), tol=1e-8).fit(Z, y)
    loss = log_loss(y, model.predict_proba(Z)[:, 1])
    return loss + alpha / 2 * (model.coef_**2).sum()


@pytest.mark.parametrize("n_columns", [1, WIDTH])
def test_the_gradient_is_that_of_finite_differences(data, rng, n_columns):
    X, y = data
    params = rng.standard_normal(N_BLOCKS * n_columns + WIDTH + 1)
    rest = StandardScaler().fit_transform(X), y == 1, N_BLOCKS, 0.3
    steps = 1e-6 * np.eye(len(params))
    differences = [
        (mixture_loss(params + h, *rest)[0] - mixture_loss(params - h, *rest)[0]) / 2e-6
        for h in steps
    ]
    np.testing.assert_allclose(mixture_loss(params, *rest)[1], differences, atol=1e-8)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_output_is_the_weighted_mean_of_standardised_blocks(data, weights):
    X, y = data
    mixer = BlockMixer(weights, n_blocks=N_BLOCKS).fit(X, y)
    assert (mixer.weights_ > 0).all()
    np.testing.assert_allclose(mixer.weights_.sum(axis=0), 1)
    np.testing.assert_allclose(mixer.block_weights_, mixer.weights_.mean(axis=1))
    np.testing.assert_allclose(mixer.transform(X), mixed(X, mixer.weights_))
    assert np.ptp(mixer.weights_, axis=1).any() == (weights == "feature")


def test_other_weights_of_the_blocks_fit_worse(data, rng):
    X, y = data
    found = BlockMixer(n_blocks=N_BLOCKS, alpha=0.1).fit(X, y).block_weights_
    assert found.min() > 0.01  # not in a corner, where few weights would be near
    least = best_loss(X, y, found[:, None], 0.1)
    for _ in range(10):
        other = softmax(np.log(found) + rng.standard_normal(N_BLOCKS))
        assert best_loss(X, y, other[:, None], 0.1) > least
    assert found.argmax() == 0  # the block with least noise


def test_the_informative_block_gets_the_weight(rng):
    y = np.repeat([0, 1], 100)
    tokens = rng.standard_normal((200, N_BLOCKS, WIDTH))
    tokens[:, 1] += 2 * y[:, None]
    mixer = BlockMixer(n_blocks=N_BLOCKS).fit(tokens.reshape(200, -1), y)
    assert mixer.block_weights_[1] > 0.99


def test_each_feature_finds_its_own_block(rng):
    y = np.repeat([0, 1], 100)
    tokens = rng.standard_normal((200, N_BLOCKS, WIDTH))
    own = [2, 0, 1, 2]
    tokens[:, own, range(WIDTH)] += 2 * y[:, None]
    mixer = BlockMixer("feature", n_blocks=N_BLOCKS).fit(tokens.reshape(200, -1), y)
    assert mixer.weights_[own, range(WIDTH)].min() > 0.9


@pytest.mark.parametrize("weights", WEIGHTS)
def test_blocks_that_are_equal_get_equal_weights(data, weights):
    X, y = data
    X = np.tile(X[:, :WIDTH], N_BLOCKS)
    mixer = BlockMixer(weights, n_blocks=N_BLOCKS).fit(X, y)
    np.testing.assert_allclose(mixer.weights_, 1 / N_BLOCKS)
    expected = StandardScaler().fit_transform(X[:, :WIDTH])
    np.testing.assert_allclose(mixer.transform(X), expected, atol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_one_block_is_standardised_even_where_it_is_constant(data, weights):
    X, y = data
    X = np.column_stack([X[:, :3], np.full(len(X), 5.0)])
    mixer = BlockMixer(weights, n_blocks=1).fit(X, y)
    np.testing.assert_allclose(mixer.transform(X), StandardScaler().fit_transform(X))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_units_of_features_and_names_of_classes_do_not_matter(data, rng, weights):
    X, y = data
    mixer = BlockMixer(weights, n_blocks=N_BLOCKS).fit(X, y)
    other = X * rng.uniform(1, 10, 12) + rng.standard_normal(12)
    names = np.array(["synthetic", "real"])[y]  # in sorted order the other way round
    again = BlockMixer(weights, n_blocks=N_BLOCKS).fit(other, names)
    np.testing.assert_allclose(again.transform(other), mixer.transform(X), atol=1e-3)


def test_a_detector_that_knows_sources_may_follow(data):
    X, y = data
    groups = np.where(y == 1, "SD1.4", "COCO").astype(object)
    groups[:40], groups[-40:] = "RAISE", "GLIDE"
    chain = make_pipeline(
        BlockMixer(n_blocks=N_BLOCKS),
        StandardScaler(),
        CommonSupportClassifier(LogisticRegression()),
    ).fit(X, y, commonsupportclassifier__groups=groups)
    assert chain.score(X, y) > 0.7
    assert chain[-1].estimator_.coef_.shape == (1, WIDTH)


def test_single_precision_is_kept(data):
    X, y = data
    mixer = BlockMixer(n_blocks=N_BLOCKS).fit(X.astype("f4"), y)
    assert mixer.transform(X.astype("f4")).dtype == np.float32
    exact = BlockMixer(n_blocks=N_BLOCKS).fit(X, y).transform(X)
    np.testing.assert_allclose(mixer.transform(X.astype("f4")), exact, atol=0.01)


def test_a_frame_gets_names_of_the_mix(data):
    X, y = data
    frame = pd.DataFrame(X).set_axis([f"token{i}" for i in range(12)], axis=1)
    mixer = BlockMixer(n_blocks=N_BLOCKS).set_output(transform="pandas")
    names = ["blockmixer0", "blockmixer1", "blockmixer2", "blockmixer3"]
    assert mixer.fit_transform(frame, y).columns.tolist() == names
    with pytest.raises(ValueError, match="feature names should match"):
        mixer.transform(frame[frame.columns[::-1]])


def test_skops_reads_it_without_trusting_more_than_its_class(data):
    X, y = data
    mixer = BlockMixer(n_blocks=N_BLOCKS).fit(X, y)
    saved = skops.io.dumps(mixer)
    path = "sklearn_clipsid._block_mixer.BlockMixer"
    assert skops.io.get_untrusted_types(data=saved) == [path]
    read = skops.io.loads(saved, trusted=[path])
    np.testing.assert_array_equal(read.transform(X), mixer.transform(X))


def test_another_width_asks_for_the_number_of_blocks(data):
    X, y = data
    with pytest.raises(ValueError, match=r"Got 12 features.*pass n_blocks"):
        BlockMixer().fit(X, y)
    with pytest.raises(ValueError, match="a multiple of n_blocks=5"):
        BlockMixer(n_blocks=5).fit(X, y)


def test_labels_of_one_or_of_three_classes_are_refused(data):
    X, y = data
    with pytest.raises(ValueError, match=r"the labels \[0\], one class"):
        BlockMixer(n_blocks=N_BLOCKS).fit(X, np.zeros(len(y), dtype=int))
    with pytest.raises(ValueError, match=r"Only binary classification.*multiclass"):
        BlockMixer(n_blocks=N_BLOCKS).fit(X, np.arange(len(y)) % 3)


def test_too_few_steps_are_a_warning(data):
    X, y = data
    with pytest.warns(ConvergenceWarning, match="within 1 steps.*raise max_iter"):
        BlockMixer(n_blocks=N_BLOCKS, max_iter=1).fit(X, y)


@pytest.mark.parametrize(
    "parameter",
    [{"weights": "equal"}, {"alpha": 0}, {"max_iter": 0}, {"n_blocks": 0}],
    ids=str,
)
def test_a_bad_parameter_is_named(data, parameter):
    X, y = data
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter"):
        BlockMixer(**parameter).fit(X, y)


def test_rows_of_unreadable_images_are_refused_by_number(data):
    X, y = data
    mixer = BlockMixer(n_blocks=N_BLOCKS).fit(X, y)
    X[3] = np.nan
    for use in (lambda: mixer.fit(X, y), lambda: mixer.transform(X)):
        with pytest.raises(ValueError, match="BlockMixer contains NaN in 1 of 300"):
            use()
