import io

import numpy as np
import open_clip
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    LeaveOneGroupOut,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import HeadSelector
from sklearn_clipsid._head_ridge import HeadRidges
from sklearn_clipsid._head_selector import VIT_HEADS
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
from sklearn_clipsid.persistence import dump, load

D, N_HEADS = 6, 4  # 2 blocks of 2 heads
GENERATORS, SOURCES = ["GAN", "LDM", "SD"], ["COCO", "RAISE"]


def draw(rng, n_heads=N_HEADS, d=D, n=40, generators=GENERATORS):
    """Noise: parts of shape (n_samples, n_heads + 1, d), labels and groups."""
    groups = np.repeat([*generators, *SOURCES], n)
    y = np.isin(groups, generators).astype(int)
    return rng.normal(size=(len(y), n_heads + 1, d)), y, groups


def flat(parts):
    return parts.reshape(len(parts), -1)


@pytest.fixture
def selector():
    return HeadSelector(head_blocks=2, embed_dim=D)


# The choice --------------------------------------------------------------------------


def test_heads_that_all_generators_share_are_kept_in_order_of_use(rng, selector):
    parts, y, groups = draw(rng, n=150)
    parts[:, 3, 0] += 1.5 * y  # the second head of the last block
    parts[:, 0, 0] += 0.8 * y
    selector.fit(flat(parts), y, groups)
    assert selector.selected_.tolist() == [[-1, 2], [-2, 1]]
    assert selector.support_.tolist() == [True, False, False, True]
    expected = flat(parts[:, [0, 3]])
    np.testing.assert_array_equal(selector.transform(flat(parts)), expected)


def test_a_head_that_gives_away_single_generators_is_not_kept(rng, selector):
    parts, y, groups = draw(rng, n=100)
    parts[:, 1, 0] += 0.7 * y
    for generator, direction in zip(GENERATORS, np.eye(D)):
        parts[groups == generator, 2] += 6 * direction
    honest = clone(selector).fit(flat(parts), y, groups)
    assert honest.selected_[0].tolist() == [-2, 2]
    # Folds in which each generator is known take it first.
    at_random = clone(selector).set_params(cv=StratifiedKFold(5)).fit(flat(parts), y)
    assert at_random.selected_[0].tolist() == [-1, 1]


def test_the_rest_is_never_returned(rng, selector):
    parts, y, groups = draw(rng)
    parts[:, -1] += 9 * y[:, None]
    kept = selector.fit_transform(flat(parts), y, groups=groups)
    assert kept.shape[1] == D * selector.support_.sum()
    assert selector.score_path_[0] < 0.7


def test_chosen_heads_score_as_a_refit_of_ridge_regression_would(rng):
    parts, y, _ = draw(rng)
    rows = rng.permutation(len(y))
    train, test = rows[:120], rows[120:]
    task = HeadRidges(parts[:, :-1], y == 1, alpha=0.3)
    order, path = task.select([(train, test)], 3)
    weight = 0.5 / np.bincount(y[train])[y[train]]
    mean = np.average(parts[train][:, :-1], axis=0, weights=weight)
    squares = ((parts[train][:, :-1] - mean) ** 2).sum(axis=2)  # (n_train, n_heads)
    penalty = 0.3 * (weight @ squares).mean()

    def refit(heads):
        X, target = flat(parts[:, heads]), np.where(y, 1, -1)
        ridge = Ridge(alpha=penalty).fit(X[train], target[train], sample_weight=weight)
        return roc_auc_score(y[test], ridge.predict(X[test]))

    for n_chosen, score in enumerate(path):
        before = order[:n_chosen].tolist()
        others = [j for j in range(N_HEADS) if j not in before]
        scores = {j: refit([*before, j]) for j in others}
        assert order[n_chosen] == max(scores, key=scores.get)
        assert score == pytest.approx(scores[order[n_chosen]], abs=1e-12)


def test_known_heads_lead_to_the_same_choice(rng):
    parts, y, _ = draw(rng)
    rows = rng.permutation(len(y))
    task = HeadRidges(parts, y == 1, alpha=0.1)
    splits = [(rows[:100], rows[100:]), (rows[100:], rows[:100])]
    order, path = task.select(splits, 4)
    again, rest = task.select(splits, 4, known=tuple(order[:2]))
    np.testing.assert_array_equal(again, order)
    np.testing.assert_allclose(rest, path[2:])


def test_the_path_that_is_reported_had_no_part_in_the_choice(rng):
    # Noise: what chooses its own folds rises above chance, what is checked does not.
    parts, y, groups = draw(rng, n_heads=40, d=2, n=60)
    selector = HeadSelector(head_blocks=1, embed_dim=2, tol=0, patience=40)
    selector.fit(flat(parts), y, groups)
    assert abs(selector.score_path_.mean() - 0.5) < 0.05
    splits = list(LeaveOneGeneratorOut().split(parts, y, groups))
    assert selector.score_path_.shape == (40,)
    _, too_good = HeadRidges(parts[:, :-1], y == 1, 0.1).select(splits, 8)
    assert too_good.max() > 0.6


def test_shuffled_labels_give_chance_on_generators_held_out(rng):
    generators = [*GENERATORS, "FLUX", "DALL-E"]
    parts, y, groups = draw(rng, n_heads=20, d=4, n=100, generators=generators)
    X = flat(parts)
    selector = HeadSelector(head_blocks=1, embed_dim=4, max_heads=4)
    kept = selector.fit_transform(X, y, groups=groups)
    cv = LeaveOneGeneratorOut(every_real_fold=True)
    model = LogisticRegression(C=0.01)
    with config_context(enable_metadata_routing=True):
        honest = make_pipeline(clone(selector), model)  # gets groups by default
        options = {"cv": cv, "scoring": "roc_auc", "params": {"groups": groups}}
        assert abs(cross_val_score(honest, X, y, **options).mean() - 0.5) < 0.05
        # Heads that were chosen on the held-out rows too are better than chance.
        assert cross_val_score(model, kept, y, **options).mean() > 0.53


def test_the_length_is_the_best_of_the_path_and_max_heads_ends_it(rng, selector):
    parts, y, groups = draw(rng, n=100)
    parts[:, 3, 0] += 0.9 * y
    parts[:, 0, 0] += 0.9 * y
    selector.fit(flat(parts), y, groups)
    n_selected = len(selector.selected_)
    assert selector.selection_path_.shape == (n_selected,)
    assert selector.score_path_.argmax() + 1 == n_selected == 2
    one = clone(selector).set_params(max_heads=1).fit(flat(parts), y, groups)
    assert one.selected_.tolist() == selector.selected_[:1].tolist()
    assert one.score_path_.tolist() == selector.score_path_[:1].tolist()


def test_patience_ends_the_search_without_changing_what_was_found(rng):
    parts, y, groups = draw(rng, n_heads=12, d=3, n=80)
    parts[:, 5] += 0.9 * y[:, None]
    patient = HeadSelector(head_blocks=3, embed_dim=3, patience=12)
    patient.fit(flat(parts), y, groups)
    hasty = clone(patient).set_params(patience=2).fit(flat(parts), y, groups)
    n_checked = len(hasty.score_path_)
    assert n_checked < 12 == len(patient.score_path_)
    np.testing.assert_allclose(hasty.score_path_, patient.score_path_[:n_checked])


def test_scale_and_offset_of_a_head_do_not_matter(rng, selector):
    parts, y, groups = draw(rng)
    parts[:, 1, 0] += y
    selector.fit(flat(parts), y, groups)
    scaled = parts * np.array([100, 1e-3, 1, 7, 1])[:, None] + 5
    other = clone(selector).fit(flat(scaled), y, groups)
    np.testing.assert_array_equal(other.selected_, selector.selected_)
    np.testing.assert_allclose(other.score_path_, selector.score_path_, atol=1e-9)


def test_rank_keeps_the_largest_components(rng):
    parts, y, groups = draw(rng, n=100)
    parts[:, :, 0] *= 5
    parts[:, 2, 0] += 5 * y
    thin = HeadSelector(head_blocks=2, embed_dim=D, rank=1, max_heads=1)
    assert thin.fit(flat(parts), y, groups).selected_.tolist() == [[-1, 1]]
    hidden = parts.copy()
    hidden[:, 2, 0] -= 5 * y
    hidden[:, 3, 1] += 5 * y * rng.choice([-1, 1], len(y))  # no component
    hidden[:, 1, 0] += 2 * y
    assert thin.fit(flat(hidden), y, groups).selected_.tolist() == [[-2, 2]]


# Inputs ------------------------------------------------------------------------------


def test_pairs_and_labels_of_any_kind_reach_the_splitter(rng, selector):
    parts, y, groups = draw(rng)
    parts[:, 1, 0] += y
    X = flat(parts)
    selector.fit(X, y, groups)
    words = np.array(["real", "synthetic"])[y]
    named = clone(selector).fit(X, words, pd.Series(groups))
    np.testing.assert_array_equal(named.score_path_, selector.score_path_)
    turned = clone(selector).set_params(pos_label="fake")
    turned.fit(X, np.array(["photo", "fake"])[y], groups)
    np.testing.assert_allclose(turned.score_path_, selector.score_path_)
    # Half of the photographs were the models of images of all generators.
    pair = np.where(np.arange(len(y)) % 40 < 20, np.arange(len(y)) % 40, -1)
    pairs = np.column_stack([groups, np.where(pair < 0, "", pair)])
    paired = clone(selector).fit(X, y, pairs)
    assert not np.isclose(paired.score_path_[0], selector.score_path_[0])


def test_another_splitter_may_be_passed(rng, selector):
    parts, y, groups = draw(rng)
    selector.set_params(cv=StratifiedKFold(5)).fit(flat(parts), y)
    default = HeadSelector(head_blocks=2, embed_dim=D)
    with pytest.warns(UserWarning, match="Got groups=None.*headselector__groups"):
        default.fit(flat(parts), y)
    np.testing.assert_array_equal(selector.score_path_, default.score_path_)
    selector.set_params(cv=LeaveOneGroupOut())
    with pytest.raises(
        ValueError, match="0 synthetic images of 40 rows but expected both"
    ):
        selector.fit(flat(parts), y, groups)


def test_a_pipeline_passes_groups_by_name(rng, selector):
    parts, y, groups = draw(rng)
    pipe = make_pipeline(selector, LogisticRegression())
    pipe.fit(flat(parts), y, headselector__groups=groups)
    direct = clone(selector).fit(flat(parts), y, groups)
    np.testing.assert_array_equal(pipe[0].score_path_, direct.score_path_)


def test_names_are_those_of_the_kept_columns(rng, selector):
    parts, y, groups = draw(rng)
    parts[:, 2, 0] += 2 * y
    columns = [f"part{i}" for i in range(5 * D)]
    frame = pd.DataFrame(flat(parts), columns=columns)
    selector.set_params(max_heads=1).set_output(transform="pandas")
    kept = selector.fit_transform(frame, y, groups=groups)
    pd.testing.assert_frame_equal(kept, frame.iloc[:, 2 * D : 3 * D])
    assert list(selector.get_feature_names_out()) == columns[2 * D : 3 * D]


def test_a_saved_selector_returns_the_same_columns(rng, selector):
    parts, y, groups = draw(rng)
    selector.set_params(cv=LeaveOneGeneratorOut(3))
    pipe = make_pipeline(selector, LogisticRegression())
    pipe.fit(flat(parts), y, headselector__groups=groups)
    file = io.BytesIO()
    dump(pipe, file)
    loaded = load(io.BytesIO(file.getvalue()))
    X = flat(parts)
    np.testing.assert_array_equal(loaded.predict_proba(X), pipe.predict_proba(X))


def test_single_precision_is_kept(rng, selector):
    parts, y, groups = draw(rng)
    X = flat(parts).astype(np.float32)
    assert selector.fit_transform(X, y, groups=groups).dtype == np.float32


# Models ------------------------------------------------------------------------------


def vits_of_open_clip():
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision = config["vision_cfg"]
        is_vit = isinstance(vision.get("layers"), int)
        if is_vit and not vision.get("timm_model_name"):
            n_heads = vision["width"] // vision.get("head_width", 64)
            yield name, n_heads, config["embed_dim"]


@pytest.mark.parametrize("head_blocks", [1, 4, 12])
def test_every_vit_of_open_clip_is_recognised_by_its_width(head_blocks):
    for name, n_heads, d in vits_of_open_clip():
        selector = HeadSelector(head_blocks=head_blocks)
        selector.n_features_in_ = (head_blocks * n_heads + 1) * d
        assert selector._find_embed_dim() == d, name


@pytest.mark.parametrize("head_blocks", range(1, 57))
def test_no_two_models_have_the_same_width(head_blocks):
    widths = [(head_blocks * n_heads + 1) * d for n_heads, d in VIT_HEADS]
    assert len(set(widths)) == len(widths)


# Refused -----------------------------------------------------------------------------


def test_a_width_that_is_none_of_the_parts_is_explained(rng):
    parts, y, groups = draw(rng)
    for parameters, message in (
        ({}, r"Got 30 features, which is none .* pass its head_blocks, and embed_dim"),
        ({"embed_dim": 7}, "Got n_features = 30 but expected 7 for each head of 4"),
        ({"embed_dim": 30}, "Got n_features = 30 but expected 30"),
        ({"embed_dim": D, "head_blocks": 3}, "expected 6 for each head of 3 blocks"),
    ):
        with pytest.raises(ValueError, match=message):
            HeadSelector(**parameters).fit(flat(parts), y, groups)


def test_too_few_generators_or_rows_say_what_is_needed(rng, selector):
    parts, y, groups = draw(rng, generators=GENERATORS[:2])
    with pytest.raises(ValueError, match="'GAN', 'LDM' alone but expected three or"):
        selector.fit(flat(parts), y, groups)
    with pytest.raises(ValueError, match=r"Got 2 row\(s\) of the rarer class"):
        selector.fit(flat(parts)[:82], np.repeat([0, 1], [80, 2]))
    with pytest.raises(ValueError, match=r"Got y with the labels \[0\], one class"):
        selector.fit(flat(parts), 0 * y, groups)
    with pytest.raises(ValueError, match="groups with 3 rows but expected 160"):
        selector.fit(flat(parts), y, groups[:3])
    with pytest.raises(ValueError, match="Only binary classification is supported"):
        selector.fit(flat(parts), np.arange(len(y)) % 3, groups)


def test_rows_of_unreadable_images_are_named(rng, selector):
    parts, y, groups = draw(rng)
    X = flat(parts.copy())
    X[7] = np.nan
    with pytest.raises(ValueError, match="contains NaN in 1 of 200 rows: 7"):
        selector.fit(X, y, groups)
    selector.fit(flat(parts), y, groups)
    with pytest.raises(ValueError, match="contains NaN in 1 of 200 rows: 7"):
        selector.transform(X)


def test_heads_that_are_all_equal_are_refused(rng, selector):
    parts, y, groups = draw(rng)
    parts[:, :-1] = 1
    with pytest.raises(ValueError, match="whose heads are all equal"):
        selector.fit(flat(parts), y, groups)


@pytest.mark.parametrize(
    "parameter",
    [
        {"max_heads": 0},
        {"patience": 0},
        {"tol": -1},
        {"alpha": 0},
        {"rank": 0},
        {"head_blocks": 0},
        {"embed_dim": 0},
        {"cv": 5},
        {"pos_label": [1]},
    ],
    ids=str,
)
def test_a_bad_parameter_is_named(rng, selector, parameter):
    parts, y, groups = draw(rng)
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter"):
        selector.set_params(**parameter).fit(flat(parts), y, groups)
