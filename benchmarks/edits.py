"""Find concepts by editing photographs, and test each on other photographs."""

import hashlib
from pathlib import Path

import numpy as np
from image_options import image_parser
from machine import describe_machine
from sklearn.metrics import roc_auc_score

from sklearn_clipsid import CLIPEmbedder
from sklearn_clipsid.concepts import concept_directions_from_images, photographic_edits
from sklearn_clipsid.datasets import load_image_folder


def split_photographs(data, n_photos, n_test):
    """Return photographs to find directions with and others to test them, and digests.

    Both come from all sources alike, in an order that the contents of the files give.
    """
    digests = {
        path: hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path in data.data[data.target == 0]
    }
    ranked = {}  # path -> place within its source, from either end
    for source in np.unique(data.generator[data.target == 0]):
        paths = sorted(data.data[data.generator == source], key=digests.get)
        ranked |= {path: (i, len(paths) - i) for i, path in enumerate(paths)}
    found = sorted(ranked, key=lambda path: (ranked[path][0], digests[path]))[:n_photos]
    others = [path for path in ranked if path not in set(found)]
    tested = sorted(others, key=lambda path: (ranked[path][1], digests[path]))[:n_test]
    return found, tested, np.array([digests[path] for path in found])


class ProjectedEmbedder:
    """Projects what another embedder remembers, so that nothing is embedded twice."""

    def __init__(self, pooled):
        self.pooled, self.preprocess = pooled, pooled.preprocess
        self.projection = pooled.projection()

    def fit(self, images):
        """Take the fingerprint of the other embedder."""
        fingerprint = self.pooled.fit(images).fingerprint_
        self.fingerprint_ = fingerprint | {"features": "projected"}
        return self

    def transform(self, images):
        """Return projected features."""
        return self.pooled.transform(images) @ self.projection


def poles_told_apart(embedder, pixels, edit, direction):
    """Return how often the poles of one photograph are in order, and the AUC of all."""
    random_state = np.random.RandomState(1)  # other noise than the direction saw
    positive, negative = zip(*(edit(photo, random_state) for photo in pixels))
    rows = embedder.transform([*positive, *negative]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = (rows @ direction).reshape(2, len(pixels))
    auc = roc_auc_score(np.repeat([1, 0], len(pixels)), scores.ravel())
    return (scores[0] > scores[1]).mean(), auc


def main():
    """Print one line per edit, and keep the directions."""
    parser = image_parser(__doc__)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--n-photos", type=int, default=32)
    parser.add_argument("--n-test", type=int, default=60)
    parser.add_argument("--save", help=".npz to write the directions to")
    options = parser.parse_args()
    print(describe_machine())
    data = load_image_folder(options.images)
    photos, others, digests = split_photographs(data, options.n_photos, options.n_test)
    pooled = CLIPEmbedder(
        options.model_name, options.pretrained, precision=options.precision
    )
    embedders = {"pooled": pooled, "projected": ProjectedEmbedder(pooled)}
    edits = photographic_edits()
    concepts = {
        features: concept_directions_from_images(
            embedder, photos, edits, random_state=0
        )
        for features, embedder in embedders.items()
    }
    if options.save:
        directions = {name: found.pop("directions") for name, found in concepts.items()}
        del concepts["pooled"]["encoder"]  # no array; the loader knows it
        single = {name: T.astype(np.float32) for name, T in directions.items()}
        np.savez_compressed(
            options.save, sha256=digests, **concepts["pooled"], **single
        )
        concepts = {name: {"directions": T} for name, T in directions.items()}
    print(
        f"{len(edits)} directions from {len(photos)} photographs, tested on "
        f"{len(others)} others.\nPaired: share of photographs whose positive pole is "
        "further along the direction than the negative.\nAUC: all positive poles "
        f"against all negative ones.\n\n{'':<64}{'pooled':>12}{'projected':>16}\n"
        f"{'edit':<24}{'positive pole':<31}{'':<7}" + f"{'paired':>8}{'AUC':>8}" * 2
    )
    pixels, table = pooled.preprocess(others), []
    for index, edit in enumerate(edits):
        row = [
            poles_told_apart(
                embedder, pixels, edit, concepts[name]["directions"][index]
            )
            for name, embedder in embedders.items()
        ]
        table.append(row)
        numbers = "".join(f"{paired:>8.2f}{auc:>8.3f}" for paired, auc in row)
        print(f"{edit.name:<24}{edit.positive:<31}{'':<7}{numbers}", flush=True)
    paired, auc = np.moveaxis(table, 2, 0)  # (n_edits, 2) each
    for column, features in enumerate(embedders):
        print(
            f"{features}: paired ≥ .95 for {(paired[:, column] >= 0.95).sum()} of "
            f"{len(edits)} edits, AUC ≥ .90 for {(auc[:, column] >= 0.9).sum()}"
        )


if __name__ == "__main__":
    main()
