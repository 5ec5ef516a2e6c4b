"""Decode images in threads ahead of the forward pass, and embed each one once."""

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from joblib import cpu_count

from sklearn_clipsid._content_hash import content_hash, read_file, signature_of
from sklearn_clipsid._image_sequence import name_of

# Paths looked up in the cache at once.
N_RECOGNISED = 512
# One core decodes some 150 photographs of half a megapixel per second.
MAX_AUTO_THREADS = 16
# Seconds between two looks at what other runs are embedding.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5


class Embedded(NamedTuple):
    """Rows in the order of the images, and what was found on the way."""

    rows: np.ndarray  # (n_images, n_features), float32
    contents: list  # hash of each image, None where it could not be read
    errors: dict  # index -> why the image could not be read
    all_kept: bool  # whether the cache had room for all rows


class Prepared(NamedTuple):
    """One image on its way to the tower."""

    content: bytes | None = None
    row: np.ndarray | None = None  # when it is known
    pixels: np.ndarray | None = None  # when it is not
    error: str | None = None
    file: tuple = ()  # its signature, when the file was read and can be recognised


class EmbeddingRun:
    """One pass over images: threads decode ahead, one batch is embedded at a time.

    Parameters
    ----------
    embedder : CLIPEmbedder
        Its parameters.

    encoder : LazyEncoder
        The tower, built only when an image is unknown.

    cache : EmbeddingMemo or EmbeddingCache
        What is known.

    progress : RowProgress
        Told of every image that is done.
    """

    # What to do about an image that cannot be read.
    remedy = "Repair or remove it, or pass on_error='nan' to get a row of NaN for it."

    def __init__(self, embedder, encoder, cache, progress):
        self.embedder = embedder
        self.encoder = encoder
        self.cache = cache
        self.progress = progress
        self.tower = encoder.tower
        self.batch = {}  # content -> (pixels, [indices of images])
        self.claimed = set()  # contents that no other run embeds meanwhile
        self.elsewhere = {}  # content -> [indices], embedded by other runs
        self.files = {}  # signature -> content, to be kept with the next batch
        self.n_embedded = 0
        self.all_kept = True

    def embed(self, images):
        """Return the embeddings of all images.

        Parameters
        ----------
        images : sequence of images
            As `as_images` returns them.

        Returns
        -------
        embedded : Embedded
        """
        self.images = images
        self.rows = None
        self.contents = [None] * len(images)
        self.errors = {}
        try:
            self._embed_those(range(len(images)))
            pause = FIRST_PAUSE
            while self.elsewhere:
                left = self._left_by_others()
                if left:
                    self._embed_those(left)
                    pause = FIRST_PAUSE
                elif self.elsewhere:
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            n_done = len(images) - self.contents.count(None)
            # A run that fails while it keeps a batch has not answered it.
            self.cache.count(max(0, n_done - self.n_embedded), self.n_embedded)
        if self.errors:
            self._store(list(self.errors), np.nan)
        return Embedded(self.rows, self.contents, self.errors, self.all_kept)

    def _embed_those(self, indices):
        for index, image in self._prepared(indices):
            self.files.update(image.file)
            if image.error is not None:
                if self.embedder.on_error == "raise":
                    # What was decoded before the bad image is kept.
                    self._flush(final=True)
                    raise ValueError(
                        f"Could not read the image at index {index}, "
                        f"{name_of(self.images[index])}: {image.error}. "
                        f"{self.remedy}"
                    )
                self.errors[index] = image.error
                self.progress.update()
            elif image.row is not None:
                self._answer([index], image.content, image.row)
            elif image.content in self.elsewhere:
                self.elsewhere[image.content].append(index)
            else:
                pixels_and_indices = self.batch.setdefault(
                    image.content, (image.pixels, [])
                )
                pixels_and_indices[1].append(index)
                if len(self.batch) == self.embedder.batch_size:
                    self._flush()
        self._flush(final=True)

    def _prepared(self, indices):
        """Yield (index, Prepared), decoding a bounded number of images ahead."""
        n_threads = self.embedder.decode_threads
        if n_threads == "auto":
            n_threads = min(MAX_AUTO_THREADS, cpu_count())
        n_ahead = 2 * self.embedder.batch_size + n_threads
        unknown = self._unrecognised(indices)
        ahead = deque()
        with ThreadPoolExecutor(n_threads) as pool:

            def submit(index):
                ahead.append((index, pool.submit(self._prepare, self.images[index])))

            try:
                for index in islice(unknown, n_ahead):
                    submit(index)
                while ahead:
                    index, future = ahead.popleft()
                    # What is no image needs no tower to be found out.
                    image = future.result() or self._prepare(
                        self.images[index], decode_first=True
                    )
                    if image is None:
                        # Built here and not in a thread of the pool, so that warnings
                        # name the caller's line. What lies ahead starts over.
                        self.tower = self.encoder.build()
                        again = [index, *(later for later, _ in ahead)]
                        ahead.clear()
                        for index in again:
                            submit(index)
                        continue
                    for later in islice(unknown, 1):
                        submit(later)
                    yield index, image
            finally:
                for _, future in ahead:
                    future.cancel()

    def _unrecognised(self, indices):
        """Answer files that are as they were; yield the indices of all others."""
        indices = iter(indices)
        while part := list(islice(indices, N_RECOGNISED)):
            signatures = {}
            for index in part:
                if isinstance(self.images[index], (str, os.PathLike)):
                    try:
                        signatures[index] = signature_of(self.images[index])
                    except (OSError, ValueError):
                        pass  # `_prepare` meets the same error, and says it
            contents = self.cache.contents_of(list(signatures.values()))
            rows = self.cache.rows_of(self.encoder.setting, set(contents.values()))
            for index in part:
                content = contents.get(signatures.get(index))
                if content in rows:
                    self._answer([index], content, rows[content])
                else:
                    yield index

    def _prepare(self, image, decode_first=False):
        """Read, recognise and decode one image; None when the tower is missing."""
        from sklearn_clipsid._clip import crop_to_input, decode_image

        apply_exif, decoded, file = self.embedder.apply_exif, None, ()
        try:
            if isinstance(image, (str, os.PathLike)):
                image, content, signature = read_file(image)
                if signature is not None:
                    file = ((signature, content),)
            elif isinstance(image, (bytes, bytearray)):
                image = bytes(image)
                content = content_hash(image)
            else:
                decoded = decode_image(image, apply_exif=apply_exif)
                content = content_hash(np.asarray(decoded))
            row = self.cache.rows_of(self.encoder.setting, [content]).get(content)
            if row is not None:
                return Prepared(content, row=row, file=file)
            if self.tower is None and not decode_first:
                return None
            if decoded is None:
                decoded = decode_image(image, apply_exif=apply_exif)
            if self.tower is None:
                return None
            recipe = self.tower.recipe.with_resize(self.embedder.resize)
            return Prepared(content, pixels=crop_to_input(decoded, recipe), file=file)
        except OSError as error:
            return Prepared(error=error.strerror or str(error))
        # The image, or a path that cannot be one ("embedded null byte").
        except ValueError as error:
            return Prepared(error=str(error))

    def _flush(self, final=False):
        """Embed the batch, unless others have taken so much of it that more fits in."""
        asked = [content for content in self.batch if content not in self.claimed]
        if asked:
            rows, mine = self.cache.claim(self.encoder.setting, asked)
            self.claimed |= mine
            for content, row in rows.items():
                self._answer(self.batch.pop(content)[1], content, row)
            for content in asked:
                if content not in mine and content not in rows:
                    self.elsewhere[content] = self.batch.pop(content)[1]
        is_full = len(self.batch) == self.embedder.batch_size
        rows = self._encode() if self.batch and (final or is_full) else {}
        if rows or (final and self.files):
            fits = self.cache.keep(self.encoder.setting, rows, self.files)
            self.all_kept &= fits
            self.files = {}
        self.claimed -= rows.keys()
        for content, row in rows.items():
            self._answer(self.batch.pop(content)[1], content, row)

    def _encode(self):
        pixels = [pixels for pixels, _ in self.batch.values()]
        rows = self.tower.encode(pixels, self.embedder._tower_features)
        if not np.isfinite(rows).all():
            raise ValueError(
                f"Got NaN or infinity from {self.tower.encoder.name} at precision="
                f"{self.tower.precision!r}, whose numbers are too small for it; pass "
                "precision='fp32' or 'bf16'."
            )
        self.n_embedded += len(rows)
        return dict(zip(self.batch, rows))

    def _left_by_others(self):
        """Take over the rows of other runs; return the indices that they gave up."""
        rows, mine = self.cache.claim(self.encoder.setting, list(self.elsewhere))
        for content, row in rows.items():
            self._answer(self.elsewhere.pop(content), content, row)
        self.claimed |= mine
        return [index for content in mine for index in self.elsewhere.pop(content)]

    def _answer(self, indices, content, row):
        self._store(indices, row)
        for index in indices:
            self.contents[index] = content
        self.progress.update(len(indices))

    def _store(self, indices, row):
        if self.rows is None:
            width = (
                row.size
                if isinstance(row, np.ndarray)
                else self.embedder._n_features_out
            )
            self.rows = np.empty((len(self.images), width), dtype=np.float32)
        self.rows[indices] = row
