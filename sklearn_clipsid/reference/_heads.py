"""Turn published PyTorch heads into fitted estimators."""

import os

import numpy as np
from sklearn.linear_model import LogisticRegression

from sklearn_clipsid._concept_bottleneck import ConceptBottleneckClassifier
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._orthogonal_linear import OrthogonalLinearDetector
from sklearn_clipsid.reference._detectors import KINDS

# The tensors of each kind, without the names of the modules around the head.
LAYOUTS = {
    "clip_orthogonal": {
        "classification_head.layers.0.weight",
        "classification_head.layers.0.bias",
        "classification_head.to_logits.weight",
        "classification_head.to_logits.bias",
    },
    "linear_probe": {"classification_head.fc.weight", "classification_head.fc.bias"},
    "cm_antonyms": {
        "text_embeddings",
        "W_concepts.weight",
        "W_concepts.bias",
        "W_classifier.weight",
        "W_classifier.bias",
    },
    "universal_fake_detect": {"weight", "bias"},
    "clipdet": {"fc.weight", "fc.bias"},
}
AROUND = ("module.", "model.")


def load_reference_head(file, kind=None, *, concept_names=None):
    """Load a published detector's head as a fitted estimator.

    The number of features, activations and concepts is that of the file. The file is
    read without running any code in it, whatever its name ends in.

    Parameters
    ----------
    file : str or PathLike
        A .safetensors file, or one of ``torch.save`` that holds the tensors of one
        head. Anything else in it is refused.

    kind : str, default=None
        What the file must be; None finds out. "clip_orthogonal", "linear_probe" and
        "cm_antonyms" are the heads of [1]_, "universal_fake_detect" is the
        ``fc_weights.pth`` of [2]_, and "clipdet" the ``clipdet_latent10k`` of [3]_.

    concept_names : array-like of str of shape (n_concepts,), default=None
        Names of the concepts, which the file does not hold; for the published ones
        ``read_antonyms("antonyms.csv").names``. None numbers them.

    Returns
    -------
    head : estimator
        A fitted `OrthogonalLinearDetector`, `ConceptBottleneckClassifier` or, for the
        linear ones, `sklearn.linear_model.LogisticRegression`. Class 1 is synthetic.

    Raises
    ------
    ValueError
        When the file holds anything but the tensors of one such head, or when it is of
        another kind.

    See Also
    --------
    reference_pipeline : Puts the right embedder before it.
    list_reference_detectors : Lists the published files.

    Notes
    -----
    A head means nothing behind other features than those it was trained on. That of
    [3]_ expects rows of unit norm (``CLIPEmbedder(normalize=True)``), the others do
    not. `list_reference_detectors` has the settings.

    What a fit measures on its training rows is not there: `axis_share_`,
    `concept_usage_` and `concept_auc_`. `partial_fit` of an `OrthogonalLinearDetector`
    goes on from the published head; `fit` starts anew.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    .. [2] U. Ojha, Y. Li, Y. J. Lee, "Towards Universal Fake Image Detectors that
       Generalize Across Generative Models", CVPR 2023, arXiv 2302.10174.

    .. [3] D. Cozzolino, G. Poggi, R. Corvi, M. Nießner, L. Verdoliva, "Raising the Bar
       of AI-generated Image Detection with CLIP", CVPR Workshops 2024, arXiv
       2312.00195.

    Examples
    --------
    >>> from sklearn_clipsid.reference import load_reference_head
    >>> head = load_reference_head("clip_orthogonal_combined.ckpt")  # doctest: +SKIP
    >>> head.decision_function(X)  # doctest: +SKIP
    """
    from sklearn_clipsid._clip._head_checkpoint import read_head_arrays

    file = os.fsdecode(file)
    if kind is not None and kind not in list(KINDS):
        raise ValueError(
            f"Got kind={kind!r} but expected one of {', '.join(map(repr, KINDS))}, or "
            "None to find out."
        )
    arrays = _bare_names(read_head_arrays(file), file)
    found = _kind_of_arrays(arrays, file)
    if kind not in (None, found):
        raise ValueError(
            f"Got {file!r}, which is a head of the kind {found!r}, but expected "
            f"{kind!r}: the file or the name of the detector is wrong. Pass the other "
            "file, or the name that this one was published under."
        )
    if concept_names is not None and found != "cm_antonyms":
        raise ValueError(
            f"Got concept_names for {file!r}, which is a head of the kind {found!r}, "
            "but expected a concept model with them; leave them out."
        )
    if found == "clip_orthogonal":
        return _orthogonal_head(arrays, file)
    if found == "cm_antonyms":
        return _concept_head(arrays, concept_names, file)
    return _linear_head(arrays, file)


def _bare_names(arrays, file):
    """Take the names of the modules around the head off those of its tensors."""
    bare = {}
    for key, array in arrays.items():
        name = key
        while name.startswith(AROUND):
            name = name.partition(".")[2]
        if name in bare:
            raise ValueError(
                f"Got {file!r} with two tensors for {name!r:.60}, but expected one "
                "head; save only head.state_dict()."
            )
        bare[name] = array
    return bare


def _kind_of_arrays(arrays, file):
    for kind, layout in LAYOUTS.items():
        if arrays.keys() == layout:
            return kind
    known = "; ".join(
        f"{kind}: {', '.join(sorted(layout))}" for kind, layout in LAYOUTS.items()
    )
    names = first_few([f"{name:.60}" for name in sorted(arrays)])
    raise ValueError(
        f"Got {file!r} with the tensors {names} but expected "
        f"exactly those of one published head ({known}). Other layers are not "
        "supported; train an estimator of this package on the same features instead."
    )


def _check_shapes(expected, file):
    """Refuse arrays whose shapes do not fit each other."""
    wrong = [
        f"{name} is {array.shape}, " + (f"not {shape}" if array.size else "empty")
        for name, (array, shape) in expected.items()
        if array.shape != shape or array.size == 0
    ]
    if wrong:
        raise ValueError(
            f"Got {file!r}, in which {'; '.join(wrong)}, but expected the tensors of "
            "one head with a single logit; get the published file."
        )


def _width(array):
    return array.shape[-1] if array.ndim else 0


def _linear_head(arrays, file):
    weight, bias = (
        next(array for key, array in arrays.items() if key.endswith(end))
        for end in ("weight", "bias")
    )
    expected = {"weight": (weight, (1, _width(weight))), "bias": (bias, (1,))}
    _check_shapes(expected, file)
    head = LogisticRegression()
    head.classes_ = np.array([0, 1])
    head.coef_, head.intercept_ = weight, bias
    head.n_features_in_ = weight.shape[1]
    head.n_iter_ = np.zeros(1, dtype=np.int32)
    return head


def _orthogonal_head(arrays, file):
    around = "classification_head."
    W1, b1 = arrays[f"{around}layers.0.weight"], arrays[f"{around}layers.0.bias"]
    W2, b2 = arrays[f"{around}to_logits.weight"], arrays[f"{around}to_logits.bias"]
    k = b1.size
    expected = {
        "layers.0.weight": (W1, (k, _width(W1))),
        "layers.0.bias": (b1, (k,)),
        "to_logits.weight": (W2, (1, k)),
        "to_logits.bias": (b2, (1,)),
    }
    _check_shapes(expected, file)
    head = OrthogonalLinearDetector(n_components=k)
    head.n_components_, head.n_features_in_ = W1.shape
    head.classes_, head.feature_scale_ = np.array([0, 1]), 1.0
    _without_history(head)
    head._store(np.concatenate([array.ravel() for array in (W1, b1, W2, b2)]))
    return head


def _concept_head(arrays, concept_names, file):
    T, A, c = (
        arrays[key]
        for key in ("text_embeddings", "W_concepts.weight", "W_concepts.bias")
    )
    w, b = arrays["W_classifier.weight"], arrays["W_classifier.bias"]
    shape = (c.size, _width(T))
    expected = {
        "text_embeddings": (T, shape),
        "W_concepts.weight": (A, shape),
        "W_concepts.bias": (c, (c.size,)),
        "W_classifier.weight": (w, (1, c.size)),
        "W_classifier.bias": (b, (1,)),
    }
    _check_shapes(expected, file)
    head = ConceptBottleneckClassifier(T, concept_names)
    head.n_features_in_, head.classes_ = shape[1], np.array([0, 1])
    head.concept_embeddings_, head.concept_names_ = head._concepts(shape[1])
    head.gates_, head.gate_coef_, head.gate_intercept_ = "embedding", A, c
    # The published model takes the directions at their length, ours at unit norm.
    head.concept_weights_ = w[0] * np.linalg.norm(T, axis=1)
    head.intercept_ = b
    _without_history(head)
    return head


def _without_history(head):
    """Say that this package has trained it for no epoch."""
    head.n_iter_ = 0
    head.loss_curve_, head.validation_loss_curve_ = np.empty(0), None
