"""Compare bf16 with fp32 on real images: the rows, a detector's AP, and the time."""

import time

import numpy as np
from image_options import image_parser
from machine import describe_machine
from sklearn.metrics import average_precision_score

from sklearn_clipsid import CLIPEmbedder, OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_image_folder
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut


def cosines(A, B):
    """Return the cosine of each row of A with that of B."""
    A, B = A.astype(float), B.astype(float)
    return (A * B).sum(axis=1) / np.linalg.norm(A, axis=1) / np.linalg.norm(B, axis=1)


def mean_average_precision(rows, data, seed, fitted_at, scored_at):
    """Leave one generator out; fit on rows of one precision, score those of another."""
    scores = []
    splits = LeaveOneGeneratorOut(hold_out_real_source=False).split(
        data.data, data.target, data.generator
    )
    for train, test in splits:
        detector = OrthogonalLinearDetector(random_state=seed)
        detector.fit(rows[fitted_at][train], data.target[train])
        logits = detector.decision_function(rows[scored_at][test])
        scores.append(average_precision_score(data.target[test], logits))
    return float(np.mean(scores))


def main():
    """Embed a folder at both precisions and print the comparison."""
    parser = image_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(describe_machine())
    data = load_image_folder(options.images)
    rows, seconds = {}, {}
    for precision in ("fp32", "bf16"):
        embedder = CLIPEmbedder(
            options.model_name, options.pretrained, precision=precision, verbose=True
        ).fit(data.data)  # builds the model, which is not timed
        start = time.perf_counter()
        rows[precision] = embedder.transform(data.data)
        seconds[precision] = time.perf_counter() - start
    c = cosines(rows["bf16"], rows["fp32"])
    rates = ", ".join(f"{p} {len(c) / s:.1f}" for p, s in seconds.items())
    print(
        f"{len(c)} images, cosine bf16 to fp32: mean {c.mean():.5f} min {c.min():.5f}"
    )
    print(f"images/s: {rates}, ratio {seconds['fp32'] / seconds['bf16']:.2f}")
    for seed in range(options.seeds):
        ap = {
            (fitted, scored): mean_average_precision(rows, data, seed, fitted, scored)
            for fitted, scored in (("fp32", "fp32"), ("fp32", "bf16"), ("bf16", "bf16"))
        }
        print(
            f"seed {seed}: mAP in fp32 {ap['fp32', 'fp32']:.4f}; scored on bf16 rows "
            f"{ap['fp32', 'bf16'] - ap['fp32', 'fp32']:+.4f}; also fitted on bf16 "
            f"{ap['bf16', 'bf16'] - ap['fp32', 'fp32']:+.4f}"
        )


if __name__ == "__main__":
    main()
