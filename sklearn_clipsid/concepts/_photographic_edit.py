"""Describe one way to edit a photograph towards or away from a property."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_random_state


@dataclass(frozen=True)
class PhotographicEdit:
    """A named edit of a photograph, with a strength for either direction.

    Calling it with a photograph returns the two poles, which
    `concept_directions_from_images` compares.

    Parameters
    ----------
    name : str
        What the positive pole has more of, such as "saturation".

    category : str
        Group of the edit, such as "colour".

    apply : callable
        ``apply(pixels, strength, random_state)`` takes an ndarray of shape (height,
        width, 3), float32 between 0 and 1, and returns one of the same shape, which is
        clipped. It is not called with strength 0, which is the photograph as it is.

    positive, negative : str
        What the photograph becomes, in words.

    positive_strength : float, default=1
        Strength that makes the positive pole.

    negative_strength : float, default=0
        Strength that makes the negative pole; 0 is the photograph as it is.

    See Also
    --------
    photographic_edits : The edits that come with the package.
    concept_directions_from_images : Find the directions of edits.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid.concepts import PhotographicEdit
    >>> def brighten(pixels, strength, random_state):
    ...     return pixels * 2**strength
    >>> edit = PhotographicEdit(
    ...     "brightness", "light", brighten, "a stop lighter", "a stop darker", 1, -1
    ... )
    >>> grey = np.full((1, 1, 3), 100, dtype=np.uint8)
    >>> lighter, darker = edit(grey)
    >>> int(lighter.max()), int(darker.max())
    (200, 50)
    """

    name: str
    category: str
    apply: Callable
    positive: str
    negative: str
    positive_strength: float = 1.0
    negative_strength: float = 0.0

    def __call__(self, pixels, random_state=None):
        """Return the photograph edited both ways.

        Parameters
        ----------
        pixels : ndarray of shape (height, width, 3), dtype uint8
            The photograph.

        random_state : int, RandomState instance or None, default=None
            For edits that draw random numbers.

        Returns
        -------
        positive, negative : ndarrays of shape (height, width, 3), dtype uint8
            The photograph at either strength.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"Got a photograph of dtype {pixels.dtype} and shape {pixels.shape} "
                "but expected uint8 of shape (height, width, 3)."
            )
        random_state = check_random_state(random_state)
        return tuple(
            self._at(pixels, strength, random_state)
            for strength in (self.positive_strength, self.negative_strength)
        )

    def _at(self, pixels, strength, random_state):
        if strength == 0:
            return pixels
        scaled = pixels.astype(np.float32) / 255
        edited = np.asarray(self.apply(scaled, strength, random_state))
        is_float = edited.dtype.kind == "f"
        if (
            edited.shape != pixels.shape
            or not is_float
            or not np.isfinite(edited).all()
        ):
            raise ValueError(
                f"Got an image of dtype {edited.dtype} and shape {edited.shape} from "
                f"the edit {self.name!r} at strength {strength!r}, but expected finite "
                f"floats around 0 to 1 of shape {pixels.shape}; correct its apply."
            )
        return np.rint(np.clip(edited, 0, 1) * 255).astype(np.uint8)
