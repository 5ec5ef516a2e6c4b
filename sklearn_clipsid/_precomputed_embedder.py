"""Put embeddings that are on disk in the place of the encoder."""

import os

from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import StrOptions

from sklearn_clipsid._embedding_store import EmbeddingStore
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._path_rows import as_paths
from sklearn_clipsid._shard_encoder import refuse_other_encoder
from sklearn_clipsid._warn_user import warn_user


class PrecomputedEmbedder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Look embeddings up by path instead of computing them.

    It takes the place of `CLIPEmbedder` in a pipeline whose images were embedded once
    with `embed_to_shards`: the same paths go in, and a search over detectors never
    loads a model.

    The store is trusted: images are not opened, and one that has changed since it was
    embedded keeps its old row.

    Parameters
    ----------
    store : EmbeddingStore, str or PathLike
        The embeddings, or the folder that holds them.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that could not be read when it was to be embedded.
        "raise" names it with the reason. "nan" returns its row, which is NaN, and
        warns once.

    Attributes
    ----------
    fingerprint_ : dict of str
        The encoder that made the embeddings, noted by `fit`.

    See Also
    --------
    embed_to_shards : Makes the embeddings.
    CLIPEmbedder : Computes them; new images need it.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_clipsid import OrthogonalLinearDetector, PrecomputedEmbedder
    >>> pipe = make_pipeline(
    ...     PrecomputedEmbedder("embeddings"), OrthogonalLinearDetector(random_state=0)
    ... )
    >>> grid = {"orthogonallineardetector__n_components": [1, 8, 32]}
    >>> search = GridSearchCV(pipe, grid, n_jobs=4)
    >>> search.fit(paths, y)  # doctest: +SKIP
    """

    _parameter_constraints = {
        "store": [EmbeddingStore, str, os.PathLike],
        "on_error": [StrOptions({"raise", "nan"})],
    }

    def __init__(self, store, *, on_error="raise"):
        self.store = store
        self.on_error = on_error

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Note which encoder made the embeddings; nothing is learned.

        Parameters
        ----------
        X : sequence of paths of shape (n_samples,)
            As in `transform`. They are not looked up.

        y : None
            Ignored.

        Returns
        -------
        self : PrecomputedEmbedder
            The transformer with `fingerprint_`.
        """
        as_paths(X)
        self.fingerprint_ = dict(self._open().fingerprint)
        return self

    def transform(self, X):
        """Look up embeddings.

        Parameters
        ----------
        X : sequence of str or PathLike of shape (n_samples,)
            Paths as they were given to `embed_to_shards`, in a list, a 1-D array, a
            Series or a frame of one column.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_features), dtype float32
            One row per path, in their order.

        Raises
        ------
        ValueError
            When a path is not in the store, when an image could not be read and
            ``on_error="raise"``, or when the store is of another encoder than the one
            noted by `fit`.
        """
        self._validate_params()
        paths = as_paths(X)
        store = self._open()
        self._check_same_encoder(store)
        indices = store.index_of(paths)  # (n_samples,)
        if store.n_failed:
            self._report(paths, indices, store.failures(indices))
        return store.take(indices)  # (n_samples, n_features)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags

    @property
    def _n_features_out(self):
        return self._open().shape[1]

    def _open(self):
        if isinstance(self.store, EmbeddingStore):
            return self.store
        return EmbeddingStore(self.store)

    def _check_same_encoder(self, store):
        refuse_other_encoder(
            store.fingerprint,
            getattr(self, "fingerprint_", store.fingerprint),
            "this pipeline was fitted with; open the store it was fitted with, or fit "
            "again.",
        )

    def _report(self, paths, indices, failures):
        unread = [
            f"index {at}, {paths[at]!r}: {failures[index]}"
            for at, index in enumerate(indices.tolist())
            if index in failures
        ]
        if not unread:
            return
        if self.on_error == "raise":
            raise ValueError(
                f"Got {len(unread)} of {len(paths)} images that could not be read when "
                f"they were to be embedded ({first_few(unread)}); leave them out, or "
                "pass on_error='nan' to get rows of NaN for them."
            )
        warn_user(
            f"{len(unread)} of {len(paths)} images could not be read when they were to "
            f"be embedded, and their rows are NaN: {first_few(unread)}."
        )
