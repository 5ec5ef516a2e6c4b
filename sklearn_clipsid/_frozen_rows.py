"""Compute once what the frozen part of a partly trained encoder makes of images."""

import os

import numpy as np

from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._embedding_memo import EmbeddingMemo
from sklearn_clipsid._embedding_run import EmbeddingRun
from sklearn_clipsid._image_sequence import name_of
from sklearn_clipsid._lazy_encoder import LazyEncoder, check_same_encoder
from sklearn_clipsid._progress import RowProgress
from sklearn_clipsid._read_image import read_image
from sklearn_clipsid._training_views import make_views

MAX_NAMED = 3  # images in a message

# For the process, so that folds share what is frozen in all of them: 1,770 images of
# a ViT-B/16 in bf16. Apart from the memory of CLIPEmbedder, which tokens would fill.
FROZEN = EmbeddingMemo()

if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock at the moment of the fork.
    os.register_at_fork(after_in_child=FROZEN.start_anew)


class FrozenEncoder(CLIPEmbedder):
    """An embedder that stops where the trained part of its encoder begins.

    Parameters
    ----------
    **params : dict
        Those of the embedder of the whole encoder.
    """

    @classmethod
    def of(cls, embedder, train, n_blocks, lora_rank):
        """Take the encoder of an embedder apart.

        Parameters
        ----------
        embedder : CLIPEmbedder
            Its fingerprint, if it has one, must be that of the encoder now.

        train, n_blocks, lora_rank
            As in CLIPFineTuneClassifier.

        Returns
        -------
        encoder : FrozenEncoder
            With the whole tower and `tunable`.
        """
        from sklearn_clipsid._clip._tunable_tower import TunableTower

        fitted = getattr(embedder, "fingerprint_", {})
        check_same_encoder(fitted, LazyEncoder(embedder, FROZEN).fingerprint)
        encoder = cls(**embedder.get_params())
        # What class vectors are compared with, where nothing of the tower is trained.
        encoder.set_params(features="projected", normalize=False)
        encoder.train = train
        encoder.tower = embedder._image_tower()
        encoder.tunable = TunableTower(encoder.tower, train, n_blocks, lora_rank)
        encoder.stops_at = ("pixels" if train == "all" else "tokens", n_blocks)
        return encoder

    @property
    def _tower_features(self):
        return self.stops_at

    def _image_tower(self):
        return _FrozenPart(self.tower, self.tunable)

    def rows_of(self, images, finish=None, remember=True):
        """Run the frozen part.

        Parameters
        ----------
        images : sequence of images
            As `as_images` returns them.

        finish : callable, default=None
            What to make of rows before they are kept. With it, memory does not grow
            with what the frozen part returns.

        remember : bool, default=True
            Whether these images will be asked for again.

        Returns
        -------
        rows : ndarray of shape (n_images, n_features)
            In the order of the images.
        """
        if self.train == "head":
            rows = self._projected(images, remember)
            return rows if finish is None else finish(rows)
        memo = FROZEN if remember else EmbeddingMemo(max_bytes=0)
        encoder = LazyEncoder(self, memo)
        known = encoder.description
        with (
            memo,
            RowProgress(
                self,
                len(images),
                self.batch_size,
                description=f"{known['architecture']} on {known['device']}, "
                f"{known['precision']}",
                verbose=self.verbose and remember,
            ) as progress,
        ):
            return _FrozenRun(self, encoder, memo, progress).rows_of(images, finish)

    def _projected(self, images, remember):
        """Embed as the whole encoder does, whose own cache may know the images."""
        embedder = CLIPEmbedder(**self.get_params())
        if remember:
            return embedder.transform(images)
        return embedder._embed_apart(images).rows


class _FrozenPart:
    """A tower that computes no further than what stays frozen, in a tower's place."""

    def __init__(self, tower, tunable):
        self._tower = tower
        self.encode = tunable.encode

    def __getattr__(self, name):
        return getattr(self._tower, name)

    def check_features(self, features):
        """Accept what the tunable tower has checked already."""


class _FrozenRun(EmbeddingRun):
    """A run whose rows are handed on as they come, in their own number format."""

    remedy = "Repair or remove it."

    def rows_of(self, images, finish):
        self._finish, self._waiting, self._out = finish, [], None
        self.embed(images)
        self._hand_on()
        return self._out

    def _store(self, indices, row):
        self._waiting += [(index, row) for index in indices]
        if len(self._waiting) >= self.embedder.batch_size:
            self._hand_on()

    def _hand_on(self):
        if not self._waiting:
            return
        indices = [index for index, _ in self._waiting]
        rows = np.stack([row for _, row in self._waiting])
        self._waiting = []
        if self._finish is not None:
            rows = self._finish(rows)
        if self._out is None:
            self._out = np.empty((len(self.images), *rows.shape[1:]), dtype=rows.dtype)
        self._out[indices] = rows


class ImageRows:
    """What the trained part of an encoder reads of images, as they are or as views.

    Parameters
    ----------
    encoder : FrozenEncoder
        The frozen part.

    images : list
        The images.

    augment : bool
        Whether each epoch shows another view of each image. Without, what the frozen
        part returns is computed once and held in memory.

    seed : int
        With the epoch and the content of an image it decides the view.
    """

    def __init__(self, encoder, images, augment, seed):
        self.encoder, self.images = encoder, images
        self.augment, self.seed = augment, seed
        if augment:
            # Now, as an error in a batch would count from the start of the batch.
            for index, image in enumerate(images):
                read_image(image, f"at index {index}", apply_exif=encoder.apply_exif)
        self._rows = None if augment else encoder.rows_of(images)

    def __call__(self, indices, epoch=None):
        """Return the rows of images.

        Parameters
        ----------
        indices : ndarray of int
            Which images.

        epoch : int, default=None
            Decides the views. None shows the images as they are.

        Returns
        -------
        rows : ndarray of shape (n_indices, n_features)
        """
        if self._rows is not None:
            return self._rows[indices]
        images = [self.images[index] for index in indices]
        if epoch is None:
            return self.encoder.rows_of(images)
        seed = int(np.random.default_rng([self.seed, epoch]).integers(2**31))
        threads = self.encoder.decode_threads
        views = make_views(
            images,
            1,
            seed,
            folder=None,
            apply_exif=self.encoder.apply_exif,
            n_jobs=-1 if threads == "auto" else threads,
        )
        return self.encoder.rows_of([view for (view,) in views], remember=False)

    def names(self, indices):
        """Name images in a message, the first few of them."""
        named = [f"{name_of(self.images[i])} at index {i}" for i in indices[:MAX_NAMED]]
        return ", ".join(named) + (", …" if len(indices) > MAX_NAMED else "")
