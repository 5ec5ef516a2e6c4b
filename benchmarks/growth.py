"""Show how the cache, the shards and a detector on them grow, without any model."""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from fresh_process import FreshProcess, add_step_options
from machine import describe_machine, peak_memory

from sklearn_clipsid import CLIPEmbedder, EmbeddingStore, OrthogonalLinearDetector
from sklearn_clipsid import embed_to_shards as write_shards
from sklearn_clipsid._content_hash import FileSignature, content_hash

# What CLIPEmbedder asks and writes through; rows come from a generator here.
from sklearn_clipsid._embedding_cache import EmbeddingCache
from sklearn_clipsid._embedding_run import Embedded

WIDTH, SETTING = 768, bytes(16)
WRITTEN, ASKED, SLICE = 32, 512, 10_000  # rows at once


class RandomEmbedder(CLIPEmbedder):
    """Draw rows where CLIPEmbedder would compute them; odd ones are synthetic."""

    def fit(self, X, y=None):
        """Pretend to be an encoder."""
        self.fingerprint_ = {"architecture": "random"}
        return self

    def _embed_apart(self, images):
        index = np.array([int(path[-12:-4]) for path in images])
        rows = np.random.default_rng(index[0]).standard_normal((len(index), WIDTH))
        rows[:, :8] += 0.5 * (index % 2)[:, None]
        contents = [content_hash(path.encode()) for path in images]
        return Embedded(rows.astype(np.float32), contents, {}, True)


def paths_of(indices):
    """Name images that do not exist."""
    return [f"/images/{index:08d}.jpg" for index in indices]


def files_of(indices):
    """Return signatures and contents of images that do not exist."""
    return {
        FileSignature(path.encode(), 1, 2, 3, 4): content_hash(path.encode())
        for path in paths_of(indices)
    }


def seconds_for(function, *arguments):
    """Return the seconds that a call took."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def bytes_below(folder):
    """Return the size of all files of a folder."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*.*"))


def grow_cache(n_rows, folder):
    """Write rows as runs do, 32 at once, and ask for some of them, 512 at once."""
    batch = np.random.default_rng(0).random((WRITTEN, WIDTH), dtype=np.float32)
    keep, last = 0.0, max(n_rows - 10_000, 0)  # the last 10,000 rows are timed
    with EmbeddingCache(folder) as cache:
        for start in range(0, n_rows, WRITTEN):
            files = files_of(range(start, min(start + WRITTEN, n_rows)))
            rows = dict(zip(files.values(), batch))
            seconds = seconds_for(cache.keep, SETTING, rows, files)
            keep += seconds if start >= last else 0
    some = np.random.default_rng(1).choice(n_rows, (10, ASKED))
    files = list(map(files_of, some))
    n_asked = sum(map(len, files))
    with EmbeddingCache(folder) as cache:
        known = [seconds_for(cache.contents_of, list(asked)) for asked in files]
        rows = [seconds_for(cache.rows_of, SETTING, asked.values()) for asked in files]
    yield "cache: write 1,000 rows, ms", keep / min(n_rows, 10_000) * 1e6
    yield "cache: recognise 1,000 files, ms", sum(known) / n_asked * 1e6
    yield "cache: read 1,000 rows, ms", sum(rows) / n_asked * 1e6
    yield "cache: bytes per row", bytes_below(folder) / n_rows
    yield "cache: peak memory, MiB", peak_memory() / 2**20


def grow_shards(n_rows, folder):
    """Write shards, and read some of them."""
    paths = paths_of(range(n_rows))
    wrote = seconds_for(write_shards, RandomEmbedder(), paths, folder)
    yield "shards: write 1,000 rows, ms", wrote / n_rows * 1e6
    yield "shards: bytes per row", bytes_below(folder) / n_rows
    yield "shards: peak memory of the caller, MiB", peak_memory() / 2**20


def read_shards(n_rows, folder):
    """Open a store, look rows up, and train on it a slice at a time and at once."""
    yield "store: open, ms", seconds_for(EmbeddingStore, folder) * 1e3
    store, y = EmbeddingStore(folder), np.arange(n_rows) % 2
    some = np.random.default_rng(2).choice(n_rows, 1_000)
    find = seconds_for(store.index_of, paths_of(some))
    yield "store: find 1,000 paths, ms", find * 1e3
    yield "store: take 1,000 rows at random, ms", seconds_for(store.take, some) * 1e3
    slices = [slice(start, start + SLICE) for start in range(0, n_rows, SLICE)]
    model = OrthogonalLinearDetector(random_state=0)
    for name, step in (
        ("take", store.take),
        ("partial_fit", lambda x: model.partial_fit(store.take(x), y[x], [0, 1])),
        ("predict", lambda x: model.predict(store.take(x))),
    ):
        seconds = sum(seconds_for(step, part) for part in slices)
        yield f"store: {name}, slices, 1,000 rows, ms", seconds / n_rows * 1e6
    yield "store: peak memory so far, MiB", peak_memory() / 2**20
    seconds = seconds_for(lambda: model.fit(store.take(slice(None)), y))
    yield "fit: all rows at once, s", seconds
    yield "fit: epochs", model.n_iter_
    yield "fit: peak memory, MiB", peak_memory() / 2**20


STEPS = {"cache": grow_cache, "shards": grow_shards, "store": read_shards}


def main():
    """Run each step for each number of rows in a fresh process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    add_step_options(parser, "--folder")
    options = parser.parse_args()
    if options.step:
        figures = STEPS[options.step](options.rows[0], options.folder)
        return print(json.dumps(dict(figures)))
    print(describe_machine())
    found = {n_rows: {} for n_rows in options.rows}
    for n_rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            for step in STEPS:
                place = f"{folder}/{'cache' if step == 'cache' else 'store'}"
                process = FreshProcess(step, rows=n_rows, folder=place)
                found[n_rows] |= process.result()
    print(f"{'rows of ' + str(WIDTH):<42}", *(f"{n:>11,}" for n in options.rows))
    for name in found[options.rows[0]]:
        if name != "whole":
            figures = (found[n_rows][name] for n_rows in options.rows)
            print(f"{name:<42}", *(f"{figure:>11,.1f}" for figure in figures))


if __name__ == "__main__":
    main()
