"""Draw the figures of the user guide's page on evaluation, on generators not seen."""

import argparse
import csv
import io
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from embedding_rows import MIN_IMAGES, add_row_options
from machine import describe_machine
from PIL import Image
from sklearn.model_selection import ValidationCurveDisplay, cross_validate
from sklearn.utils import Bunch

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.inspection import CrossDatasetDisplay, GeneratorAPDisplay
from sklearn_clipsid.model_selection import (
    CrossGeneratorSplit,
    LeaveOneGeneratorOut,
    cross_dataset_validate,
)

K = [1, 2, 4, 8, 16]
FAMILIES = {
    "GAN": [
        "StyleGAN-faces-256",
        "StyleGAN-thisrentaldoesnotexist",
        "DALL-E-mini-256",  # autoregressive, but a GAN decodes what it writes
    ],
    "latent diffusion": ["LDM-text2im-256", "GLID-3-XL-256", "SD1.4", "SD1.5", "SD2.1"],
    "modern": ["DALL-E2", "SDXL-RealVisXL3-Turbo", "FLUX.1-dev"],
}
DPI = 130
PROTOCOLS = {"photographs at random": False, "photo source held out": True}


def read_options():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_row_options(parser)
    parser.add_argument("--figures", type=Path, help="folder for the pictures")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


def read_data(options):
    """Return features, labels, generators and pair ids of the larger generators."""
    names = ("target", "generator", "pair_id")
    if options.npz is None:
        sample = load_sample_embeddings(features=options.features)
        X, y, generator, pair_id = sample.data, *(sample[name] for name in names)
    else:
        with np.load(options.npz) as arrays:
            X = arrays[options.features].astype(np.float32)
        with open(options.manifest, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        y = np.array([int(row["label"]) for row in rows])
        generator, pair_id = (np.array([r[name] for r in rows]) for name in names[1:])
    found, counts = np.unique(generator[y == 1], return_counts=True)
    kept = (y == 0) | np.isin(generator, found[counts >= MIN_IMAGES])
    left_out = ", ".join(found[counts < MIN_IMAGES]) or "none"
    print(f"left out, fewer than {MIN_IMAGES} images: {left_out}")
    return X[kept], y[kept], generator[kept], pair_id[kept]


def subplots(n_rows, n_columns, size, **kwargs):
    """Return a figure that keeps its axes apart, and the axes."""
    fig, axes = plt.subplots(
        n_rows, n_columns, figsize=size, layout="constrained", **kwargs
    )
    fig.get_layout_engine().set(h_pad=0.12, w_pad=0.08)
    return fig, axes


def save(picture, path):
    """Write a picture with the few colours that it has, to keep the file small."""
    buffer = io.BytesIO()
    picture.savefig(buffer, dpi=DPI)
    image = Image.open(buffer).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def draw_k(detector, X, y, generator, options):
    """Vary k, with the photographs at random and with their source held out."""
    fig, axes = subplots(1, 2, (8.5, 4.2), sharey=True)
    for ax, (photographs, by_source) in zip(axes, PROTOCOLS.items()):
        display = ValidationCurveDisplay.from_estimator(
            detector,
            X,
            y,
            param_name="n_components",
            param_range=K,
            groups=generator,
            cv=LeaveOneGeneratorOut(hold_out_real_source=by_source),
            scoring="roc_auc",
            n_jobs=options.jobs,
            ax=ax,
            std_display_style=None,
            line_kw={"marker": "o", "linewidth": 2.5, "zorder": 3},
        )
        print(f"k ablation, {photographs}: k, AUC in training, AUC, lowest")
        for k, fitted, auc in zip(K, display.train_scores, display.test_scores):
            print(f"  {k:>2} {fitted.mean():.3f} {auc.mean():.3f} {auc.min():.3f}")
        ax.plot(K, display.test_scores, color="0.6", linewidth=1)
        ax.axhline(0.5, color="black", linestyle=":")
        ax.set_xscale("log", base=2)
        ax.set_xticks(K, K)
        ax.set(title=photographs, xlabel="number of activations k", ylim=(0, 1.03))
        ax.set_ylabel("area under the ROC curve")
        ax.label_outer()
        ax.get_legend().remove()
    lines = [axes[0].lines[j] for j in (0, 1, 2, -1)]
    names = "training, mean", "held-out generator, mean", "held-out generator, each"
    fig.legend(lines, [*names, "random scores"], loc="outside lower center", ncols=4)
    return fig


def draw_hold_out(detector, X, y, generator, pair_id, options):
    """Hold out each generator; draw its average precision in its own fold."""
    fig, axes = subplots(2, 1, (8, 10.6))
    for ax, (photographs, by_source) in zip(axes, PROTOCOLS.items()):
        result = cross_validate(
            detector,
            X,
            y,
            groups=generator,
            cv=LeaveOneGeneratorOut(hold_out_real_source=by_source),
            scoring=["average_precision", "roc_auc"],
            return_estimator=True,
            return_indices=True,
            n_jobs=options.jobs,
        )
        display = GeneratorAPDisplay.from_cv_results(
            result,
            X,
            y,
            generator,
            pair_id=pair_id,
            n_boot=options.draws,
            random_state=0,
            ax=ax,
        )
        ax.set_title(photographs, fontweight="bold")
        print(f"generator hold-out, {photographs}: AP, interval, prevalence, AUC")
        columns = display.average_precision, display.low, display.high
        columns = (*columns, display.prevalence, result["test_roc_auc"])
        for name, *numbers in zip(display.names, *columns):
            print(f"  {name:<32}", *(f"{number:.3f}" for number in numbers))
        numbers = (*display.mean, display.prevalence.mean(), columns[-1].mean())
        print(f"  {'mean':<32}", *(f"{number:.3f}" for number in numbers))
    return fig


def deal_families(X, y, generator, pair_id, by_source):
    """Return one data set per family, with a third of the photographs or of sources."""
    family_of = np.random.default_rng(0).integers(len(FAMILIES), size=len(y))
    if by_source:
        sources, counts = np.unique(generator[y == 0], return_counts=True)
        n_photographs = np.zeros(len(FAMILIES), dtype=int)
        # The largest source first, each to the family with the fewest photographs.
        for j in np.argsort(-counts, kind="stable"):
            family_of[generator == sources[j]] = np.argmin(n_photographs)
            n_photographs[np.argmin(n_photographs)] += counts[j]
    datasets = {}
    for i, (family, generators) in enumerate(FAMILIES.items()):
        rows = np.isin(generator, generators) | ((y == 0) & (family_of == i))
        datasets[family] = Bunch(
            data=X[rows],
            target=y[rows],
            generator=generator[rows],
            pair_id=pair_id[rows],
        )
        found, n = np.unique(generator[rows & (y == 0)], return_counts=True)
        named = ", ".join(f"{name} {count}" for name, count in zip(found, n))
        print(f"  {family}: {y[rows].sum()} synthetic, photographs {named}")
    return datasets


def draw_families(detector, X, y, generator, pair_id, options):
    """Train on each family of generators and test on each."""
    fig, axes = subplots(2, 1, (7.9, 9.2))
    for ax, by_source in zip(axes, (False, True)):
        title = "sources of their own" if by_source else "a third of all, at random"
        print(f"families of generators, photographs: {title}")
        result = cross_dataset_validate(
            detector,
            deal_families(X, y, generator, pair_id, by_source),
            n_boot=options.draws,
            random_state=0,
            n_jobs=options.jobs,
        )
        CrossDatasetDisplay.from_result(result, ax=ax)
        ax.set_title(f"photographs: {title}", fontweight="bold", pad=12)
        for line in result.summary:
            ap, auc = (
                f"{line[s]:.3f} [{line[s + '_low']:.3f}, {line[s + '_high']:.3f}]"
                for s in ("ap", "auc")
            )
            prevalence = f"{line['prevalence']:.2f}"
            print(f"  {line['train']:<16} -> {line['test']:<16}", end=" ")
            print(f"mAP {ap}, prevalence {prevalence}, AUC {auc}")
    return fig


def draw_generators(detector, X, y, generator, pair_id, options):
    """Train on each generator and test on each."""
    scores = cross_validate(
        detector,
        X,
        y,
        groups=np.column_stack([generator, pair_id]),
        cv=CrossGeneratorSplit(),
        scoring="roc_auc",
        n_jobs=options.jobs,
    )["test_score"]
    names = [name for family in FAMILIES.values() for name in family]
    order = np.searchsorted(np.unique(generator[y == 1]), names)
    matrix = scores.reshape(len(names), len(names))[np.ix_(order, order)]
    same = np.eye(len(names), dtype=bool)
    kin = np.repeat(np.arange(len(FAMILIES)), [len(f) for f in FAMILIES.values()])
    kin = (kin[:, None] == kin) & ~same
    print("train on one generator, test on one: AUC, mean and lowest")
    for title, cells in (
        ("the same", same),
        ("of the same family", kin),
        ("of another family", ~kin & ~same),
    ):
        print(f"  {title:<20} {matrix[cells].mean():.3f} {matrix[cells].min():.3f}")
    fig, ax = subplots(1, 1, (10, 7.2))
    CrossDatasetDisplay(
        matrix,
        train_names=names,
        test_names=names,
        score_name="area under the ROC curve",
    ).plot(ax)
    return fig


def main():
    """Print all figures and, with --figures, draw them."""
    options = read_options()
    start = time.perf_counter()
    print(describe_machine())
    X, y, *names = read_data(options)
    print(f"{len(y)} rows, {y.sum()} of them synthetic")
    detector = OrthogonalLinearDetector(random_state=0)
    pictures = {
        "k_ablation": draw_k(detector, X, y, names[0], options),
        "generator_hold_out": draw_hold_out(detector, X, y, *names, options),
        "family_matrix": draw_families(detector, X, y, *names, options),
        "cross_generator": draw_generators(detector, X, y, *names, options),
    }
    if options.figures is not None:
        options.figures.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            save(picture, options.figures / f"{name}.png")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
