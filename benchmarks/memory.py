"""Compare the peak memory of embedding few images with that of many."""

import json
import tempfile
from pathlib import Path

from fresh_process import FreshProcess, add_step_options
from image_options import embedder_options, image_parser, list_images
from machine import describe_machine, peak_memory


def write_copies(paths, folder, n_copies):
    """Write files that differ in their last bytes, which decoders do not read.

    Equal files would be embedded once.
    """
    for index in range(n_copies):
        source = Path(paths[index % len(paths)])
        copy = Path(folder, f"{index:06d}{source.suffix}")
        copy.write_bytes(source.read_bytes() + f"copy {index}".encode())


def embed_here(options):
    """Embed the images of a folder and print the peak in MiB; in a fresh process."""
    from sklearn_clipsid import CLIPEmbedder

    paths = list_images(options.copies, options.n_images)
    embedder = CLIPEmbedder(
        features=options.block, cache_dir=options.cache_dir, **embedder_options(options)
    )
    embedder.fit(paths)
    built = peak_memory()
    n_rows = len(embedder.transform(paths))
    peaks = {"rows": n_rows, "built": built / 2**20, "peak": peak_memory() / 2**20}
    print(json.dumps(peaks))


def main():
    """Embed copies of the images, few and many, and print the ratio of the peaks."""
    parser = image_parser(__doc__, n_images=500)
    parser.add_argument("--many", type=int, default=5_000)
    # What grows does not depend on the depth, and one block takes a tenth of the time.
    parser.add_argument("--block", type=int, default=1, help="features of which block")
    add_step_options(parser, "--copies", "--cache-dir")
    options = parser.parse_args()
    if options.step:
        return embed_here(options)
    print(describe_machine())
    print(f"{options.model_name}, block {options.block}, each run in a fresh process")
    print(f"{'':<12}{'images':>8}{'model built':>14}{'peak':>12}")
    few, many = options.n_images, options.many
    paths = list_images(options.images, few)
    with tempfile.TemporaryDirectory() as folder:
        write_copies(paths, folder, many)
        for title, cache in (("in memory", None), ("cache_dir", "cache")):
            peaks = []
            for n_images in (few, many):
                found = FreshProcess(
                    "embed",
                    copies=folder,
                    n_images=n_images,
                    cache_dir=cache and f"{folder}/{cache}{n_images}",
                ).result()
                assert found["rows"] == n_images
                peaks.append(found["peak"])
                print(
                    f"{title:<12}{n_images:>8}{found['built']:>10.0f} MiB"
                    f"{found['peak']:>8.0f} MiB",
                    flush=True,
                )
            print(f"{title}: {many} / {few} images: {peaks[1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
