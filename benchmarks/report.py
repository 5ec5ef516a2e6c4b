"""Evaluate a detector on embeddings that are on disk, and write the report.

python benchmarks/report.py embeddings.npz --manifest manifest.csv --out report.html

The archive has an array `pooled`, the manifest the columns label, generator, pair_id,
row by row. Generators with fewer images than --min-images are left out, and named.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from machine import describe_machine

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.report import evaluate


def main():
    """Write the report and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--min-images", type=int, default=60)
    parser.add_argument("--max-fpr", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    print(describe_machine())
    rows = pd.read_csv(options.manifest, keep_default_na=False)
    n_images = rows["generator"].map(rows["generator"].value_counts())
    kept = ((n_images >= options.min_images) | (rows["label"] == 0)).to_numpy()
    print(f"left out: {sorted(set(rows['generator'][~kept]))}")
    rows = rows[kept]
    X = np.load(options.embeddings)["pooled"][kept].astype(np.float32)
    start = perf_counter()
    report = evaluate(
        OrthogonalLinearDetector(n_components=8, random_state=0),
        X,
        rows["label"].to_numpy(),
        rows["generator"].to_numpy(),
        pair_id=rows["pair_id"].to_numpy(),
        max_fpr=options.max_fpr,
        random_state=0,
        n_jobs=options.jobs,
    )
    print(f"{perf_counter() - start:.0f} s")
    print(report)
    report.to_html(options.out)
    report.to_markdown(options.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
