"""Decode images in threads ahead of the forward pass, and embed each one once."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sklearn_clipsid._embedding_cache import MEMO, content_hash, read_file
from sklearn_clipsid._warn_user import warn_user

# Unreadable images named in one message; the rest are counted.
MAX_NAMED = 20


class EmbeddingRun:
    """One pass over images: threads decode ahead, one batch is embedded at a time."""

    def __init__(self, embedder, tower, fingerprint):
        self.embedder = embedder
        self.tower = tower
        self.recipe = tower.recipe.with_resize(embedder.resize)
        # Rows are remembered before normalisation.
        decisive = {k: v for k, v in fingerprint.items() if k != "normalize"}
        described = json.dumps(decisive, sort_keys=True).encode()
        self.key = hashlib.blake2b(described, digest_size=16).hexdigest()
        self.pending = {}  # content hash -> (pixels, [indices of images])
        self.rows = None
        self.all_fit = True

    def embed(self, images, progress):
        """Return the embeddings of all images, in order."""
        failures = []
        for index, (content, row, pixels, error) in enumerate(self._decoded(images)):
            if error is not None:
                if self.embedder.on_error == "raise":
                    # What was decoded before the bad image is kept in memory.
                    self._flush(len(images), progress)
                    raise ValueError(_unreadable([(index, images[index], error)]))
                failures.append((index, images[index], error))
                progress.update()
                continue
            if row is None:
                row = self._embedded_since(content)
            if row is not None:
                self._store(len(images), [index], row)
                progress.update()
                continue
            self.pending.setdefault(content, (pixels, []))[1].append(index)
            if len(self.pending) == self.embedder.batch_size:
                self._flush(len(images), progress)
        self._flush(len(images), progress)
        if failures:
            self._store(len(images), [index for index, _, _ in failures], np.nan)
            warn_user(_unreadable(failures))
        if not self.all_fit:
            warn_user(
                f"The rows of these {len(images)} images exceed the "
                f"{MEMO.max_bytes // 2**20} MiB that are remembered: another pass "
                "embeds some of them again. Embed them once with transform() and "
                "cross-validate the detector on the array."
            )
        return self.rows

    def _embedded_since(self, content):
        """Return the row of an image whose twin was embedded while it was decoded."""
        return None if content in self.pending else MEMO.get(self.key, content)

    def _decoded(self, images):
        """Yield what each image is, decoding a bounded number of them ahead."""
        n_threads = self.embedder.decode_threads
        if n_threads == "auto":
            n_threads = min(8, os.cpu_count() or 1)
        ahead = 2 * self.embedder.batch_size + n_threads
        with ThreadPoolExecutor(n_threads) as pool:
            futures = deque()
            try:
                for image in images:
                    futures.append(pool.submit(self._prepare, image))
                    if len(futures) > ahead:
                        yield futures.popleft().result()
                while futures:
                    yield futures.popleft().result()
            finally:
                for future in futures:
                    future.cancel()

    def _prepare(self, image):
        """Return (content hash, known row, pixels, error), all but one or two None."""
        from sklearn_clipsid._clip import crop_to_input, decode_image

        apply_exif, decoded = self.embedder.apply_exif, None
        try:
            if isinstance(image, (str, os.PathLike)):
                path = os.fspath(image)
                content = MEMO.hash_of_file(path)
                row = None if content is None else MEMO.get(self.key, content)
                if row is not None:
                    return content, row, None, None
                image, content = read_file(MEMO, path)
            elif isinstance(image, (bytes, bytearray)):
                image = bytes(image)
                content = content_hash(image)
            else:
                decoded = decode_image(image, apply_exif=apply_exif)
                content = content_hash(np.asarray(decoded))
            row = MEMO.get(self.key, content)
            if row is not None:
                return content, row, None, None
            if decoded is None:
                decoded = decode_image(image, apply_exif=apply_exif)
            return content, None, crop_to_input(decoded, self.recipe), None
        except OSError as error:
            return None, None, None, error.strerror or str(error)
        # The image, or a path that cannot be one ("embedded null byte").
        except ValueError as error:
            return None, None, None, str(error)

    def _flush(self, n_images, progress):
        if not self.pending:
            return
        pixels = [pixels for pixels, _ in self.pending.values()]
        rows = self.tower.encode(pixels, self.embedder.features)
        if not np.isfinite(rows).all():
            raise ValueError(
                f"Got NaN or infinity from {self.tower.encoder.name} at precision="
                f"{self.tower.precision!r}, whose numbers are too small for it; pass "
                "precision='fp32' or 'bf16'."
            )
        self.all_fit &= MEMO.put(self.key, list(self.pending), rows)
        for row, (_, indices) in zip(rows, self.pending.values()):
            self._store(n_images, indices, row)
        progress.update(sum(len(indices) for _, indices in self.pending.values()))
        self.pending = {}

    def _store(self, n_images, indices, row):
        if self.rows is None:
            width = (
                row.size
                if isinstance(row, np.ndarray)
                else self.embedder._n_features_out
            )
            self.rows = np.empty((n_images, width), dtype=np.float32)
        self.rows[indices] = row


def check_same_encoder(fitted, fingerprint):
    """Refuse to embed with another encoder than a pipeline was fitted with."""
    if not fitted:
        return
    # The name says where the weights came from: a tag, or a folder of another name
    # with the same weights and configuration.
    changed = [
        key
        for key in sorted(fitted.keys() | fingerprint.keys())
        if key != "architecture" and fitted.get(key) != fingerprint.get(key)
    ]
    if not changed:
        return
    difference = ", ".join(
        f"{key} {fingerprint.get(key)!r}, fitted with {fitted.get(key)!r}"
        for key in changed
    )
    if changed != ["precision"]:
        raise ValueError(
            f"Got an encoder that is not the one this pipeline was fitted with "
            f"({difference}); use the same model, weights and settings, or fit again."
        )
    warn_user(
        f"Embedding at another precision than the detector was fitted at "
        f"({difference}): scores shift slightly. Set precision="
        f"{fitted['precision']!r} for the same numbers."
    )


def as_images(X):
    """Return X as a sequence of images, or say what is wrong with it."""
    if isinstance(X, (str, bytes, bytearray, os.PathLike)):
        raise ValueError(
            f"Got one {type(X).__name__} ({X!r:.80}) but expected a sequence of images;"
            " pass a list, such as [path]."
        )
    if hasattr(X, "columns") and hasattr(X, "iloc"):  # a frame, such as ["path"] picks
        if X.shape[1] != 1:
            raise ValueError(
                f"Got a frame of {X.shape[1]} columns but expected one column of "
                "images; select it, such as X[['path']]."
            )
        X = X.iloc[:, 0]
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray):
        X = _column_of_images(X)
    if isinstance(X, Mapping) or not (
        hasattr(X, "__len__") and hasattr(X, "__getitem__")
    ):
        raise ValueError(
            f"Got one {type(X).__name__} but expected a sequence of images with a "
            "length; pass a list."
        )
    if len(X) == 0:
        raise ValueError("Got 0 images but expected at least 1; X is empty.")
    for index, image in enumerate(X):
        _check_image_type(index, image)
    return X


def _column_of_images(X):
    if X.ndim == 4 or (X.ndim == 1 and X.dtype.kind != "S"):
        return X
    if X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUT":
        return X[:, 0]
    if X.dtype == np.uint8 and X.ndim in (2, 3):
        remedy = "one image goes in a list: [image]."
    elif X.dtype.kind == "S":
        remedy = "such arrays cut bytes at a zero; pass a list, or str for paths."
    else:
        remedy = "embeddings go to the detector, not to CLIPEmbedder."
    raise ValueError(
        f"Got an array of shape {X.shape} and dtype {X.dtype} but expected one image "
        f"per row, of shape (n_samples,) or (n_samples, 1); {remedy}"
    )


def _check_image_type(index, image):
    is_pil = any(
        base.__module__ == "PIL.Image" and base.__name__ == "Image"
        for base in type(image).__mro__
    )
    if is_pil or isinstance(image, (str, os.PathLike, bytes, bytearray, np.ndarray)):
        return
    raise ValueError(
        f"Got {type(image).__name__} ({image!r:.60}) at index {index} but expected a "
        "path, encoded bytes, a PIL image or a uint8 array."
    )


def _unreadable(failures):
    lines = [
        f"index {index}, {_name_of(image)}: {reason}"
        for index, image, reason in failures[:MAX_NAMED]
    ]
    if len(failures) == 1:
        return (
            f"Could not read the image at {lines[0]}. Repair or remove it, or pass "
            "on_error='nan' to get a row of NaN for it."
        )
    more = len(failures) - len(lines)
    return (
        f"Could not read {len(failures)} images, whose rows are NaN:\n  "
        + "\n  ".join(lines)
        + (f"\n  … and {more} more." if more else "")
    )


def _name_of(image):
    if isinstance(image, (str, os.PathLike)):
        return repr(os.fspath(image))
    return f"a {type(image).__name__}"
