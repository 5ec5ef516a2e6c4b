import io
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import skops.io
from safetensors.numpy import load_file, save_file
from scipy.optimize import check_grad
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_clipsid import CLIPEmbedder, CLIPQualityRegressor
from sklearn_clipsid import _clip_quality as clip_quality
from sklearn_clipsid._quality_network import QualityNetwork, score_rows
from sklearn_clipsid._quality_prompts import FreePrompts, TextPrompts
from sklearn_clipsid.metrics import quality_scorers, srcc_score
from sklearn_clipsid.persistence import dump, load

SMALL = {"n_hidden": 8, "max_iter": 3, "n_context": 4, "random_state": 0}
SCORES = np.arange(9.0)  # of `image_files`


@pytest.fixture(scope="module")
def table():
    """Unit rows, scores that depend on them without a straight line, and groups."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 6))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, 50 + 10 * np.abs(X[:, 0] + X[:, 1]), np.arange(300) % 30


@pytest.fixture(scope="module")
def image_tower(tiny_clip, tmp_path_factory):
    """Name of the tiny CLIP without its text tower."""
    folder = tmp_path_factory.mktemp("models") / "image-tower"
    shutil.copytree(tiny_clip.removeprefix("local-dir:"), folder)
    file = folder / "open_clip_model.safetensors"
    tensors = {k: v for k, v in load_file(file).items() if k.startswith("visual.")}
    save_file(tensors, file)
    return f"local-dir:{folder}"


def embedder_of(name, **options):
    return CLIPEmbedder(name, name, features="projected", **options)


def context_prompts(name, n_context=3):
    from sklearn_clipsid._clip import get_text_tower
    from sklearn_clipsid._clip._prompts import ContextPrompts

    return ContextPrompts(get_text_tower(name, name), ["bad", "good"], n_context)


@parametrize_with_checks([CLIPQualityRegressor("passthrough", n_hidden=16)])
def test_the_regressor_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_the_gradient_is_that_of_the_loss(rng):
    network = QualityNetwork(FreePrompts(3, 4), n_features=5, n_hidden=7)
    params = network.start(np.random.RandomState(0))
    X, y = rng.standard_normal((6, 5)), rng.standard_normal(6)
    masks = network.draw_masks(6, 0.5, np.random.RandomState(1), X.dtype)
    assert {0, 2} == set(np.unique(masks[0]))

    def loss(params):
        return network.loss_grad(params, X, y, masks)[0]

    def grad(params):
        return network.loss_grad(params, X, y, masks)[1]

    assert check_grad(loss, grad, params) < 1e-6


def test_the_gradient_goes_through_the_text_tower(tiny_clip, rng):
    prompts = TextPrompts(context_prompts(tiny_clip))
    values = prompts.start(np.random.RandomState(0))
    upstream = rng.standard_normal(prompts.features_shape)
    step = rng.standard_normal(values.shape)
    step *= 1e-3 / np.linalg.norm(step)
    unit, pull_back = prompts.encode(values)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    ahead, behind = prompts.encode(values + step)[0], prompts.encode(values - step)[0]
    slope = ((ahead - behind) * upstream).sum() / 2
    assert pull_back(upstream) @ step == pytest.approx(slope, rel=0.02)


def test_a_context_of_words_is_the_text_of_these_words(tiny_clip):
    from sklearn_clipsid._clip import get_text_tower

    tower = get_text_tower(tiny_clip, tiny_clip)
    tokens = tower._tokenizer(["a photo of"])[0, 1:4]
    context = tower._module.token_embedding.weight[tokens].numpy()
    encoded, _ = context_prompts(tiny_clip).encode(context)
    texts = ["a photo of bad.", "a photo of good."]
    np.testing.assert_array_equal(encoded, embedder_of(tiny_clip).embed_text(texts))


def test_the_tower_that_lends_its_weights_gets_no_hook(tiny_clip):
    from sklearn_clipsid._clip import get_text_tower

    before = embedder_of(tiny_clip).embed_text(["a photo"])
    prompts = context_prompts(tiny_clip)
    prompts.encode(np.ones(prompts.shape))
    module = get_text_tower(tiny_clip, tiny_clip)._module
    assert not module.token_embedding._forward_hooks
    np.testing.assert_array_equal(
        embedder_of(tiny_clip).embed_text(["a photo"]), before
    )


def test_a_context_of_one_vector_stands_behind_the_start(tiny_clip):
    assert context_prompts(tiny_clip, n_context=1)._start == 1


def test_the_context_is_learned_and_makes_the_prompt_features(tiny_clip, image_files):
    regressor = CLIPQualityRegressor(embedder_of(tiny_clip), **SMALL)
    first = clone(regressor).set_params(max_iter=1).fit(image_files, SCORES).context_
    regressor.fit(image_files, SCORES)
    assert regressor.prompts_ == "context"
    assert np.abs(regressor.context_ - first).max() > 1e-4
    assert regressor.prompt_features_.shape == (6, 32)
    assert regressor.coefs_[0].shape == (32 + 6 * 32, 8)
    encoded, _ = context_prompts(tiny_clip, 4).encode(regressor.context_)
    encoded /= np.linalg.norm(encoded, axis=1, keepdims=True)
    words = list(regressor.quality_words)
    for word, row in zip(("bad", "good"), encoded):
        found = regressor.prompt_features_[words.index(word)]
        np.testing.assert_allclose(found, row, atol=1e-5)


def test_prediction_needs_no_text_tower(tiny_clip, image_tower, image_files):
    regressor = CLIPQualityRegressor(embedder_of(tiny_clip), **SMALL)
    scores = regressor.fit(image_files, SCORES).predict(image_files)
    # The fingerprint is that of the image tower alone.
    regressor.embedder_.set_params(model_name=image_tower, pretrained=image_tower)
    np.testing.assert_array_equal(regressor.predict(image_files), scores)


def test_without_a_text_tower_the_features_are_learned(image_tower, image_files):
    regressor = CLIPQualityRegressor(embedder_of(image_tower), **SMALL)
    regressor.fit(image_files, SCORES)
    assert regressor.prompts_ == "features"
    assert regressor.context_ is None
    np.testing.assert_allclose(np.linalg.norm(regressor.prompt_features_, axis=1), 1)
    with pytest.raises(
        ValueError, match=r"no text tower can be taken.*pass prompts='features'"
    ):
        regressor.set_params(prompts="context").fit(image_files, SCORES)


@pytest.mark.parametrize("prompts", ["context", "features"])
def test_scores_are_those_of_a_network_without_prompts(prompts, tiny_clip, image_files):
    embedder = embedder_of(tiny_clip, normalize=True)
    regressor = CLIPQualityRegressor(embedder, prompts=prompts, **SMALL)
    regressor.fit(image_files, SCORES)
    (W1, w2), (b1, b2) = regressor.coefs_, regressor.intercepts_
    X = embedder.transform(image_files) - regressor.feature_mean_
    X = X * regressor.feature_scale_
    prompt_row = regressor.prompt_features_.ravel()
    beside = np.hstack([X, np.tile(prompt_row, (len(X), 1))])
    whole = np.maximum(beside @ W1 + b1, 0) @ w2 + b2
    without = score_rows(
        X, np.empty((0, 32)), [W1[:32], b1 + prompt_row @ W1[32:], w2, b2]
    )
    expected = regressor.target_mean_ + regressor.target_scale_ * whole
    np.testing.assert_allclose(regressor.predict(image_files), expected, rtol=1e-5)
    np.testing.assert_allclose(without, whole, rtol=1e-5)


def test_each_image_is_embedded_once(image_tower, image_files, encoded):
    regressor = CLIPQualityRegressor(embedder_of(image_tower), **SMALL)
    regressor.fit(image_files, SCORES).predict(image_files)
    clone(regressor).set_params(random_state=1).fit(image_files, SCORES)
    assert sum(encoded) == len(image_files)


def test_what_no_straight_line_follows_is_learned(table):
    X, y, _ = table
    regressor = CLIPQualityRegressor(
        "passthrough", dropout=0, early_stopping=False, random_state=0
    )
    regressor.fit(X[:200], y[:200])
    assert regressor.score(X[200:], y[200:]) > 0.9
    assert regressor.score(X, y) == srcc_score(y, regressor.predict(X))


def test_dropout_leaves_out_its_share_in_training_alone(table, rng):
    network = QualityNetwork(FreePrompts(2, 5), 6, 40)
    random_state = np.random.RandomState(0)
    for mask in network.draw_masks(500, 0.3, random_state, np.dtype(float)):
        assert set(np.unique(mask)) == {0, 1 / 0.7}
        assert (mask == 0).mean() == pytest.approx(0.3, abs=0.02)
    X, y, _ = table
    without, half = (
        CLIPQualityRegressor("passthrough", **SMALL, dropout=dropout).fit(X, y)
        for dropout in (0, 0.5)
    )
    assert without.loss_curve_[-1] < half.loss_curve_[-1] - 0.01
    np.testing.assert_array_equal(half.predict(X), half.predict(X))


def test_the_state_of_the_lowest_error_on_the_rows_set_aside_is_kept(
    table, monkeypatch
):
    X, y, groups = table
    seen = []
    split = CLIPQualityRegressor._split
    monkeypatch.setattr(
        CLIPQualityRegressor,
        "_split",
        lambda *args: seen.append(split(*args)) or seen[-1],
    )
    regressor = CLIPQualityRegressor(
        "passthrough", **SMALL | {"max_iter": 60}, learning_rate_init=0.05
    )
    losses = regressor.fit(X, y, groups).validation_loss_curve_
    assert losses.argmin() < len(losses) - 1 and losses.min() < losses[-1] - 1e-3
    ((train, held_out),) = seen
    assert not set(groups[train]) & set(groups[held_out])
    errors = (regressor.predict(X[held_out]) - y[held_out]) / regressor.target_scale_
    assert (errors**2).mean() == pytest.approx(losses.min(), rel=1e-6)


def test_settings_reach_the_optimiser(table, monkeypatch):
    X, y, _ = table
    asked, minimise = {}, clip_quality.minimize_minibatch
    adam = clip_quality.Adam

    def noted(optimiser, loss_grad, rows, **settings):
        asked.update(settings, n_rows=len(rows))
        return minimise(optimiser, loss_grad, rows, **settings)

    def noted_adam(params, **settings):
        asked.update(settings)
        return adam(params, **settings)

    monkeypatch.setattr(clip_quality, "minimize_minibatch", noted)
    monkeypatch.setattr(clip_quality, "Adam", noted_adam)
    settings = {
        "batch_size": 7,
        "max_iter": 2,
        "n_iter_no_change": 5,
        "learning_rate_init": 0.01,
        "alpha": 0.3,
    }
    CLIPQualityRegressor("passthrough", **SMALL | settings).fit(X, y)
    assert asked["n_rows"] == 270 and asked["min_steps"] == 8
    assert asked["learning_rate"] == 0.01 and asked["weight_decay"] == 0.3
    assert asked["decoupled"] is True
    assert {"batch_size": 7, "max_iter": 2, "n_iter_no_change": 5}.items() <= (
        asked.items()
    )


def test_few_groups_are_not_set_aside_of_themselves(table):
    X, y, groups = table
    regressor = CLIPQualityRegressor("passthrough", **SMALL)
    assert regressor.fit(X, y, groups % 5).validation_loss_curve_ is None
    assert regressor.fit(X, y, groups % 10).validation_loss_curve_ is not None


@pytest.mark.parametrize(
    ("embed", "problem"),
    [
        (lambda X: X[:-1], "Got what the embedder returned with 299 rows but"),
        (lambda X: X[:, 0], "Expected 2D array, got 1D array"),
        (lambda X: X[:, :, None], "Found array with dim 3"),
        (lambda X: csr_array(X), "Sparse data was passed"),
    ],
)
def test_what_an_embedder_returns_is_checked(embed, problem, table):
    X, y, _ = table
    images = [np.zeros((4, 4, 3), np.uint8)] * 300
    embedder = FunctionTransformer(lambda images: embed(X))
    with pytest.raises((ValueError, TypeError), match=problem):
        CLIPQualityRegressor(embedder, **SMALL).fit(images, y)


def test_the_context_is_learned_where_gradients_are_switched_off(
    tiny_clip, image_files
):
    import torch

    with torch.no_grad():
        CLIPQualityRegressor(embedder_of(tiny_clip), **SMALL).fit(image_files, SCORES)


def test_alpha_is_weight_decay(table):
    X, y, _ = table
    free, held = (
        CLIPQualityRegressor(
            "passthrough", **SMALL | {"max_iter": 30}, alpha=alpha
        ).fit(X, y)
        for alpha in (0, 10)
    )
    assert np.linalg.norm(held.coefs_[0]) < 0.9 * np.linalg.norm(free.coefs_[0])


def test_scores_keep_their_units(table):
    X, y, _ = table
    regressor = CLIPQualityRegressor("passthrough", **SMALL)
    scores = regressor.fit(X, y).predict(X)
    np.testing.assert_allclose(
        regressor.fit(X, 7 * y - 2).predict(X), 7 * scores - 2, rtol=1e-6
    )


def test_the_length_and_the_scale_of_features_do_not_matter(table):
    X, y, _ = table
    regressor = CLIPQualityRegressor("passthrough", **SMALL)
    scores = regressor.fit(X, y).predict(X)
    np.testing.assert_allclose(regressor.fit(9 * X, y).predict(X), scores)
    plain = clone(regressor).set_params(scale_features=False).fit(X, y)
    assert plain.feature_scale_ == 1
    assert not plain.feature_mean_.any()


def test_the_same_seed_gives_the_same_numbers(tiny_clip, image_files):
    fits = [
        CLIPQualityRegressor(embedder_of(tiny_clip), **{**SMALL, "random_state": seed})
        .fit(image_files, SCORES)
        .predict(image_files)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(fits[0], fits[1])
    assert np.abs(fits[2] - fits[0]).max() > 0


def test_a_group_is_trained_on_or_stopped_on(table):
    X, y, groups = table
    regressor = CLIPQualityRegressor("passthrough", validation_fraction=0.2)
    train, held_out = regressor._split(300, groups, np.random.RandomState(0))
    assert not set(groups[train]) & set(groups[held_out])
    assert len(held_out) == 60
    fitted = regressor.set_params(**SMALL).fit(X, y, groups=groups)
    assert len(fitted.validation_loss_curve_) == fitted.n_iter_ == 3
    assert clone(regressor).fit(X[:199], y[:199]).validation_loss_curve_ is None


def test_groups_are_routed_without_asking(table):
    X, y, groups = table
    regressor = CLIPQualityRegressor("passthrough", early_stopping=True, **SMALL)
    seen = []

    class Watched(CLIPQualityRegressor):
        def _split(self, n_samples, groups, random_state):
            seen.append(groups)
            return super()._split(n_samples, groups, random_state)

    with config_context(enable_metadata_routing=True):
        scores = cross_validate(
            Watched(**regressor.get_params()),
            X,
            y,
            cv=GroupKFold(3),
            scoring=quality_scorers(),
            params={"groups": groups},
        )
    assert {"test_plcc", "test_srcc", "test_krcc"} <= scores.keys()
    assert [len(set(of_fold)) for of_fold in seen] == [20, 20, 20]


@pytest.mark.parametrize(
    ("y", "problem"),
    [
        (None, "requires y to be passed"),
        ([1, np.nan, 3, np.inf], r"NaN or infinite for row\(s\) 1, 3.*leave out"),
        ([2, 2, 2, 2], r"same score \(2\) for all 4 images"),
        ([1, 2, 3], "Got y with 3 rows but expected 4"),
        (["1", "n/a", "2", "3"], "Got y that is no column of numbers .*'n/a'"),
        ([1e300, -1e300, 0, 0], "Got y with a standard deviation of inf"),
    ],
)
def test_scores_that_cannot_be_learned_are_refused(y, problem, image_tower, encoded):
    images = [np.zeros((40, 40, 3), np.uint8)] * 4
    with pytest.raises(ValueError, match=problem):
        CLIPQualityRegressor(embedder_of(image_tower), **SMALL).fit(images, y)
    assert not encoded  # nothing was embedded in vain


@pytest.mark.parametrize(
    ("X", "y", "problem"),
    [
        ("a.png", [1], "Got one str"),
        (["a.png"], [1], "Got 1 sample but expected at least two"),
    ],
)
def test_what_is_no_set_of_images_is_refused(X, y, problem, tiny_clip):
    with pytest.raises(ValueError, match=problem):
        CLIPQualityRegressor(embedder_of(tiny_clip)).fit(X, y)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"n_context": 13},
            r"quality word 'terrible'.*17 tokens.*n_context=12 or less",
        ),
        ({"quality_words": []}, "at least one word"),
        ({"quality_words": ["good", ""]}, "words only"),
        ({"prompts": "text"}, "The 'prompts' parameter"),
        ({"dropout": 1}, "The 'dropout' parameter"),
    ],
)
def test_prompts_that_cannot_be_made_are_refused_before_the_images(
    options, problem, tiny_clip, image_files, encoded
):
    regressor = CLIPQualityRegressor(embedder_of(tiny_clip), **{**SMALL, **options})
    with pytest.raises(ValueError, match=problem):
        regressor.fit(image_files, SCORES)
    assert not encoded


def test_one_group_cannot_be_set_aside(table):
    X, y, _ = table
    regressor = CLIPQualityRegressor("passthrough", early_stopping=True, **SMALL)
    with pytest.raises(ValueError, match=r"one group.*pass early_stopping=False"):
        regressor.fit(X, y, groups=np.zeros(300))
    with pytest.raises(ValueError, match="Got groups with 2 rows but expected 300"):
        regressor.fit(X, y, groups=[0, 1])
    with pytest.raises(ValueError, match=r"Got no value of groups for row\(s\) 0, 1"):
        regressor.fit(X, y, groups=[None, None, *range(298)])


def test_a_fit_that_fails_leaves_no_half_of_a_model(image_tower, image_files):
    regressor = CLIPQualityRegressor(embedder_of(image_tower), **SMALL)
    regressor.fit(image_files, SCORES)
    with pytest.raises(ValueError, match="no such file"):
        regressor.fit([*image_files[:8], "no such file"], 100 * SCORES)
    with pytest.raises(NotFittedError):
        regressor.predict(image_files)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_that_are_all_the_same_are_not_blown_up(dtype, table):
    X = np.ones((300, 6), dtype=dtype)
    regressor = CLIPQualityRegressor("passthrough", **SMALL).fit(X, table[1])
    near = regressor.predict(X + np.eye(300, 6, dtype=dtype) / 100)
    assert np.abs(near - table[1].mean()).max() < 3 * table[1].std()


def test_rows_of_unreadable_images_are_named(image_tower, image_files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images = [*image_files[:3], str(broken)]
    regressor = CLIPQualityRegressor(embedder_of(image_tower), **SMALL)
    with pytest.raises(ValueError, match=r"broken\.png"):
        regressor.fit(images, [1, 2, 3, 4])
    regressor.embedder.set_params(on_error="nan")
    with (
        pytest.warns(UserWarning, match="Could not read one image"),
        pytest.raises(ValueError, match=r"contains NaN in 1 of 4 rows: 3\."),
    ):
        regressor.fit(images, [1, 2, 3, 4])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_that_diverges_is_stopped_at_the_batch(table):
    X, y, _ = table
    regressor = CLIPQualityRegressor(
        "passthrough", **{**SMALL, "learning_rate_init": 1e200, "max_iter": 20}
    )
    with pytest.raises(
        ValueError, match=r"not finite in the batch of the rows \d+, .*training stopped"
    ):
        regressor.fit(X, y)
    assert not hasattr(regressor, "coefs_")


@pytest.fixture(scope="module")
def saved(tiny_clip, image_files, tmp_path_factory):
    """A fitted regressor, and the file that it was saved to."""
    regressor = CLIPQualityRegressor(embedder_of(tiny_clip), **SMALL)
    file = tmp_path_factory.mktemp("saved") / "quality.skops"
    dump(regressor.fit(image_files, SCORES), file)
    return regressor, file


def test_scores_survive_the_file_in_another_process(saved, tiny_clip, image_files):
    regressor, file = saved
    program = f"""
import json
from sklearn_clipsid.persistence import load
regressor = load({str(file)!r}, pretrained={tiny_clip!r})
print(json.dumps(regressor.predict({image_files!r}).tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    scores = json.loads(done.stdout)
    np.testing.assert_allclose(scores, regressor.predict(image_files), rtol=1e-6)


def test_a_saved_regressor_tells_nothing_of_this_machine(saved):
    _, file = saved
    with zipfile.ZipFile(file) as archive:
        members = [archive.read(name) for name in archive.namelist()]
    assert not any(str(file.parent.parent).encode() in member for member in members)


def test_other_base_weights_are_refused(saved, write_tiny_clip, image_files, tmp_path):
    _, file = saved
    other = write_tiny_clip(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"not the one this pipeline was fitted with"):
        load(file, pretrained=other).predict(image_files)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coefs_", [np.zeros((3, 8)), np.zeros(8)]),
        ("coefs_", None),
        ("intercepts_", [np.full(8, np.nan), np.zeros(1)]),
        ("target_scale_", np.inf),
        ("target_scale_", -1.0),
        ("coefs_", [np.zeros((12, 8), complex), np.zeros(8)]),
        ("prompt_features_", np.zeros((1, 1))),
    ],
)
def test_arrays_that_no_fit_can_have_made_are_refused(table, name, value):
    X, y, _ = table
    regressor = CLIPQualityRegressor("passthrough", **SMALL).fit(X, y)
    setattr(regressor, name, value)
    file = io.BytesIO(skops.io.dumps(regressor))
    with (
        pytest.warns(UserWarning, match="was not written by"),
        pytest.raises(ValueError, match="damaged or was changed by hand"),
    ):
        load(file)
