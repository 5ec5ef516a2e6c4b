"""Find the leaks of a data set, remove them, and count how often noise seems to leak.

python benchmarks/leaks.py my_images/manifest.csv

Reports are printed for the images and for their equalised copies, with three choices of
groups. Then come the differences between the hashes of images and of their copies, and
the share of cues of pure noise that the audit takes for leaks.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from joblib import Parallel, delayed
from machine import describe_machine
from PIL import Image, ImageOps

from sklearn_clipsid._clip import LOOK_BITS, read_file_facts
from sklearn_clipsid.datasets import equalize_images, leak_audit, load_image_folder
from sklearn_clipsid.datasets._cue_auc import bootstrap_aucs, cross_validate
from sklearn_clipsid.datasets._leak_audit import LEAK_AUC, _assign_folds
from sklearn_clipsid.datasets._near_duplicates import MAX_DIFFERENCE, _unit_signs

# Images of each class, and of each group, which share most of the noise; folds.
DESIGNS = {
    "10 + 10 images": (10, 1, 5),
    "25 + 25 images": (25, 1, 5),
    "50 + 50 images": (50, 1, 5),
    "200 + 200 images": (200, 1, 5),
    "8 sources + 8 generators, 6 images each": (48, 6, 4),
}


def main():
    """Print the reports and the two checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", help="CSV file with path, label and generator")
    parser.add_argument("--noise-audits", type=int, default=200, help="of each design")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print(describe_machine())
    images = load_image_folder(options.manifest)
    with TemporaryDirectory() as folder:
        copies = equalize_images(images.data, folder, n_jobs=options.jobs)
        compare_groups(images, images.data, "the images", options.jobs)
        compare_groups(images, copies, "their equalised copies", options.jobs)
    compare_hashes(images)
    count_false_leaks(options.noise_audits, options.jobs)


def compare_groups(images, paths, what, n_jobs):
    """Print the verdicts on the same files with three choices of groups."""
    choices = {
        "None": None,
        "pair_id": images.pair_id,
        "generator": images.generator,
    }
    reports = [
        leak_audit(paths, images.target, groups, random_state=0, n_jobs=n_jobs)
        for groups in choices.values()
    ]
    n_found = len(reports[1].near_duplicates)
    n_paired = reports[1].near_duplicates["same_group"].sum()
    print(f"\n{what}, groups=\n{'':20}" + "".join(f"{name:28}" for name in choices))
    for rows in zip(*(report.table for report in reports)):
        cells = (
            f"{row['auc']:.2f} ({row['low']:.2f} to {row['high']:.2f}) "
            f"{row['verdict']:8}"
            for row in rows
        )
        print(f"{rows[0]['cue']:20}" + "".join(cells) + rows[0]["saw"])
    print(f"near-duplicates: {n_found}, {n_paired} of the same pair_id")


def compare_hashes(images):
    """Print how far the hashes of copies and of unrelated images differ."""
    looks = [read_file_facts(path).look for path in images.data]
    kept = np.array([look != b"" for look in looks])
    signs = _unit_signs(looks, np.flatnonzero(kept), LOOK_BITS)
    print(f"\nDifference of hashes, {MAX_DIFFERENCE} at most for near-duplicates")
    for name, change in {
        "half the size": lambda image: (half(image), {"quality": 95}),
        "JPEG of quality 20": lambda image: (image, {"quality": 20}),
        "half the size, quality 50": lambda image: (half(image), {"quality": 50}),
    }.items():
        copies = [look_of_copy(path, change) for path in images.data[kept]]
        copied = np.array([look != b"" for look in copies])
        of_copies = _unit_signs(copies, np.flatnonzero(copied), LOOK_BITS)
        difference = (1 - (signs[copied] * of_copies).sum(axis=1)) / 2
        print(
            f"{len(difference)} copies of {name}: median {np.median(difference):.3f}, "
            f"largest {difference.max():.3f}"
        )
    _, pair = np.unique(images.pair_id[kept], return_inverse=True)
    apart = pair[:, None] != pair
    difference = np.sort(((1 - signs @ signs.T) / 2)[np.triu(apart)])
    nearest = ", ".join(f"{value:.3f}" for value in difference[:5])
    print(f"{len(difference)} pairs of other images: smallest {nearest}")


def half(image):
    """Scale an image down."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)))


def look_of_copy(path, change):
    """Return the hash of a changed copy."""
    with TemporaryDirectory() as folder, Image.open(path) as image:
        changed, saved = change(ImageOps.exif_transpose(image).convert("RGB"))
        copy = Path(folder, "copy.jpg")
        changed.save(copy, **saved)
        return read_file_facts(copy).look


def count_false_leaks(n_audits, n_jobs):
    """Print how often cues of noise are found to leak."""
    print(f"\nShare of {n_audits} audits in which noise leaks")
    for name, design in DESIGNS.items():
        lows = np.array(
            Parallel(n_jobs=n_jobs)(
                delayed(lower_bounds_of_noise)(*design, seed)
                for seed in range(n_audits)
            )
        )
        number, word = (lows > LEAK_AUC).mean(axis=0)
        print(f"{name:42} a number {number:.1%}, a word {word:.1%}", flush=True)


def lower_bounds_of_noise(n_images, n_per_group, cv, seed):
    """Audit a number and a word that have nothing to do with the label."""
    rng = np.random.RandomState(seed)
    positive = np.repeat([False, True], n_images)
    group = np.arange(2 * n_images) // n_per_group
    n_groups = group[-1] + 1
    number = rng.normal(size=n_groups)[group] + 0.3 * rng.normal(size=2 * n_images)
    word = rng.randint(4, size=n_groups)[group]
    cues = {
        "number": {"number": number},
        "word": {f"word {k}": (word == k).astype(float) for k in range(4)},
    }
    fold = _assign_folds(positive, group, n_per_group > 1, cv, rng)
    scores = cross_validate(cues, positive, fold, rng, None)
    aucs = bootstrap_aucs(scores, positive, fold, group, 500, rng)
    return [aucs[name][1] for name in cues]


if __name__ == "__main__":
    main()
