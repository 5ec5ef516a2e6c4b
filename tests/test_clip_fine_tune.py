import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import cross_val_score

from sklearn_clipsid import CLIPEmbedder, CLIPFineTuneClassifier
from sklearn_clipsid import _clip_fine_tune as clip_fine_tune
from sklearn_clipsid import _frozen_rows as frozen_rows
from sklearn_clipsid._clip import _fine_tuning as fine_tuning
from sklearn_clipsid._clip._cosine_model import CosineModel
from sklearn_clipsid._clip._tunable_tower import TunableTower
from sklearn_clipsid._frozen_rows import FrozenEncoder
from sklearn_clipsid._pair_split import hold_out_pairs, pair_units
from sklearn_clipsid.persistence import dump

COLOURS = {"GAN": (200, 60, 60), "SD": (60, 200, 60), "real": (60, 60, 200)}
Y = np.repeat(list(COLOURS), 4)
STILL = {"learning_rate_init": 0, "head_learning_rate_init": 0, "max_iter": 1}
MODES = ["head", "lora", "blocks", "all"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Twelve images of noise around the colour of their class."""
    folder = tmp_path_factory.mktemp("coloured")
    rng = np.random.default_rng(0)
    made = []
    for index, label in enumerate(Y):
        noise = rng.integers(-50, 50, (40, 50, 3))
        pixels = (np.array(COLOURS[label]) + noise).astype(np.uint8)
        made.append(str(folder / f"{index}.png"))
        Image.fromarray(pixels).save(made[-1])
    return np.array(made)


@pytest.fixture(scope="module")
def image_tower_alone(tmp_path_factory, write_tiny_clip):
    """Path of a checkpoint without a text tower, and its architecture's name."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("alone") / "tiny"
    name = write_tiny_clip(folder)
    tensors = load_file(folder / "open_clip_model.safetensors")
    image = {k: v for k, v in tensors.items() if k.startswith("visual.")}
    save_file(image, folder / "open_clip_model.safetensors")
    return name


@pytest.fixture(autouse=True)
def _nothing_known():
    frozen_rows.FROZEN.clear()


def tuner(name, embedder=None, **params):
    params = {"class_vectors": "means", "logit_scale": 10, "random_state": 0} | params
    return CLIPFineTuneClassifier(
        CLIPEmbedder(name, name, **(embedder or {})), **params
    )


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def class_means(X, y):
    return unit(np.array([unit(X)[y == label].mean(axis=0) for label in np.unique(y)]))


def same_state(one, other):
    return (
        one.tensors_.keys() == other.tensors_.keys()
        and all(
            np.array_equal(one.tensors_[k], other.tensors_[k]) for k in one.tensors_
        )
        and np.array_equal(one.class_vectors_, other.class_vectors_)
        and one.logit_scale_ == other.logit_scale_
        and np.array_equal(one.loss_curve_, other.loss_curve_)
    )


# The model ---------------------------------------------------------------------------


@pytest.mark.parametrize("train", MODES)
def test_untrained_it_is_the_class_mean_classifier(train, tiny_clip, paths):
    X = CLIPEmbedder(tiny_clip, tiny_clip, features="projected").fit_transform(paths)
    logits = 10 * unit(X) @ class_means(X, Y).T
    model = tuner(tiny_clip, train=train, **STILL).fit(paths, Y)
    assert (model.predict(paths) == model.classes_[logits.argmax(axis=1)]).all()
    proba = model.predict_proba(paths)
    np.testing.assert_allclose(proba, softmax(logits, axis=1), atol=1e-4)


@pytest.mark.parametrize("train", MODES)
def test_untrained_with_a_text_tower_it_is_the_zero_shot_classifier(
    train, tiny_clip, paths
):
    embedder = CLIPEmbedder(tiny_clip, tiny_clip, features="projected")
    texts = embedder.embed_text([f"made by {name}" for name in np.unique(Y)])
    logits = 30 * unit(embedder.fit_transform(paths)) @ unit(texts).T
    model = tuner(
        tiny_clip,
        train=train,
        class_vectors="auto",
        caption="made by {label}",
        logit_scale=30,
        **STILL,
    ).fit(paths, Y)
    assert model.captions_ == ["made by GAN", "made by SD", "made by real"]
    assert (model.predict(paths) == model.classes_[logits.argmax(axis=1)]).all()
    proba = model.predict_proba(paths)
    np.testing.assert_allclose(proba, softmax(logits, axis=1), atol=1e-4)


def test_loss_and_gradient_of_the_head_are_those_of_a_cosine_classifier(
    tiny_clip, paths
):
    X = CLIPEmbedder(tiny_clip, tiny_clip, features="projected").fit_transform(paths)
    f, V, t = unit(X), class_means(X, Y), np.log(20)
    codes = np.unique(Y, return_inverse=True)[1]
    C = f @ V.T
    loss = -log_softmax(np.exp(t) * C, axis=1)[np.arange(len(Y)), codes].mean()
    dZ = (softmax(np.exp(t) * C, axis=1) - np.eye(3)[codes]) / len(Y)
    dG = np.exp(t) * dZ.T @ f
    dV = dG - V * (V * dG).sum(axis=1, keepdims=True)  # V has unit norm

    model = tuner(
        tiny_clip, train="head", logit_scale=20, batch_size=len(Y), max_iter=1
    ).fit(paths, Y)
    assert model.loss_curve_ == pytest.approx([loss], rel=1e-5)

    head = CosineModel(FrozenEncoder.of(model.embedder_, "head", 1, 1).tunable)
    start = {"class_vectors": V.astype(np.float32), "log_scale": np.float32(t)}
    tensors = {k: v.requires_grad_() for k, v in head.tower.to_tensors(start).items()}
    head.loss(tensors, X, codes, np.ones(len(Y))).backward()
    np.testing.assert_allclose(tensors["class_vectors"].grad, dV, atol=1e-5)
    dt = (dZ * np.exp(t) * C).sum()
    assert tensors["log_scale"].grad.item() == pytest.approx(dt, abs=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("features", ["pooled", "projected"])
@pytest.mark.parametrize(
    ("train", "n_blocks"), [("blocks", 1), ("blocks", 3), ("lora", 2), ("all", 1)]
)
def test_the_untrained_parts_together_are_the_whole_tower(
    train, n_blocks, features, precision, tiny_clip, paths
):
    embedder = {"features": features, "normalize": True, "precision": precision}
    whole = CLIPEmbedder(tiny_clip, tiny_clip, **embedder).fit_transform(paths)
    model = tuner(tiny_clip, embedder, train=train, n_blocks=n_blocks, **STILL)
    tuned = model.fit(paths, Y).embed(paths)
    assert (1 - (whole * tuned).sum(axis=1)).max() < {"fp32": 1e-6, "bf16": 1e-4}[
        precision
    ]


def test_layer_scale_and_no_first_norm_are_kept(tmp_path, write_tiny_clip, paths):
    from conftest import TINY_CONFIG

    vision = TINY_CONFIG["vision_cfg"] | {"ls_init_value": 0.5, "no_ln_pre": True}
    name = write_tiny_clip(tmp_path / "m", config=TINY_CONFIG | {"vision_cfg": vision})
    whole = CLIPEmbedder(name, name).fit_transform(paths)
    for train in ("blocks", "lora", "all"):
        model = tuner(name, train=train, **STILL).fit(paths, Y)
        np.testing.assert_allclose(model.embed(paths), whole, atol=1e-5)


@pytest.mark.parametrize("class_vectors", ["means", "text"])
@pytest.mark.parametrize("train", MODES)
def test_training_tells_the_classes_apart(train, class_vectors, tiny_clip, paths):
    model = tuner(
        tiny_clip,
        train=train,
        class_vectors=class_vectors,
        logit_scale=10,
        learning_rate_init=1e-3,
        head_learning_rate_init=1e-2,
        max_iter=30,
    ).fit(paths, Y)
    assert model.score(paths, Y) == 1
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    proba = model.predict_proba(paths)
    np.testing.assert_array_equal(model.predict_synthetic_proba(paths), 1 - proba[:, 2])
    # Only what is trained is kept, and no tensor of torch.
    parts = {"head": set(), "lora": {"lora_up", "lora_down"}}
    if train in parts:
        assert {name.rpartition(".")[2] for name in model.tensors_} == parts[train]
    if train == "blocks":
        assert not [n for n in model.tensors_ if "resblocks.0" in n or "conv1" in n]
    has_text = any(name.startswith("text.") for name in model.tensors_)
    assert has_text == (train == "all" and class_vectors == "text")
    assert all(type(a) is np.ndarray for a in model.tensors_.values())


def test_with_two_classes_it_is_an_ordinary_binary_classifier(tiny_clip, paths):
    y = (Y != "real").astype(int)
    model = tuner(tiny_clip, train="head", head_learning_rate_init=1e-2).fit(paths, y)
    logit = model.decision_function(paths)
    proba = model.predict_proba(paths)
    np.testing.assert_allclose(proba[:, 1], 1 / (1 + np.exp(-logit)))
    np.testing.assert_array_equal(model.predict(paths), (logit > 0).astype(int))
    np.testing.assert_allclose(model.predict_synthetic_proba(paths), proba[:, 1])
    scores = cross_val_score(model, paths, y, cv=2, scoring="roc_auc")
    assert scores.shape == (2,)


def test_class_weights_are_weights_in_the_loss(tiny_clip, paths):
    X = CLIPEmbedder(tiny_clip, tiny_clip, features="projected").fit_transform(paths)
    X, y, images = X[:9], Y[:9], paths[:9]  # four, four and one
    codes = np.unique(y, return_inverse=True)[1]
    losses = -log_softmax(5 * unit(X) @ class_means(X, y).T, axis=1)
    losses = losses[np.arange(9), codes]
    model = tuner(tiny_clip, train="head", logit_scale=5, **STILL)
    assert model.fit(images, y).loss_curve_ == pytest.approx([losses.mean()], rel=1e-4)
    model.set_params(class_weight="balanced").fit(images, y)
    expected = np.mean([losses[codes == code].mean() for code in range(3)])
    assert expected > losses.mean() + 0.01
    assert model.loss_curve_ == pytest.approx([expected], rel=1e-4)


def test_class_weights_of_partial_fit_do_not_depend_on_the_call(tiny_clip, paths):
    X = CLIPEmbedder(tiny_clip, tiny_clip, features="projected").fit_transform(paths)
    losses = -log_softmax(5 * unit(X) @ class_means(X, Y).T, axis=1)
    model = tuner(tiny_clip, train="head", logit_scale=5, **STILL).fit(paths, Y)
    model.set_params(class_weight={"SD": 2, "real": 0})
    for label, weight in {"GAN": 1, "SD": 2, "real": 0}.items():
        rows = label == Y
        model.partial_fit(paths[rows], Y[rows])
        loss = weight * losses[rows][:, model.classes_ == label].mean()
        assert model.loss_curve_[-1] == pytest.approx(loss, rel=1e-4)
    with pytest.raises(ValueError, match="Got class_weight='balanced' in partial_fit"):
        model.set_params(class_weight="balanced").partial_fit(paths, Y)


# Training, step by step --------------------------------------------------------------


def test_training_is_adamw_with_warm_up_cosine_decay_and_clipping(tiny_clip, paths):
    params = {"batch_size": 5, "max_iter": 3, "n_blocks": 1, "warmup_fraction": 0.3}
    model = tuner(
        tiny_clip,
        **params,
        class_vectors="text",
        learning_rate_init=1e-3,
        head_learning_rate_init=1e-2,
        alpha=0.1,
        max_grad_norm=2.5,
        class_weight={"GAN": 3},
    ).fit(paths, Y)
    losses, tensors, norms = by_hand(model, paths)
    assert model.loss_curve_ == pytest.approx(losses, rel=1e-5)
    for name, array in model.tensors_.items():
        if not name.endswith("in_proj_bias"):  # that of keys has a gradient of zero
            np.testing.assert_allclose(array, tensors[name], atol=1e-4)
    assert max(norms) > 2.5 > min(norms)  # some gradients were clipped


def by_hand(model, paths):
    """Train the last block as the docstring says, with an optimiser of torch."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    embedder = model.embedder_
    encoder = FrozenEncoder.of(embedder, "blocks", 1, 1)
    rows, tower = encoder.rows_of(list(paths)), encoder.tunable
    vectors = unit(embedder.embed_text(model.captions_))
    start = tower.start(0) | {"vectors": vectors, "t": np.float32(np.log(10))}
    tensors = {k: v.requires_grad_() for k, v in tower.to_tensors(start).items()}
    head = ("vectors", "t")
    groups = [
        {
            "params": [x],
            "peak": 1e-2 if name in head else 1e-3,
            "weight_decay": 0.1 if x.ndim > 1 and name not in head else 0,
        }
        for name, x in tensors.items()
    ]
    optimiser = torch.optim.AdamW(groups)
    codes = np.unique(Y, return_inverse=True)[1]
    weights = np.where(codes == 0, 3, 1) / np.where(codes == 0, 3, 1).mean()
    seed = np.random.RandomState(0).randint(2**31 - 1)
    losses, norms = [], []
    n_steps, n_warm = 9, 3
    for epoch in range(3):
        order = np.random.default_rng([seed, epoch]).permutation(12)
        total = 0
        for i, batch in enumerate((order[:5], order[5:10], order[10:])):
            f = normalize(tower.embed(tensors, rows[batch])[1], dim=1)
            logits = tensors["t"].exp() * f @ normalize(tensors["vectors"], dim=1).T
            each = cross_entropy(logits, torch.tensor(codes[batch]), reduction="none")
            loss = (torch.tensor(weights[batch], dtype=torch.float32) * each).mean()
            optimiser.zero_grad()
            loss.backward()
            squares = sum((x.grad**2).sum() for x in tensors.values())
            norms.append(float(squares) ** 0.5)
            for x in tensors.values():
                x.grad *= min(1, 2.5 / norms[-1])
            step = 3 * epoch + i
            share = (step + 1) / n_warm
            if step >= n_warm:
                share = (1 + np.cos(np.pi * (step - n_warm) / (n_steps - n_warm))) / 2
            for group in optimiser.param_groups:
                group["lr"] = share * group["peak"]
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / 12)
    arrays = {name: x.detach().numpy() for name, x in tensors.items()}
    return losses, arrays, norms


@pytest.mark.parametrize("train", MODES)
def test_one_seed_gives_the_same_weights(train, tiny_clip, paths):
    one, same = (tuner(tiny_clip, train=train, max_iter=2) for _ in range(2))
    assert same_state(one.fit(paths, Y), same.fit(paths, Y))


def test_the_frozen_part_sees_an_image_once_in_all_folds(tiny_clip, paths, monkeypatch):
    sizes, encode = [], TunableTower.encode

    def counted(tower, pixels, features):
        sizes.append(len(pixels))
        return encode(tower, pixels, features)

    monkeypatch.setattr(TunableTower, "encode", counted)
    model = tuner(tiny_clip, max_iter=2)
    cross_val_score(model, paths, Y, cv=4)
    assert sum(sizes) == len(paths)


def test_augmentation_shows_other_views_in_every_epoch_of_training_alone(
    tiny_clip, paths, monkeypatch
):
    asked, make_views = [], frozen_rows.make_views

    def noted(images, n_views, seed, **options):
        asked.append((tuple(images), seed))
        return make_views(images, n_views, seed, **options)

    monkeypatch.setattr(frozen_rows, "make_views", noted)
    params = {"augment": True, "max_iter": 2, "early_stopping": True, "batch_size": 20}
    model = tuner(tiny_clip, **params, validation_fraction=0.25).fit(paths, Y)
    (first, seed), (second, other_seed) = asked
    assert set(first) == set(second) and len(set(first)) == 9 and seed != other_seed
    model.predict(paths)
    assert len(asked) == 2
    again = tuner(tiny_clip, **params, validation_fraction=0.25).fit(paths, Y)
    assert same_state(model, again)


def test_training_stops_when_the_validation_loss_falls_no_more(tiny_clip, paths):
    model = tuner(
        tiny_clip, **STILL | {"max_iter": 9}, early_stopping=True, n_iter_no_change=2
    ).fit(paths, Y)
    assert len(model.validation_loss_curve_) == model.n_iter_ == 3
    assert tuner(tiny_clip, **STILL).fit(paths, Y).validation_loss_curve_ is None


def test_the_state_of_the_lowest_validation_loss_is_kept(tiny_clip, paths):
    # A rate at which the loss rises again, on labels that the colours do not tell.
    model = tuner(
        tiny_clip,
        train="head",
        head_learning_rate_init=0.5,
        logit_scale=5,
        warmup_fraction=0,
        batch_size=4,
        max_iter=9,
        n_iter_no_change=9,
        early_stopping=True,
        validation_fraction=0.25,
    )
    y = np.roll(Y, 2)
    losses = model.fit(paths, y).validation_loss_curve_
    best = int(losses.argmin())
    assert best < len(losses) - 1 and losses[best] < losses[-1] - 0.01
    X = unit(
        CLIPEmbedder(tiny_clip, tiny_clip, features="projected").fit_transform(paths)
    )
    codes = np.unique(y, return_inverse=True)[1]
    random_state = np.random.RandomState(0)
    held_out = hold_out_pairs(codes, np.arange(12), 0.25, random_state)[1]
    logits = model.logit_scale_ * X[held_out] @ unit(model.class_vectors_).T
    expected = -log_softmax(logits, axis=1)[np.arange(len(held_out)), codes[held_out]]
    assert expected.mean() == pytest.approx(losses[best], rel=1e-4)


def test_auto_stops_early_where_there_are_images_enough(tiny_clip, paths, monkeypatch):
    model = tuner(tiny_clip, train="head", max_iter=1)
    assert model.fit(paths, Y).validation_loss_curve_ is None
    monkeypatch.setattr(clip_fine_tune, "MIN_SAMPLES_TO_STOP_EARLY", 12)
    assert model.fit(paths, Y).validation_loss_curve_.shape == (1,)
    of_one_pair = np.column_stack([Y, np.full(12, "motif")])
    assert model.fit(paths, Y, of_one_pair).validation_loss_curve_ is None


def test_pairs_are_held_out_as_a_whole_and_every_class_keeps_images(rng):
    codes = rng.integers(0, 4, 400)
    pair = rng.integers(0, 150, 400)
    groups = np.column_stack([np.full(400, "g"), pair.astype(str)])
    unit = pair_units(groups, 400)
    train, held_out = hold_out_pairs(codes, unit, 0.2, np.random.RandomState(0))
    assert sorted([*train, *held_out]) == list(range(400))
    assert not set(pair[train]) & set(pair[held_out])
    shares = np.bincount(codes[held_out]) / np.bincount(codes)
    assert (shares > 0.15).all() and (shares < 0.21).all()
    train, held_out = hold_out_pairs(
        np.array([0, 0, 1]), np.arange(3), 0.9, np.random.RandomState(0)
    )
    assert len(held_out) == 1 and held_out[0] < 2


OVER = '{"loss": [0.5], "is_over": true}'
BROKEN_OFF = {"max_iter": 5, "batch_size": 5, "early_stopping": True}


@pytest.mark.parametrize(
    ("train", "augment"), [*((mode, False) for mode in MODES), ("blocks", True)]
)
def test_training_that_was_broken_off_ends_with_the_same_weights(
    train, augment, tiny_clip, paths, tmp_path, monkeypatch
):
    params = BROKEN_OFF | {"train": train, "augment": augment, "class_vectors": "text"}
    whole = tuner(tiny_clip, **params).fit(paths, Y)
    model = tuner(tiny_clip, **params, checkpoint_dir=tmp_path / "kept")

    def interrupted(run, epoch, visit=fine_tuning._Run._visit):
        if epoch == 2:
            raise KeyboardInterrupt
        return visit(run, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(fine_tuning._Run, "_visit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(paths, Y)
    assert whole.loss_curve_.max() > 0.01
    assert same_state(model.fit(paths, Y), whole)
    # Finished training is answered from its file, other training has its own.
    (file,) = (tmp_path / "kept").iterdir()
    finished = file.stat().st_mtime_ns
    assert same_state(clone(model).fit(paths, Y), whole)
    assert file.stat().st_mtime_ns == finished
    model.set_params(max_iter=1).fit(paths, Y)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_killed_process_is_taken_up_by_another(tiny_clip, paths, tmp_path):
    program = f"""
import os, torch
torch.set_num_threads(1)
from sklearn_clipsid import CLIPEmbedder, CLIPFineTuneClassifier
from sklearn_clipsid._clip import _fine_tuning

def killed_in_the_third_epoch(run, epoch, visit=_fine_tuning._Run._visit):
    if epoch == 2:
        run.on_batch = lambda n_images: os._exit(9)
    return visit(run, epoch)

_fine_tuning._Run._visit = killed_in_the_third_epoch
CLIPFineTuneClassifier(
    CLIPEmbedder({tiny_clip!r}, {tiny_clip!r}), **{BROKEN_OFF!r}, random_state=0,
    class_vectors="means", logit_scale=10, checkpoint_dir={str(tmp_path)!r},
).fit({paths.tolist()!r}, {Y.tolist()!r})
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], timeout=300, check=False
    )
    assert done.returncode == 9
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    model = tuner(tiny_clip, **BROKEN_OFF, checkpoint_dir=tmp_path).fit(paths, Y)
    assert same_state(model, tuner(tiny_clip, **BROKEN_OFF).fit(paths, Y))
    assert [file] == list(tmp_path.iterdir()) and file.read_bytes() != before


def test_only_the_very_same_training_is_taken_up(
    tiny_clip, paths, tmp_path, write_tiny_clip
):
    model = tuner(tiny_clip, train="head", max_iter=1, checkpoint_dir=tmp_path / "kept")
    other = write_tiny_clip(tmp_path / "other", seed=1)
    stopping = {"early_stopping": True, "validation_fraction": 0.25}
    trainings = [
        (model, paths, Y),
        (model, np.roll(paths, 1), Y),
        (model, paths, np.roll(Y, 1)),
        (clone(model).set_params(random_state=1), paths, Y),
        (clone(model).set_params(class_weight={"SD": 2}), paths, Y),
        (clone(model).set_params(augment=True), paths, Y),
        (clone(model).set_params(**stopping), paths, Y),
        (clone(model).set_params(embedder=CLIPEmbedder(other, other)), paths, Y),
    ]
    for n_files, (one, images, labels) in enumerate(trainings, start=1):
        one.fit(images, labels)
        assert len(list((tmp_path / "kept").iterdir())) == n_files
    # What decides nothing, and numbers of NumPy, make no other training.
    same = clone(model).set_params(
        verbose=True, n_blocks=1, max_iter=np.int64(1), alpha=np.float64(0.01)
    )
    assert same_state(same.fit(paths, Y), model.fit(paths, Y))
    assert len(list((tmp_path / "kept").iterdir())) == len(trainings)


def test_a_fit_that_was_broken_off_leaves_no_half_of_a_model(
    tiny_clip, paths, monkeypatch
):
    model = tuner(tiny_clip, train="head", max_iter=1).fit(paths, Y)

    def interrupted(run, epoch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fine_tuning._Run, "_visit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(paths, np.where(Y == "GAN", "FLUX", Y))
    with pytest.raises(NotFittedError):
        model.predict(paths)
    model.partial_fit(paths, Y, classes=np.unique(Y))
    assert model.classes_.tolist() == ["GAN", "SD", "real"]


def test_a_damaged_checkpoint_is_named(tiny_clip, paths, tmp_path):
    from safetensors.numpy import load_file, save_file

    model = tuner(tiny_clip, train="head", max_iter=1, checkpoint_dir=tmp_path)
    model.fit(paths, Y)
    (file,) = tmp_path.iterdir()
    with_nan = load_file(file)
    with_nan["kept class_vectors"][0, 0] = np.nan
    for damage in (
        lambda: file.write_bytes(b"no checkpoint"),
        lambda: save_file({"now x": np.zeros(1)}, file, {"history": "{}"}),
        lambda: save_file({"now x": np.zeros(1)}, file, {"history": OVER}),
        lambda: save_file({"kept log_scale": np.zeros(1)}, file, {"history": OVER}),
        lambda: save_file(with_nan, file, {"history": OVER}),
    ):
        damage()
        with pytest.raises(ValueError, match=r"cannot be read .* delete it to start"):
            model.fit(paths, Y)


@pytest.mark.parametrize(
    ("bad", "named", "kept"),
    [
        (
            2,
            r"Got a loss of nan .* in batch 2 of 3 of epoch 1 \('.*png' at",
            "the start",
        ),
        (4, "Got a loss of nan and a scale of .* after epoch 1", "the start"),
        (6, "in batch 2 of 3 of epoch 2", "that after epoch 1"),
    ],
)
def test_a_loss_that_is_not_finite_ends_training_with_the_last_sound_state(
    bad, named, kept, tiny_clip, paths, tmp_path, monkeypatch
):
    calls, loss = [], CosineModel.loss

    def failing(*args):  # three batches of an epoch, and a look at its end
        calls.append(len(calls) + 1)
        return loss(*args) * (np.nan if calls[-1] == bad else 1)

    start = tuner(tiny_clip, **STILL).fit(paths, Y)
    model = tuner(tiny_clip, batch_size=5, max_iter=3, checkpoint_dir=tmp_path)
    monkeypatch.setattr(CosineModel, "loss", failing)
    with pytest.warns(ConvergenceWarning, match=f"{named}.*state kept is {kept}"):
        model.fit(paths, Y)
    assert calls[-1] == bad
    is_start = np.array_equal(model.tensors_["proj"], start.tensors_["proj"])
    assert is_start == (kept == "the start")
    assert model.n_iter_ == (0 if is_start else 1)
    assert np.isfinite(model.predict_proba(paths)).all()
    # It is not remembered: the next training goes on.
    assert model.fit(paths, Y).n_iter_ == 3


def test_a_call_of_partial_fit_that_fails_changes_nothing(
    tiny_clip, paths, monkeypatch
):
    model = tuner(tiny_clip, batch_size=5, max_iter=2).fit(paths, Y)
    before = {name: array.copy() for name, array in model.tensors_.items()}
    monkeypatch.setattr(CosineModel, "loss", lambda *_: model_loss_of_nan())
    with pytest.warns(
        ConvergenceWarning, match="of epoch 3 .* state kept is that before this call"
    ):
        model.partial_fit(paths, Y)
    assert all((before[name] == model.tensors_[name]).all() for name in before)
    assert model.n_iter_ == 2


def model_loss_of_nan():
    import torch

    return torch.tensor(np.nan, requires_grad=True)


@pytest.mark.parametrize("class_vectors", ["means", "text"])
@pytest.mark.parametrize("train", MODES)
def test_partial_fit_goes_on_where_it_was(train, class_vectors, tiny_clip, paths):
    model = tuner(
        tiny_clip,
        train=train,
        class_vectors=class_vectors,
        logit_scale=10,
        learning_rate_init=1e-3,
        head_learning_rate_init=1e-2,
    )
    model.partial_fit(paths, Y, classes=np.unique(Y))
    for _ in range(29):
        model.partial_fit(paths[::-1], Y[::-1])
    assert model.n_iter_ == len(model.loss_curve_) == 30
    assert model.loss_curve_[-1] < model.loss_curve_[0] / 2
    assert model.score(paths, Y) == 1
    before = {name: array.copy() for name, array in model.tensors_.items()}
    model.partial_fit(paths[:4], Y[:4])  # of one class
    assert all((before[name] != array).any() for name, array in model.tensors_.items())


# Files -------------------------------------------------------------------------------


def test_saved_models_predict_the_same_elsewhere_and_not_with_other_weights(
    tmp_path, write_tiny_clip, paths
):
    name = write_tiny_clip(tmp_path / "base")
    other = write_tiny_clip(tmp_path / "other", seed=1)
    for train in MODES:
        model = tuner(name, train=train, max_iter=2, checkpoint_dir=tmp_path / "kept")
        model.fit(paths, Y)
        dump(model, tmp_path / f"{train}.skops")
        np.save(tmp_path / f"{train}.npy", model.predict_proba(paths))
    program = f"""
import numpy as np, torch
torch.set_num_threads(1)
from sklearn_clipsid.persistence import load

paths = {paths.tolist()!r}
for train in {MODES!r}:
    file = f"{tmp_path}/{{train}}.skops"
    model = load(file, pretrained={name!r})
    proba = np.load(f"{tmp_path}/{{train}}.npy")
    assert (model.predict_proba(paths) == proba).all(), train
    assert model.checkpoint_dir is None
    model.partial_fit(paths[:4], {Y[:4].tolist()!r})
    try:
        load(file, pretrained={other!r}).predict(paths)
    except ValueError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Got an encoder that is not the one") == len(MODES)
    assert "weights" in done.stdout


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"class_vectors_": np.full((3, 32), np.nan, np.float32)}, "not all finite"),
        ({"class_vectors_": np.zeros((2, 32), np.float32)}, "one vector for each"),
        ({"logit_scale_": -1.0}, "a positive number"),
        ({"tensors_": {"proj": "code"}}, "Got proj of dtype <U4"),
        ({"tensors_": None}, "tensors_ of NoneType but expected"),
        ({"classes_": np.array(["a", "a", "b"])}, "expected sorted and distinct"),
        ({"captions_": "code"}, "a caption for each"),
        ({"embedder_": "code"}, "a CLIPEmbedder in embedder_"),
    ],
    ids=str,
)
def test_a_state_that_no_fit_can_have_made_is_refused(
    attributes, problem, tiny_clip, paths
):
    model = tuner(tiny_clip, **STILL).fit(paths, Y)
    state = model.__getstate__() | attributes
    with pytest.raises(ValueError, match=problem):
        CLIPFineTuneClassifier().__setstate__(state)


@pytest.mark.real_clip
@pytest.mark.parametrize("train", ["blocks", "lora"])
def test_a_saved_vit_is_under_60_megabytes(train, demo_encoder, paths, tmp_path):
    embedder = CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder), precision="bf16")
    model = CLIPFineTuneClassifier(embedder, train=train, max_iter=1, random_state=0)
    model.fit(paths[::4], Y[::4])
    dump(model, tmp_path / "model.skops")
    assert (tmp_path / "model.skops").stat().st_size < 60e6
    assert sum(a.nbytes for a in model.tensors_.values()) < 60e6


# Manners -----------------------------------------------------------------------------


def test_it_has_the_manners_of_scikit_learn(tiny_clip, paths):
    model = tuner(tiny_clip, {"precision": "bf16"}, train="lora", lora_rank=3)
    twin = clone(model)
    assert twin.get_params()["embedder__precision"] == "bf16"
    assert twin.get_params()["lora_rank"] == 3 and not hasattr(twin, "embedder_")
    with pytest.raises(NotFittedError):
        twin.predict(paths)
    model.set_params(**STILL).fit(list(paths), Y.tolist())
    assert not hasattr(model, "n_features_in_")
    assert not hasattr(model.embedder, "fingerprint_")
    assert model.classes_.tolist() == ["GAN", "SD", "real"]


def test_a_view_of_progress_is_drawn_on_demand(tiny_clip, paths, capsys):
    tuner(tiny_clip, train="head", max_iter=3, verbose=True).fit(paths, Y)
    assert re.search(r"training, head: 100%.*36/36", capsys.readouterr().err)


def refused(model, paths, y, groups=None, match=""):
    with pytest.raises(ValueError, match=match):
        model.fit(paths, y, groups)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"caption": "a photo"}, r"Got caption='a photo' but expected '\{label\}'"),
        ({"train": "lora", "lora_rank": 65}, "Got lora_rank=65 .* expected at most 64"),
        ({"logit_scale": 1e60}, "The 'logit_scale' parameter"),
        ({"checkpoint_dir": __file__}, "Got checkpoint_dir=.* which cannot be made"),
        ({"n_blocks": 4}, "Got n_blocks=4 for tiny-clip but expected at most 3"),
        ({"real_label": "photo"}, r"Got real_label='photo' but expected one of"),
        ({"class_weight": {"SD": -1}}, "expected finite weights of at least 0"),
        ({"class_weight": {"SD": np.nan}}, "expected finite weights of at least 0"),
        (
            {"checkpoint_dir": "kept", "random_state": None},
            "Got random_state=None with a checkpoint_dir",
        ),
        ({"train": "half"}, "The 'train' parameter"),
        ({"embedder__features": 2}, "Got an embedder with features=2"),
        ({"embedder__on_error": "nan"}, "Got an embedder with on_error='nan'"),
        ({"embedder__precision": "fp16"}, "Got precision='fp16' of the embedder"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_refused(params, match, tiny_clip, paths):
    refused(tuner(tiny_clip).set_params(**params), paths, Y, match=match)


def test_data_that_do_not_fit_are_refused(tiny_clip, paths, tmp_path):
    model = tuner(tiny_clip)
    refused(model, paths, Y[:5], match="Got y with 5 rows but expected 12")
    refused(model, paths, np.full(12, "SD"), match="Got only one class")
    refused(model, paths[0], Y, match="Got one str")
    refused(model, paths, None, match="the target y is None")
    mixed = np.array([*Y[:10], 1, None], dtype=object)
    refused(model, paths, mixed, match=r"texts and other labels in row\(s\) 10, 11")
    refused(model, paths, Y, [["a", "b"]] * 3, match="Got groups with 3 rows")
    refused(model, paths, Y, Y, match="Got groups of one column, which name no pairs")
    of_one_pair = np.column_stack([Y, np.full(12, "motif")])
    stopping = clone(model).set_params(early_stopping=True)
    refused(stopping, paths, Y, of_one_pair, match="no pair can be held out")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for augment in (False, True):
        model.set_params(augment=augment, batch_size=4)
        images = [*paths[:11], str(broken)]
        refused(model, images, Y, match=r"at index 11, .*broken.png.* remove it\.$")


def test_labels_that_are_not_known_are_refused(tiny_clip, paths):
    model = tuner(tiny_clip, train="head", max_iter=1)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(paths, Y)
    with pytest.raises(ValueError, match=r"Got no image of \['real'\] but expected"):
        model.partial_fit(paths[:8], Y[:8], classes=np.unique(Y))
    model.fit(paths, Y)
    with pytest.raises(ValueError, match=r"Got the labels \['FLUX'\] but expected"):
        model.partial_fit(paths, np.where(Y == "SD", "FLUX", Y))
    model = tuner(tiny_clip, train="head", max_iter=1).fit(paths[:8], Y[:8])
    with pytest.raises(ValueError, match=r"Got real_label=None but expected one of"):
        model.predict_synthetic_proba(paths)


def test_a_text_tower_that_is_not_there_is_refused(image_tower_alone, paths):
    model = tuner(image_tower_alone, class_vectors="text")
    refused(model, paths, Y, match="Got class_vectors='text' for .* no text tower")
    model = tuner(image_tower_alone, class_vectors="auto", train="all", **STILL)
    assert not any(n.startswith("text.") for n in model.fit(paths, Y).tensors_)


def test_a_tower_that_is_cut_elsewhere_is_refused(tmp_path, write_tiny_clip, paths):
    from conftest import TINY_CONFIG

    vision = TINY_CONFIG["vision_cfg"] | {"pool_type": "avg"}
    name = write_tiny_clip(tmp_path / "m", config=TINY_CONFIG | {"vision_cfg": vision})
    for train in ("blocks", "lora", "all"):
        refused(tuner(name, train=train), paths, Y, match="pools its tokens, but exp")
    tuner(name, {"features": "projected"}, train="head", **STILL).fit(paths, Y)


@pytest.mark.parametrize(
    "changed", [{"train": "head"}, {"train": "lora"}, {"train": "all"}, {"n_blocks": 1}]
)
def test_parameters_that_were_changed_after_fitting_are_noticed(
    changed, tiny_clip, paths
):
    model = tuner(tiny_clip, n_blocks=2, **STILL).fit(paths, Y).set_params(**changed)
    for call in (model.predict, model.embed, lambda X: model.partial_fit(X, Y)):
        with pytest.raises(ValueError, match=r"set train, n_blocks and lora_rank as"):
            call(paths)


def test_a_text_tower_is_trained_from_the_first_call_or_never(tiny_clip, paths):
    model = tuner(tiny_clip, train="all", class_vectors="text", **STILL).fit(paths, Y)
    with pytest.raises(
        ValueError, match=r"Got class_vectors='means' but expected what"
    ):
        model.set_params(class_vectors="means").partial_fit(paths, Y)


def test_captions_that_are_one_to_the_text_tower_are_refused(tiny_clip, paths):
    y = np.where(Y == "GAN", "sd", Y)
    for train in ("head", "all"):
        model = tuner(tiny_clip, train=train, class_vectors="text")
        refused(model, paths, y, match="'a photo from SD' and 'a photo from sd', which")
    tuner(tiny_clip, train="head", max_iter=1).fit(paths, y)


def test_a_scale_that_has_vanished_ends_training(tiny_clip, paths):
    params = {"head_learning_rate_init": 1e3, "logit_scale": 1e3}
    model = tuner(tiny_clip, train="head", class_vectors="text", **params)
    with pytest.warns(ConvergenceWarning, match=r"a scale of the cosines of 0 after"):
        model.fit(paths, Y)
    assert model.logit_scale_ == pytest.approx(1e3)


def test_a_checkpoint_that_cannot_be_written_is_named(
    tiny_clip, paths, tmp_path, monkeypatch
):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fine_tuning.os, "replace", full)
    model = tuner(tiny_clip, train="head", max_iter=1, checkpoint_dir=tmp_path)
    with pytest.raises(
        OSError, match=r"Could not write the checkpoint .* No space left"
    ):
        model.fit(paths, Y)
    assert not list(tmp_path.iterdir())


def test_braces_of_a_caption_are_what_they_are(tiny_clip, paths):
    model = tuner(tiny_clip, train="head", caption="{x} by {label} {label.upper}")
    assert model.fit(paths, Y).captions_[0] == "{x} by GAN {label.upper}"


def test_the_head_alone_reads_the_cache_of_its_embedder(tiny_clip, paths, tmp_path):
    cached = {"features": "projected", "cache_dir": tmp_path}
    embedder = CLIPEmbedder(tiny_clip, tiny_clip, **cached)
    embedder.fit_transform(paths)
    model = tuner(tiny_clip, cached, train="head", max_iter=1).fit(paths, Y)
    model.predict(paths)
    info = embedder.cache_info()
    assert (info.misses, info.rows) == (12, 12) and info.hits >= 24


def test_values_that_float16_cannot_hold_are_named(tmp_path, write_tiny_clip, paths):
    from conftest import TINY_CONFIG
    from safetensors.torch import load_file, save_file

    vision = TINY_CONFIG["vision_cfg"] | {"no_ln_pre": True}
    name = write_tiny_clip(tmp_path / "m", config=TINY_CONFIG | {"vision_cfg": vision})
    file = tmp_path / "m" / "open_clip_model.safetensors"
    tensors = load_file(file)
    tensors["visual.conv1.weight"] *= 1e8
    save_file(tensors, file)
    refused(
        tuner(name, {"precision": "bf16"}), paths, Y, match="float16 ends at 65504; set"
    )
    tuner(name, **STILL).fit(paths, Y)
