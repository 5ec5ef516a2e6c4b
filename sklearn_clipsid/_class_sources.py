"""Find the sources of each class, and their means."""

from dataclasses import dataclass

import numpy as np

from sklearn_clipsid._groups import read_sources


@dataclass
class ClassSources:
    """The photo sources and generators among rows.

    A name that rows of two classes share is two sources.

    Parameters
    ----------
    names : ndarray of shape (n_sources,)
        Their names.

    class_of : ndarray of shape (n_sources,)
        Number of the class of each.

    labels : ndarray of shape (n_classes,)
        The classes.

    of_row : ndarray of shape (n_samples,)
        Number of the source of each row.
    """

    names: np.ndarray
    class_of: np.ndarray
    labels: np.ndarray
    of_row: np.ndarray

    @property
    def n_rows(self):
        """Number of rows of each source."""
        return np.bincount(self.of_row)

    def means(self, X):
        """Return the mean row of each source.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            Features.

        Returns
        -------
        means : ndarray of shape (n_sources, n_features)
            In double precision.
        """
        n = self.n_rows
        ordered = X[np.argsort(self.of_row, kind="stable")]
        starts = np.cumsum(n) - n
        sums = np.add.reduceat(ordered, starts, axis=0, dtype=np.float64)
        return sums / n[:, None]


def read_class_sources(y, groups):
    """Read which sources there are, and which rows are theirs.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels.

    groups : array-like of shape (n_samples,) or (n_samples, 2)
        Sources, or sources and pair ids, which are not used.

    Returns
    -------
    sources : ClassSources
        The sources, by class and name.
    """
    labels, label = np.unique(y, return_inverse=True)
    names, code, _ = read_sources(groups, len(y))
    found, of_row = np.unique(label * len(names) + code, return_inverse=True)
    class_of, name = np.divmod(found, len(names))
    return ClassSources(np.array(names)[name], class_of, labels, of_row)
