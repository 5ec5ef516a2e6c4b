"""Name directions of a detector by the directions of words nearest to them."""

from numbers import Integral

import numpy as np
from scipy.stats import beta
from sklearn.utils import Bunch, check_array
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_clipsid._concept_vocabulary import check_concepts
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._unit_rows import unit_rows

LEVEL = 0.95


@validate_params(
    {"top": [Interval(Integral, 1, None, closed="left")]},
    prefer_skip_nested_validation=True,
)
def name_components(
    components, directions, names, projection=None, *, poles=None, signs=None, top=5
):
    r"""Rank named directions by their cosine with each component of a detector.

    The names are those of the nearest directions among the given ones [1]_. That one
    is nearest does not make it near: compare its cosine with `chance`.

    Parameters
    ----------
    components : array-like of shape (n_components, n_features) or (n_features,)
        Directions to name, such as `coef_` or `components_`; of any length.

    directions : array-like of shape (n_directions, n_projected)
        Directions with names in the joint space of images and texts, such as text
        embeddings or the differences between those of antonyms; of any length.

    names : array-like of str of shape (n_directions,)
        Their names, all different.

    projection : array-like of shape (n_features, n_projected), default=None
        The matrix that takes components to the joint space, ``embedder.projection()``
        of the :class:`~sklearn_clipsid.CLIPEmbedder` whose pooled features the detector
        was fitted on. None for a detector of projected features.

    poles : array-like of str of shape (n_directions, 2), default=None
        What each direction points to and what it points away from. None shows the
        name behind a "+" or a "-".

    signs : array-like of shape (n_components,), default=None
        1 for components that point to synthetic and -1 for those that point to
        photographs, which are turned. `coef_` and canonical axes need none; for learned
        axes pass ``np.sign(detector.activation_weights_[0])``.

    top : int, default=5
        Names per component, at most all.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        Dictionary-like, with attributes:

        table : structured ndarray of shape (n_components, top)
            The fields "name", "pole" and "cosine", sorted by the absolute cosine. A
            cosine above 0 says that the component, turned to synthetic, points to the
            first pole. ``pandas.DataFrame(table[i])`` is the table of component i.
        cosines : ndarray of shape (n_components, n_directions)
            All of them, in the order of the directions.
        chance : float
            What the largest absolute cosine of a random component stays below with a
            probability of 0.95.
        above_chance : ndarray of bool of shape (n_components, top)
            Whether the absolute cosine in the table is larger than that.

    See Also
    --------
    cue_profile : Correlates scores of images, instead of comparing directions.
    sklearn_clipsid.TextSpan : Names what features vary along.

    Notes
    -----
    A component r with the logit :math:`r^\top x` is taken to the joint space as
    :math:`p = P^\top r` with the projection P (n_features, n_projected), and
    compared with the unit directions :math:`t_j` as
    :math:`\cos_j = t_j^\top p / \|p\|`.

    The squared cosine of a fixed direction with a random one in d dimensions has the
    distribution :math:`\mathrm{Beta}(1/2, (d - 1)/2)`. With its distribution function F
    and n directions taken as independent, `chance` is the c that solves
    :math:`F(c^2)^n = 0.95`. It holds for one component; among many, some pass by
    chance.

    Directions that resemble one another make the true level lower than that. But
    embeddings and projections prefer some directions to others, components as well as
    words, which makes it higher, and often by more. To be above chance is necessary,
    then, and not sufficient. Neither does a name say that a detector uses what it
    names.

    Pooled and projected features of a few encoders have the same width. Nothing can
    tell them apart; the projection is needed there as well.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid.inspection import name_components
    >>> coef = np.array([[2.0, -1.0, 0.0]])
    >>> found = name_components(coef, np.eye(3), ["grain", "blur", "tint"], top=2)
    >>> found.table["pole"].tolist()
    [['+grain', '-blur']]
    >>> found.table["cosine"].round(2).tolist()
    [[0.89, -0.45]]
    >>> round(found.chance, 2)  # in three dimensions, any three words are near
    0.98
    """
    R, T, names = _in_one_space(components, directions, names, projection)
    if signs is not None:
        R = R * _check_signs(signs, len(R))[:, None]
    poles = _check_poles(poles, names)  # (n_directions, 2)
    cosines = R @ T.T  # (n_components, n_directions)
    order = np.argsort(-np.abs(cosines), axis=1, kind="stable")[:, :top]
    cosine = np.take_along_axis(cosines, order, axis=1)
    dtype = [("name", names.dtype), ("pole", poles.dtype), ("cosine", np.float64)]
    table = np.empty(order.shape, dtype)  # (n_components, top)
    table["name"], table["cosine"] = names[order], cosine
    table["pole"] = poles[order, (cosine < 0).astype(int)]
    chance = _chance(*T.shape)
    return Bunch(
        table=table,
        cosines=cosines,
        chance=chance,
        above_chance=np.abs(cosine) > chance,
    )


def _in_one_space(components, directions, names, projection):
    """Return components and directions of unit norm in one space, and the names."""
    R = _check_components(components)
    directions = check_array(
        directions,
        dtype=np.float64,
        ensure_all_finite=False,
        input_name="directions",
    )
    n_features, n_projected = R.shape[1], directions.shape[1]
    if names is None:
        raise ValueError("Got names=None but expected a name for each direction.")
    T, names = check_concepts(
        directions, names, n_projected, called=("directions", "names")
    )
    if projection is not None:
        R = _project(R, _check_projection(projection, n_features, n_projected))
    elif n_features != n_projected:
        raise ValueError(
            f"Got components of width {n_features:,} and directions of width "
            f"{n_projected:,} but expected one width: the components live in the "
            f"{n_features:,} pooled features, the directions in the {n_projected:,}-d "
            "joint space of images and texts, so that their numbers cannot be "
            "compared. Pass projection=embedder.projection() of the encoder whose "
            "pooled features the detector was fitted on."
        )
    return R, T, names


def _project(R, projection):
    """Return unit rows of the joint space."""
    projected = R @ projection
    rounding = len(projection) * np.finfo(np.float64).eps * np.linalg.norm(projection)
    lost = np.flatnonzero(np.linalg.norm(projected, axis=1) <= rounding)
    if len(lost):
        raise ValueError(
            f"Got components that the projection takes to zero, in {_rows(lost)}, but "
            "expected directions that texts can have; leave these components out."
        )
    return unit_rows(projected)[0]


def _check_components(components):
    if np.ndim(components) == 1:
        components = np.reshape(components, (1, -1))
    R = check_array(
        components,
        dtype=np.float64,
        ensure_all_finite=False,
        input_name="components",
    )
    bad = np.flatnonzero(~np.isfinite(R).all(axis=1))
    if len(bad):
        raise ValueError(
            f"Got NaN or infinity in components, in {_rows(bad)}, but expected "
            "numbers; leave these components out."
        )
    R, zero = unit_rows(R)
    if len(zero):
        raise ValueError(
            f"Got components that are zero in {_rows(zero)} but expected directions; "
            "leave these out. Canonical axes are zero where fewer than n_components "
            "were found."
        )
    return R


def _check_projection(projection, n_features, n_projected):
    projection = check_array(projection, dtype=np.float64, input_name="projection")
    if projection.shape != (n_features, n_projected):
        raise ValueError(
            f"Got a projection of shape {projection.shape} but expected "
            f"{(n_features, n_projected)}, from the width of the components to that of "
            "the directions; pass embedder.projection() of the encoder whose pooled "
            "features the detector was fitted on, not transposed."
        )
    return projection


def _check_signs(signs, n_components):
    signs = np.asarray(signs)
    if signs.shape != (n_components,):
        raise ValueError(
            f"Got signs of shape {signs.shape} but expected ({n_components},), one per "
            "component."
        )
    wrong = [f"row {i} has {s!r}" for i, s in enumerate(signs.tolist()) if s**2 != 1]
    if wrong:
        raise ValueError(
            f"Got signs other than 1 and -1 ({first_few(wrong)}); a component without "
            "weight points nowhere, leave it out."
        )
    return signs


def _check_poles(poles, names):
    if poles is None:
        return np.array([[f"+{name}", f"-{name}"] for name in names])
    poles = np.asarray(poles, dtype=object)
    if poles.shape != (len(names), 2):
        raise ValueError(
            f"Got poles of shape {poles.shape} but expected ({len(names)}, 2): what "
            "each direction points to, and what it points away from."
        )
    for row, pair in enumerate(poles.tolist()):
        if not all(isinstance(pole, str) and pole.strip() for pole in pair):
            raise ValueError(
                f"Got the poles {pair!r} in row {row} ({names[row]}) but expected two "
                "strings that are not empty."
            )
    return poles.astype(np.str_)


def _chance(n_directions, n_features):
    if n_features == 1:  # where every cosine is 1 or -1
        return 1.0
    # 1 - LEVEL ** (1 / n_directions), without losing digits.
    tail = -np.expm1(np.log(LEVEL) / n_directions)
    return float(np.sqrt(beta.isf(tail, 1 / 2, (n_features - 1) / 2)))


def _rows(rows):
    word = "row" if len(rows) == 1 else "rows"
    return f"{word} {first_few([str(row) for row in rows])}"
