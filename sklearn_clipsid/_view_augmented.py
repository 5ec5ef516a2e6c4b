"""Train a detector on views of its images as well."""

import os
from numbers import Integral

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_method_params,
    _estimator_has,
    check_is_fitted,
)

from sklearn_clipsid._groups import check_length, read_pairs, read_sources
from sklearn_clipsid._image_sequence import as_images
from sklearn_clipsid._training_views import make_views


class ViewAugmentedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Fit a detector to its training images and to random views of them.

    Images reach a viewer cropped, scaled and compressed, and so the detector is shown
    its training images in this state as well [1]_. Views are made in `fit` alone, after
    any split: `predict` sees the image itself, and no view of a test image can be in
    training.

    Parameters
    ----------
    estimator : classifier
        A detector that takes images: mostly a pipeline that starts with `CLIPEmbedder`.

    n_views : int, default=4
        Views of each image, beside the image itself.

    views_dir : str or PathLike, default=None
        Folder in which views are kept as files, so that the next fit, such as that of
        another fold, need not make them again. Choose one outside the data set. None
        keeps the views in memory while `fit` runs, encoded, some 50 KiB each.

    apply_exif : bool, default=False
        Whether to rotate images as their EXIF orientation says; set it as in the
        `CLIPEmbedder` of the estimator.

    random_state : int, RandomState instance or None, default=0
        Draws the views. With an int an image has the same views in every fit, and the
        embedder answers them from its cache; otherwise each fit embeds new ones.

    n_jobs : int, default=None
        Threads that make views.

    Attributes
    ----------
    estimator_ : classifier
        The fitted detector. It knows nothing of views, and can be used and saved
        alone.

    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    CLIPEmbedder : Embeds images and their views, each once.
    sklearn_clipsid.model_selection.robustness_table : Measures what compression and
        scaling do to a detector.

    Notes
    -----
    A view is made as [1]_ does in training: a random rectangle of half the area or
    more and of a ratio of sides from 3:4 to 4:3, scaled to 512 x 512 pixels by bilinear
    interpolation, mirrored one time in two, and compressed as JPEG of a quality from 65
    to 100. There each image is replaced by another view in every epoch. Here the
    encoder is frozen, and each image keeps its `n_views` views, so that they need to be
    embedded once.

    A transformer cannot do this: in a pipeline it may not add rows, and it would make
    views of test images as well.

    **Search and calibrate outside.** Put this classifier inside
    :class:`~sklearn.model_selection.GridSearchCV` or `AbstainingClassifier`, not
    around them. Where `estimator` splits its rows itself, views of one image must be
    on one side: the `groups` that it is passed are given pair ids, the same for an
    image and its views, in their second column, as `LeaveOneGeneratorOut` reads them.
    Group splitters of scikit-learn take one column, and keep views together by their
    source: name the groups otherwise for them, as in
    ``GroupKFold().set_split_request(groups="source")``. Splits that ask for no groups,
    such as the one that `OrthogonalLinearDetector` stops early on, know nothing of
    views; pass ``early_stopping=False``.

    **More rows, weaker penalty.** The loss of :class:`~sklearn.linear_model.\
LogisticRegression` is a sum over rows. Divide `C` by ``1 + n_views`` to keep its
    balance with the penalty.

    **What it gains.** On 120 images of 15 sources, with ViT-B/16 and a logistic
    regression, nothing: on unseen generators three views change the mean ROC AUC by
    +.004 ± .005 (standard error), and by -.013 ± .007 on test images compressed with
    quality 50. Measure it on your images (``benchmarks/views.py MANIFEST.csv
    --n-images 120 --n-views 3 --precision bf16``).

    **What it costs.** ``1 + n_views`` times as long to embed the training images, once
    for each encoder. To make a view takes 10 to 30 ms, in every fit unless `views_dir`
    keeps it.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_clipsid import CLIPEmbedder, ViewAugmentedClassifier
    >>> from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
    >>> pipe = make_pipeline(CLIPEmbedder(), LogisticRegression(C=0.001 / 5))
    >>> detector = ViewAugmentedClassifier(pipe, n_views=4, views_dir="views")
    >>> cross_validate(
    ...     detector, paths, y, groups=generator, cv=LeaveOneGeneratorOut()
    ... )  # doctest: +SKIP
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "views_dir": [str, os.PathLike, None],
        "apply_exif": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator,
        *,
        n_views=4,
        views_dir=None,
        apply_exif=False,
        random_state=0,
        n_jobs=None,
    ):
        self.estimator = estimator
        self.n_views = n_views
        self.views_dir = views_dir
        self.apply_exif = apply_exif
        self.random_state = random_state
        self.n_jobs = n_jobs

    # `estimator` is not validated yet.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, **params):
        """Make views, and fit the detector to images and views.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What :class:`~sklearn_clipsid.CLIPEmbedder` takes.

        y : array-like of shape (n_samples,)
            Labels; a view has that of its image.

        **params : dict
            Passed to `fit` of the detector, where metadata routing is enabled as it
            asks for them. What has an entry for each image is repeated for its views.

        Returns
        -------
        self : ViewAugmentedClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            When an image cannot be read, whatever ``on_error`` of the embedder says, as
            it has no views.
        """
        images = as_images(X)
        y = column_or_1d(y)
        check_length(y, len(images), "y")
        if _routing_enabled():
            params = process_routing(self, "fit", **params).estimator.fit
        params = _with_image_ids(params, len(images))
        views = make_views(
            images,
            self.n_views,
            check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
            folder=None if self.views_dir is None else os.fspath(self.views_dir),
            apply_exif=self.apply_exif,
            n_jobs=self.n_jobs,
        )
        seen = [shown for i, made in enumerate(views) for shown in (images[i], *made)]
        rows = np.repeat(np.arange(len(images)), 1 + self.n_views)  # (n_seen,)
        params = _check_method_params(images, params, indices=rows)
        self.estimator_ = clone(self.estimator).fit(seen, y[rows], **params)
        return self

    def predict(self, X):
        """Return the labels that the detector gives to the images themselves.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What the detector takes.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Labels out of `classes_`.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X):
        """Return the decision function of the detector.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What the detector takes.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            As the detector says.
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Return the probabilities of the detector.

        Parameters
        ----------
        X : sequence of images of shape (n_samples,)
            What the detector takes.

        Returns
        -------
        probability : ndarray of shape (n_samples, n_classes)
            As the detector says, in the order of `classes_`.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @property
    def classes_(self):
        """The labels, in sorted order."""
        return self.estimator_.classes_

    def get_metadata_routing(self):
        """Say which metadata go to the detector.

        Returns
        -------
        routing : MetadataRouter
            What is asked for.
        """
        return MetadataRouter(owner=self).add(
            estimator=self.estimator,
            method_mapping=MethodMapping().add(caller="fit", callee="fit"),
        )


def _with_image_ids(params, n_samples):
    """Give groups and pair ids a value of its own for each image without a pair."""
    # Pipelines write the name of a step before that of a parameter.
    named = dict(params)
    for name, value in params.items():
        step, _, kind = name.rpartition("__")
        beside = f"{step}__pair_id" if step else "pair_id"
        if value is not None and kind == "pair_id":
            named[name] = _image_ids(value, n_samples)
        elif value is not None and kind == "groups" and params.get(beside) is None:
            sources, code, pair_id = read_sources(value, n_samples)
            groups = np.empty((n_samples, 2), dtype=object)
            groups[:, 0] = np.array(sources, dtype=object)[code]
            groups[:, 1] = _image_ids(pair_id, n_samples)
            named[name] = groups
    return named


def _image_ids(pair_id, n_samples):
    """Return pair ids that no image lacks; images of one pair share theirs."""
    pair, n_pairs = read_pairs(pair_id, n_samples)
    return np.where(pair >= 0, pair, n_pairs + np.arange(n_samples))
