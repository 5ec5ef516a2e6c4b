"""Keep the attention heads by which unseen generators are told from photographs."""

from numbers import Integral, Real

import numpy as np
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import ClassifierTags
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)

from sklearn_clipsid._finite_rows import check_finite_rows
from sklearn_clipsid._head_ridge import HeadRidges
from sklearn_clipsid._nested_folds import best_place, nested_folds, read_binary_labels

# (heads of a block, d_projected) of the ViT image towers that open_clip knows. For any
# number of blocks they make different widths, which tell them apart.
VIT_HEADS = (
    (6, 256),
    (6, 384),
    (8, 384),
    (8, 512),
    (12, 512),
    (14, 640),
    (16, 768),
    (16, 1024),
    (16, 1280),
)


class HeadSelector(TransformerMixin, BaseEstimator):
    r"""Select the attention heads by which unseen generators are recognised.

    ``CLIPEmbedder(features="heads")`` writes an embedding as a sum over the attention
    heads of the last blocks [2]_. A classifier on a few of them may transfer better
    than one on the sum [1]_. Greedy forward selection adds, again and again, the head
    with which a classifier is best on generators, and on photo sources, that it was not
    trained on. How many heads to keep is decided on further generators that had no say
    in which.

    Parameters
    ----------
    max_heads : int, default=None
        How many heads to keep, at most. None allows all.

    patience : int, default=16
        Stop when `score_path_` has had no new best for so many heads.

    tol : float, default=0.001
        What counts as a new best: an AUC larger by more than this.

    alpha : float, default=0.01
        Ridge penalty of the classifier inside, in units of the variance of one head.

    rank : int, default=16
        How many principal components of each head the classifier inside takes.
        `transform` returns all of a head.

    head_blocks : int, default=4
        As in `CLIPEmbedder`.

    embed_dim : int, default=None
        Width of the joint space of images and texts. None recognises open_clip's ViT
        models by the number of features.

    cv : cross-validation splitter, default=None
        Has to split parts of the rows as well. None is `LeaveOneGeneratorOut` on
        `groups`; without `groups` it is a stratified 5-fold cross-validation (fewer
        folds where a class has fewer rows), which says nothing of unseen generators,
        with a warning.

    pos_label : int, float, bool or str, default=None
        The label of synthetic images. None is the second label in sorted order.

    Attributes
    ----------
    selected_ : ndarray of int of shape (n_selected, 2)
        The heads that are kept, in the order in which they were chosen: the block,
        counted from the last as -1, and the head in it, counted from 1.

    support_ : ndarray of bool of shape (n_heads_of_all,)
        Which heads are kept, block after block.

    score_path_ : ndarray of shape (n_checked,)
        Mean AUC with 1, 2, … heads on validation folds that had no part in choosing
        them. `selected_` is as long as the path was at its best.

    selection_path_ : ndarray of shape (n_selected,)
        Mean AUC with 1, 2, … heads on the folds that chose them: too good, as the
        maximum of many scores always is.

    embed_dim_ : int
        Width of the part of one head.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    See Also
    --------
    CLIPEmbedder : Makes the features.
    BlockSelector : Chooses a block of ``features="blocks"``.
    TextSpan : Names a head by what varies along it; the columns of one head lie in the
        space of texts.

    Notes
    -----
    **The classifier inside** is ridge regression on labels of -1 and 1, with classes of
    equal weight, on the first principal components of the chosen heads. Each head is
    scaled to the same variance, as heads of the last block vary up to 500 times as much
    as others and would decide alone. Choosing a head eliminates its block from the
    normal equations of all heads (Gaussian elimination), which leaves those of each
    other head given the chosen ones. A candidate then costs a system of `rank`
    equations, and gets the score that a refit would give it. The principal components
    are those of all rows that `fit` gets, found without labels; a head has 64 in a
    ViT-B or ViT-L, however wide its part.

    **Honest numbers.** Each validation fold is held out in turn; on the rest, folds are
    made again, and heads are chosen by the mean AUC on them; the path of the held-out
    fold is its own AUC. `score_path_` is the mean of these paths, and its best place
    says how many heads all rows together choose. With n generators that are n (n - 1)
    classifiers, and at least three generators are needed: one to train on, one to
    choose on, one to check on. `selection_path_` must not be reported, and the best of
    `score_path_` is a little too good, too. Report what cross-validation of the whole
    pipeline says (``benchmarks/heads.py``).

    The choice need not bring anything: with 668 images of nine generators and six photo
    sources it did no better than all heads of four blocks (``benchmarks/heads.py``).
    Compare with all heads, and with the projected embedding, before you trust it.

    **What is returned** are the parts of the chosen heads side by side and not their
    sum, in which they could not be weighted. The rest of the embedding (MLPs, biases,
    earlier blocks) is never returned. Put a StandardScaler behind, as heads differ in
    size.

    **Naming.** A part lies in the space of texts. To name head j of the rows X of
    ``features="heads"``, give its columns to `TextSpan`:
    ``TextSpan(T, texts).fit(X.reshape(len(X), -1, d_projected)[:, j])``. In [2]_ each
    part is divided by the norm of the whole embedding, the sum of all parts, first.

    References
    ----------
    .. [1] T. Gaintseva et al., "Improving Interpretability and Robustness for the
       Detection of AI-Generated Images", arXiv 2406.15035.

    .. [2] Y. Gandelsman, A. Efros, J. Steinhardt, "Interpreting CLIP's Image
       Representation via Text-Based Decomposition", ICLR 2024, arXiv 2310.05916.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid import HeadSelector, TextSpan
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(["GAN", "LDM", "SD", "real"], [50, 50, 50, 150])
    >>> y = (groups != "real").astype(int)
    >>> parts = rng.normal(size=(300, 5, 8))  # 2 blocks of 2 heads, and the rest
    >>> parts[:, 2] += y[:, None]
    >>> X = parts.reshape(300, 40)
    >>> selector = HeadSelector(head_blocks=2, embed_dim=8).fit(X, y, groups)
    >>> selector.selected_.tolist()  # the first head of the last block
    [[-1, 1]]
    >>> selector.transform(X).shape
    (300, 8)
    >>> texts = ["grain", "blur", "bokeh", "warm tones"]
    >>> head = parts[:, 2] + 3 * rng.normal(size=(300, 1)) * np.eye(8)[1]
    >>> TextSpan(np.eye(8)[:4], texts, n_components=1).fit(head).texts_.tolist()
    ['blur']
    """

    _parameter_constraints = {
        "max_heads": [Interval(Integral, 1, None, closed="left"), None],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "head_blocks": [Interval(Integral, 1, None, closed="left")],
        "embed_dim": [Interval(Integral, 1, None, closed="left"), None],
        "cv": [HasMethods(["split"]), None],
        "pos_label": [Real, str, "boolean", None],
    }

    # Routed by default: without groups other heads would be chosen.
    __metadata_request__fit = {"groups": True}

    def __init__(
        self,
        *,
        max_heads=None,
        patience=16,
        tol=0.001,
        alpha=0.01,
        rank=16,
        head_blocks=4,
        embed_dim=None,
        cv=None,
        pos_label=None,
    ):
        self.max_heads = max_heads
        self.patience = patience
        self.tol = tol
        self.alpha = alpha
        self.rank = rank
        self.head_blocks = head_blocks
        self.embed_dim = embed_dim
        self.cv = cv
        self.pos_label = pos_label

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, groups=None):
        """Choose the heads.

        Parameters
        ----------
        X : array-like of shape (n_samples, (n_heads_of_all + 1) * embed_dim)
            The features of ``CLIPEmbedder(features="heads")``, not normalised.

        y : array-like of shape (n_samples,)
            Labels of two classes.

        groups : array-like of shape (n_samples,) or (n_samples, 2), default=None
            The generator of each synthetic image and the source of each photograph;
            in a second column, if there is one, the pair ids.

        Returns
        -------
        self : HeadSelector
            The fitted transformer.
        """
        X, y = validate_data(
            self, X, y, ensure_all_finite=False, ensure_min_samples=2, dtype="numeric"
        )
        check_finite_rows(X, self)
        self.embed_dim_ = self._find_embed_dim()
        synthetic = read_binary_labels(y, self.pos_label)
        folds = nested_folds(self, y, synthetic, groups)
        task = HeadRidges(self._principal_rows(X), synthetic, self.alpha)
        self.score_path_ = self._check_selection(task, folds)
        n_selected = 1 + best_place(self.score_path_, self.tol)
        splits = [fold.split for fold in folds]
        chosen, self.selection_path_ = task.select(splits, n_selected)
        self.support_ = np.isin(np.arange(task.n_heads), chosen)
        block, head = np.divmod(chosen, task.n_heads // self.head_blocks)
        self.selected_ = np.column_stack([block - self.head_blocks, head + 1])
        return self

    def transform(self, X):
        """Return the parts of the chosen heads.

        Parameters
        ----------
        X : array-like of shape (n_samples, (n_heads_of_all + 1) * embed_dim)
            The features of ``CLIPEmbedder(features="heads")``.

        Returns
        -------
        X_heads : ndarray of shape (n_samples, n_selected * embed_dim)
            The parts of the heads in `support_`, block after block.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite=False)
        check_finite_rows(X, self)
        return X[:, self._columns()]

    def get_feature_names_out(self, input_features=None):
        """Return the names of the features that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input features.

        Returns
        -------
        names : ndarray of str
            Those of the chosen heads.
        """
        check_is_fitted(self)
        return _check_feature_names_in(self, input_features)[self._columns()]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.classifier_tags = ClassifierTags(multi_class=False)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _columns(self):
        with_rest = np.append(self.support_, False)
        return np.repeat(with_rest, self.embed_dim_)  # (n_features,)

    def _find_embed_dim(self):
        n_features = self.n_features_in_
        if self.embed_dim is None:
            for n_heads, width in VIT_HEADS:
                if (self.head_blocks * n_heads + 1) * width == n_features:
                    return width
            raise ValueError(
                f"Got {n_features} features, which is none of open_clip's ViT models "
                f"with the heads of {self.head_blocks} blocks side by side, but "
                "expected the output of CLIPEmbedder(features='heads', head_blocks="
                f"{self.head_blocks}); pass its head_blocks, and embed_dim for another "
                "model."
            )
        n_parts, left = divmod(n_features, self.embed_dim)
        if left or n_parts < 2 or (n_parts - 1) % self.head_blocks:
            raise ValueError(
                f"Got n_features = {n_features} but expected {self.embed_dim} for each "
                f"head of {self.head_blocks} blocks and for the rest; pass the output "
                "of CLIPEmbedder(features='heads') with its head_blocks and embed_dim."
            )
        return self.embed_dim

    def _principal_rows(self, X):
        """Return principal components of each head, scaled to a variance of 1."""
        parts = X.reshape(len(X), -1, self.embed_dim_)[:, :-1]
        rank = min(self.rank, self.embed_dim_)
        Z = np.zeros((len(X), parts.shape[1], rank))  # (n_samples, n_heads, rank)
        top = [self.embed_dim_ - rank, self.embed_dim_ - 1]
        for head in range(parts.shape[1]):
            A = parts[:, head].astype(np.float64)
            A -= A.mean(axis=0)
            size = np.linalg.norm(A) / np.sqrt(len(A))
            if size > 0:  # else it says nothing
                A /= size
                Z[:, head] = A @ eigh(A.T @ A, subset_by_index=top)[1]
        if not Z.any():
            raise ValueError(
                f"Got {len(X)} rows of X whose heads are all equal but expected rows "
                "that differ; check the features."
            )
        return Z

    def _check_selection(self, task, folds):
        """Return the mean AUC by number of heads, of folds without a say in them."""
        # Rounds, as the folds are too large to be kept in memory all at once.
        chosen, path = [()] * len(folds), np.empty(0)
        most = min(self.max_heads or task.n_heads, task.n_heads)
        while len(path) < most:
            n_heads = min(len(path) + self.patience, most)
            results = [
                task.select(fold.inner, n_heads, known, check=fold.split)
                for fold, known in zip(folds, chosen)
            ]
            chosen = [order for order, _ in results]
            path = np.append(path, np.mean([scores for _, scores in results], axis=0))
            best = best_place(path, self.tol)
            if len(path) - 1 - best >= self.patience:
                return path[: best + 1 + self.patience]
        return path
