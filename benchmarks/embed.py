"""Compare embedding from files with the bare forward pass and with a plain loop."""

import os
import sys
import time

import numpy as np
import open_clip
import torch
from image_options import embedder_options, image_parser, list_images
from machine import describe_machine
from PIL import Image
from tqdm import tqdm

from sklearn_clipsid import CLIPEmbedder

# The forward pass without its surroundings, and each step alone, are not public.
from sklearn_clipsid._clip import crop_to_input, decode_image, get_image_tower
from sklearn_clipsid._content_hash import read_file

PACKAGE, BARE, LOOP = "package, from files", "bare forward pass", "plain loop, fp32"
LOOP_BATCH = 32
FEATURES = "projected"  # what `encode_image` returns


def batches_of(values, size):
    """Split a list into lists of `size`."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def from_files(embedder, paths):
    """Embed with the package, which has forgotten every image."""
    embedder.clear_cache()
    return embedder.transform(paths)


def bare_forward(tower, tensors):
    """Embed batches that are decoded, standardised and on the device already."""
    with torch.inference_mode():
        rows = [tower._forward(x, FEATURES).float().cpu().numpy() for x in tensors]
    return np.concatenate(rows)


def plain_loop(model, transform, device, paths):
    """Embed as a script would: Pillow, open_clip's transform, `encode_image`."""
    rows = []
    with torch.inference_mode():
        for batch in batches_of(paths, LOOP_BATCH):
            x = torch.stack([transform(Image.open(path)) for path in batch])
            rows.append(model.encode_image(x.to(device)).cpu().numpy())
    return np.concatenate(rows)


def build_open_clip(name, pretrained, device):
    """Return open_clip's model and transform; its text tower is not used."""
    is_file = os.path.isfile(pretrained)
    model, _, transform = open_clip.create_model_and_transforms(
        name, None if is_file else pretrained, device=device
    )
    if is_file:
        missing, _ = open_clip.load_checkpoint(model, pretrained, strict=False)
        assert not any(key.startswith("visual.") for key in missing)
    return model.eval(), transform


def time_steps(tower, paths, batch_size):
    """Return ms per image of each step, one after another in one thread."""
    seconds = dict.fromkeys(("read, hash", "decode", "crop", "standardise"), 0.0)
    seconds["forward"] = 0.0

    def timed(step, function, *arguments):
        start = time.perf_counter()
        result = function(*arguments)
        seconds[step] += time.perf_counter() - start
        return result

    def forward(x):
        return bare_forward(tower, [x])

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = tower.recipe.with_resize("model")
    for batch in tqdm(batches_of(paths, batch_size), desc="steps", leave=False):
        data = [timed("read, hash", read_file, path).data for path in batch]
        decoded = [timed("decode", decode_image, encoded) for encoded in data]
        pixels = [timed("crop", crop_to_input, image, recipe) for image in decoded]
        timed("forward", forward, timed("standardise", tower._standardise, pixels))
    torch.set_num_threads(n_threads)
    return {step: 1_000 * total / len(paths) for step, total in seconds.items()}


def report(rates, steps):
    """Print images per second, the ratios of each round, and the steps."""
    print(f"{'':<22}{'images/s':>10}{'slowest':>10}{'fastest':>10}")
    for name, values in rates.items():
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        print(f"{name:<22}{middle:>10.1f}{low:>10.1f}{high:>10.1f}")
    for other in (BARE, LOOP):
        ratio = np.divide(rates[PACKAGE], rates[other])
        low, middle, high = np.quantile(ratio, [0, 0.5, 1])
        print(f"package / {other}: {middle:.2f} ({low:.2f} to {high:.2f})")
    print("One step after another in one thread:")
    for step, ms in steps.items():
        print(f"{step:<22}{ms:>10.2f} ms{ms / sum(steps.values()):>9.1%}")


def main():
    """Embed the same files in three ways, in turn, and print the ratios."""
    parser = image_parser(__doc__, n_images=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    paths = list_images(options.images, options.n_images)
    arguments = embedder_options(options)
    embedder = CLIPEmbedder(features=FEATURES, **arguments).fit(paths)
    batch_size = arguments.pop("batch_size")
    tower = get_image_tower(**arguments)
    model, transform = build_open_clip(
        options.model_name, options.pretrained, tower.device
    )
    steps = time_steps(tower, paths, batch_size)  # all files are in memory from here
    recipe = tower.recipe.with_resize("model")
    pixels = [crop_to_input(decode_image(read_file(p).data), recipe) for p in paths]
    tensors = [tower._standardise(batch) for batch in batches_of(pixels, batch_size)]
    sides = {
        PACKAGE: lambda: from_files(embedder, paths),
        BARE: lambda: bare_forward(tower, tensors),
        LOOP: lambda: plain_loop(model, transform, tower.device, paths),
    }
    rates, rows = {name: [] for name in sides}, {}
    for round_ in range(options.rounds):
        # In turn, and back, so that load hits all alike.
        for name in list(sides)[:: -1 if round_ % 2 else 1]:
            start = time.perf_counter()
            rows[name] = sides[name]()
            rates[name].append(len(paths) / (time.perf_counter() - start))
            print(f"round {round_} {name}: {rates[name][-1]:.1f}/s", file=sys.stderr)
    print(describe_machine())
    print(
        f"{len(paths)} images, {options.model_name}, {tower.precision} on "
        f"{tower.device}, batches of {batch_size}, {options.rounds} rounds"
    )
    unit = {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in rows.items()}
    cosine = (unit[PACKAGE] * unit[LOOP]).sum(axis=1)
    print(f"cosine of package and plain loop: at least {cosine.min():.5f}")
    report(rates, steps)


if __name__ == "__main__":
    main()
