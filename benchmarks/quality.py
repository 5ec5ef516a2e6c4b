"""Score how far photographs are degraded, on photographs that were held out.

python benchmarks/quality.py MANIFEST.csv
"""

import io
import time

import numpy as np
from image_options import embedder_options, image_parser
from machine import describe_machine
from PIL import Image, ImageFilter, ImageOps
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_clipsid import CLIPEmbedder, CLIPQualityRegressor
from sklearn_clipsid.datasets import load_image_folder
from sklearn_clipsid.metrics import krcc_score, plcc_score, srcc_score

SIDE = 256  # pixels; degraded there, so that the encoder sees it
N_SEVERITIES = 10
SMALL = ("FFHQ-256",)  # aligned faces of SIDE pixels


def blurred(image, severity):
    """Blur with a Gaussian of .5 to 3.7 pixels."""
    return image.filter(ImageFilter.GaussianBlur(0.5 * 1.25 ** (severity - 1)))


def noisy(image, severity, rng):
    """Add Gaussian noise of a standard deviation of 3 to 62 grey levels."""
    pixels = np.asarray(image, dtype=float)
    pixels = pixels + rng.normal(scale=3 * 1.4 ** (severity - 1), size=pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def compressed(image, severity):
    """Compress as JPEG of quality 80 to 4."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=round(80 * 0.72 ** (severity - 1)))
    return Image.open(stream).convert("RGB")


def sampled_down(image, severity):
    """Scale down by a factor of 1.2 to 6.2, and up again."""
    side = round(SIDE / 1.2**severity)
    return image.resize((side, side), Image.BICUBIC).resize(image.size, Image.BICUBIC)


KINDS = {
    "blur": lambda image, severity, rng: blurred(image, severity),
    "noise": noisy,
    "JPEG": lambda image, severity, rng: compressed(image, severity),
    "down-sampling": lambda image, severity, rng: sampled_down(image, severity),
}


def pick_photographs(data, n_photographs):
    """Return rows of photographs at random; fewer are the first of more."""
    rows = np.flatnonzero((data.target == 0) & ~np.isin(data.generator, SMALL))
    return np.random.default_rng(0).permutation(rows)[:n_photographs]


def degrade(paths):
    """Return images as arrays, with the severity, the kind and the photograph."""
    images, severities, kinds, photographs = [], [], [], []
    for number, path in enumerate(paths):
        whole = Image.open(path).convert("RGB")
        image = ImageOps.fit(whole, (SIDE, SIDE), Image.BICUBIC)
        rng = np.random.default_rng(number)
        for kind, function in KINDS.items():
            for severity in range(1, N_SEVERITIES + 1):
                images.append(np.asarray(function(image, severity, rng)))
                severities.append(severity)
                kinds.append(kind)
                photographs.append(number)
    return images, np.array(severities, float), np.array(kinds), np.array(photographs)


def best_ridge(model, name, X, y, photographs):
    """Return ridge regression of the strength that unseen photographs prefer."""
    search = GridSearchCV(
        model,
        {f"{name}alpha": np.logspace(-3, 4, 15)},
        cv=GroupKFold(5),
        scoring="neg_mean_squared_error",
    )
    return search.fit(X, y, groups=photographs)


def print_row(name, predicted, y, kinds, seconds):
    """Print the correlations of one model, and those within each kind."""
    whole = [metric(y, predicted) for metric in (plcc_score, srcc_score, krcc_score)]
    within = [srcc_score(y[kinds == kind], predicted[kinds == kind]) for kind in KINDS]
    cells = " | ".join(f"{value:.3f}" for value in (*whole, *within))
    print(f"| {name} | {cells} | {seconds:.0f} |", flush=True)


def main():
    """Fit on two thirds of the photographs, and print a table of the others."""
    parser = image_parser(__doc__, n_images=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache-dir", default="build/benchmark_cache")
    options = parser.parse_args()
    data = load_image_folder(options.images)
    rows = pick_photographs(data, options.n_images)
    images, y, kinds, photographs = degrade(data.data[rows])
    embedder = CLIPEmbedder(
        **embedder_options(options),
        features="projected",
        normalize=True,
        cache_dir=options.cache_dir,
        verbose=True,
    )
    X = embedder.fit_transform(images).astype(float)
    n_train = len(rows) * 2 // 3
    train, test = photographs < n_train, photographs >= n_train
    seen = X[train], y[train], photographs[train]
    print(describe_machine())
    print(f"{n_train} photographs to train on, {len(rows) - n_train} held out")
    print("| | PLCC | SRCC | KRCC | " + " | ".join(KINDS) + " | seconds |")
    print("|---|" + "--:|" * (len(KINDS) + 4))
    scaled = make_pipeline(StandardScaler(), Ridge())
    for name, model, prefix in (
        ("ridge regression", Ridge(), ""),
        ("the same, standardised", scaled, "ridge__"),
    ):
        start = time.perf_counter()
        model = best_ridge(model, prefix, *seen)
        seconds = time.perf_counter() - start
        print_row(name, model.predict(X[test]), y[test], kinds[test], seconds)
    fits = [(n, seed) for n in (64, 512) for seed in range(options.seeds)]
    for n_hidden, seed in fits:
        model = CLIPQualityRegressor(embedder, n_hidden=n_hidden, random_state=seed)
        start = time.perf_counter()
        # The images, not the rows: they are answered from the cache.
        model.fit([images[i] for i in np.flatnonzero(train)], *seen[1:])
        seconds = time.perf_counter() - start
        predicted = model.predict([images[i] for i in np.flatnonzero(test)])
        name = f"{n_hidden} hidden units, seed {seed}"
        print_row(name, predicted, y[test], kinds[test], seconds)


if __name__ == "__main__":
    main()
