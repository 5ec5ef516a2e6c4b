"""Decode images in threads ahead of the forward pass, and embed each one once."""

import hashlib
import json
import os
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sklearn_clipsid._embedding_cache import MEMO, content_hash, read_file

# Unreadable images named in one message; the rest are counted.
MAX_NAMED = 20


class EmbeddingRun:
    """One pass over images: threads decode ahead, one batch is embedded at a time."""

    def __init__(self, embedder, tower, fingerprint):
        self.embedder = embedder
        self.tower = tower
        self.recipe = tower.recipe.with_resize(embedder.resize)
        described = json.dumps(fingerprint, sort_keys=True).encode()
        self.key = hashlib.blake2b(described, digest_size=16).hexdigest()
        self.pending = {}  # content hash -> (pixels, [indices of images])
        self.rows = None

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
            elif row is not None:
                self._store(len(images), [index], row)
                progress.update()
            else:
                self.pending.setdefault(content, (pixels, []))[1].append(index)
                if len(self.pending) == self.embedder.batch_size:
                    self._flush(len(images), progress)
        self._flush(len(images), progress)
        if failures:
            self._store(len(images), [index for index, _, _ in failures], np.nan)
            warnings.warn(_unreadable(failures), stacklevel=5)
        return self.rows

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
        from sklearn_clipsid._clip import (
            UnreadableImageError,
            crop_to_input,
            decode_image,
        )

        apply_exif = self.embedder.apply_exif
        try:
            if isinstance(image, (str, os.PathLike)):
                path = os.fspath(image)
                content = MEMO.hash_of_file(path)
                row = None if content is None else MEMO.get(self.key, content)
                if row is not None:
                    return content, row, None, None
                image, content = read_file(MEMO, path)
            elif isinstance(image, (bytes, bytearray)):
                content = content_hash(bytes(image))
            else:
                image = decode_image(image, apply_exif=apply_exif)
                content = content_hash(np.asarray(image))
            row = MEMO.get(self.key, content)
            if row is not None:
                return content, row, None, None
            pixels = crop_to_input(
                decode_image(image, apply_exif=apply_exif), self.recipe
            )
            return content, None, pixels, None
        except OSError as error:
            return None, None, None, error.strerror or str(error)
        except UnreadableImageError as error:
            return None, None, None, str(error)

    def _flush(self, n_images, progress):
        if not self.pending:
            return
        pixels = [pixels for pixels, _ in self.pending.values()]
        rows = self.tower.encode(pixels, self.embedder.features)
        MEMO.put(self.key, list(self.pending), rows)
        for row, (_, indices) in zip(rows, self.pending.values()):
            self._store(n_images, indices, row)
            progress.update(len(indices))
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


def as_images(X):
    """Return X as a sequence of images, or say what is wrong with it."""
    if isinstance(X, (str, bytes, os.PathLike)):
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
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype != np.uint8:
        if X.shape[1] != 1:
            raise ValueError(
                f"Got an array of shape {X.shape} but expected (n_samples,) or "
                "(n_samples, 1): one image per row. Embeddings go to the detector, "
                "not to CLIPEmbedder."
            )
        X = X[:, 0]
    if not hasattr(X, "__len__") or not hasattr(X, "__getitem__"):
        raise ValueError(
            f"Got {type(X).__name__} but expected a sequence of images with a length; "
            "pass a list."
        )
    if len(X) == 0:
        raise ValueError("Got 0 images but expected at least 1; X is empty.")
    for index, image in enumerate(X):
        _check_image_type(index, image)
    return X


def _check_image_type(index, image):
    is_pil = type(image).__module__.startswith("PIL.")
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
