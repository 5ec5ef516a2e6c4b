"""Compare embedding with an empty and a filled cache, in one process and in several."""

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from fresh_process import FreshProcess, add_step_options
from image_options import embedder_options, image_parser, list_images
from machine import describe_machine

GRID = {"orthogonallineardetector__n_components": [1, 2, 4, 8]}
N_FOLDS, N_GRID, N_SHARED, N_PROCESSES = 5, 300, 500, 4


def run_step(options):
    """Do one step in this process, which is fresh, and print what was measured."""
    started = time.perf_counter()
    from sklearn_clipsid import CLIPEmbedder

    paths = list_images(options.images, options.n_images)
    embedder = CLIPEmbedder(cache_dir=options.cache_dir, **embedder_options(options))
    seconds = {"import": time.perf_counter() - started}

    def timed(step, function, *arguments):
        start = time.perf_counter()
        result = function(*arguments)
        seconds.setdefault(step, []).append(time.perf_counter() - start)
        return result

    if options.step == "grid":
        timed("grid", search, embedder, paths, int(options.jobs))
    elif options.step == "cold":
        embedder.fit(paths)  # builds the model, which is not timed
        rows = timed("cold", embedder.transform, paths)
        for _ in range(options.rounds):
            assert np.array_equal(timed("warm", embedder.transform, paths), rows)
        seconds["rows"] = hashlib.sha256(rows).hexdigest()
    else:
        rows = timed("warm", embedder.fit_transform, paths)
        assert "torch" not in sys.modules
        seconds["rows"] = hashlib.sha256(rows).hexdigest()
    print(json.dumps({**seconds, **embedder.cache_info()._asdict()}))


def search(embedder, paths, n_jobs):
    """Search over a detector behind the embedder; labels do not matter here."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    from sklearn_clipsid import OrthogonalLinearDetector

    pipe = make_pipeline(embedder, OrthogonalLinearDetector(random_state=0))
    y = np.arange(len(paths)) % 2
    return GridSearchCV(pipe, GRID, cv=N_FOLDS, n_jobs=n_jobs).fit(paths, y)


def compare_cold_and_warm(folder, rounds):
    """Print how many times as fast a filled cache is, here and in a new process."""
    cold = FreshProcess("cold", cache_dir=folder).result()
    fresh = [FreshProcess("warm", cache_dir=folder).result() for _ in range(rounds)]
    assert {result["rows"] for result in fresh} == {cold["rows"]}
    n_images = cold["misses"]
    first, warm = cold["cold"][0], np.median(cold["warm"])
    call = np.median([result["warm"] for result in fresh])
    whole = np.median([result["whole"] for result in fresh])
    n_bytes = sum(file.stat().st_size for file in Path(folder).iterdir())
    print(f"{n_images} images embedded, empty cache: {first:.1f} s")
    for title, seconds in (
        ("filled, same process", warm),
        ("filled, fresh process, the call", call),
        ("filled, fresh process as a whole", whole),
    ):
        print(f"{title:<34}{seconds:9.3f} s{first / seconds:10.0f} times as fast")
    print(f"{n_images / warm:.0f} rows/s; {n_bytes / n_images:.0f} bytes per image")


def count_in_a_search(folder, n_images):
    """Print how many images a grid search asks for, and how many it embeds."""
    (candidates,) = GRID.values()
    title = f"{len(candidates)} x {N_FOLDS} grid, {n_images} images"
    print(f"{title:<34}{'asked for':>10}{'embedded':>10}{'seconds':>9}")
    counts = {None: (0, 0), "one": (0, 0), "two": (0, 0)}  # so far, of each cache
    for name, cache, n_jobs in (
        ("memory of the process", None, 1),
        ("cache_dir, empty", "one", 1),
        ("cache_dir, filled", "one", 1),
        ("cache_dir, empty, two processes", "two", 2),
    ):
        found = FreshProcess(
            "grid",
            cache_dir=cache and f"{folder}/{cache}",
            jobs=n_jobs,
            n_images=n_images,
        ).result()
        hits, embedded = np.subtract((found["hits"], found["misses"]), counts[cache])
        counts[cache] = found["hits"], found["misses"]
        seconds = found["grid"][0]
        print(f"{name:<34}{hits + embedded:>10}{embedded:>10}{seconds:>9.1f}")


def share(folder, n_images):
    """Print how many images processes embed that start on one cache at once."""
    counts = []
    for step in ("cold", "warm"):
        options = {"cache_dir": folder, "n_images": n_images, "rounds": 1}
        steps = [FreshProcess(step, **options) for _ in range(N_PROCESSES)]
        counts.append(max(step.result()["misses"] for step in steps))
    embedded, later = counts
    print(
        f"{N_PROCESSES} processes at once, the same {n_images} images: {embedded} "
        f"embedded, and {later - embedded} when they come again"
    )


def main():
    """Run all steps, each with a cache of its own, and print the ratios."""
    parser = image_parser(__doc__, n_images=712)
    parser.add_argument("--rounds", type=int, default=5)
    add_step_options(parser, "--cache-dir", "--jobs")
    options = parser.parse_args()
    if options.step:
        return run_step(options)
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        compare_cold_and_warm(f"{folder}/cold", options.rounds)
        count_in_a_search(f"{folder}/grid", min(options.n_images, N_GRID))
        share(f"{folder}/shared", min(options.n_images, N_SHARED))


if __name__ == "__main__":
    main()
