"""Time `clipsid score` beside CLIPEmbedder alone, each in a process of its own."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fresh_process import FreshProcess, add_step_options
from image_options import embedder_options, image_parser, list_images
from machine import describe_machine
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import CLIPEmbedder, OrthogonalLinearDetector
from sklearn_clipsid.persistence import dump

COMMAND = [sys.executable, "-m", "sklearn_clipsid.cli"]


def embed(paths, options):
    """Embed all images at once."""
    CLIPEmbedder(**embedder_options(options), on_error="nan").fit_transform(paths)
    return len(paths)


def score(paths, options, folder):
    """Score all images with a detector that was fitted to four of them."""
    file = Path(folder, "detector.skops")
    embedder = CLIPEmbedder(**embedder_options(options))
    X = embedder.fit_transform(paths[:4])
    head = OrthogonalLinearDetector(random_state=0).fit(X, [0, 0, 1, 1])
    dump(make_pipeline(embedder, head), file)
    place = ["--pretrained", options.pretrained]
    began, first, n_lines = time.perf_counter(), None, 0
    process = subprocess.Popen(
        [*COMMAND, "score", str(file), "-", *place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdin.write("\n".join(paths))
    process.stdin.close()
    for _ in process.stdout:
        first = first or time.perf_counter() - began
        n_lines += 1
    whole = time.perf_counter() - began
    if process.wait() == 2 or n_lines != len(paths):
        raise SystemExit(f"{n_lines} lines for {len(paths)} images.")
    return {"images": n_lines, "first": first, "whole": whole}


def main():
    """Print images per second of both, everything from the start counted."""
    parser = image_parser(__doc__, n_images=10_000)
    add_step_options(parser)
    options = parser.parse_args()
    paths = list_images(options.images, options.n_images)
    if options.step:
        return print(json.dumps({"images": embed(paths, options)}))
    print(describe_machine())
    # In turns, as a machine may be slower later.
    alone = FreshProcess("embed").result()
    with tempfile.TemporaryDirectory() as folder:
        scored = score(paths, options, folder)
    again = FreshProcess("embed").result()
    alone["whole"] = (alone["whole"] + again["whole"]) / 2
    for name, found in (("CLIPEmbedder alone", alone), ("clipsid score", scored)):
        print(f"{name:<20} {len(paths) / found['whole']:6.1f} images/s")
    print(f"ratio {alone['whole'] / scored['whole']:.2f}")
    print(f"first line after {scored['first']:.1f} s")


if __name__ == "__main__":
    main()
