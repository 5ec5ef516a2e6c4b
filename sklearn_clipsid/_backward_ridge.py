"""Take components away from ridge classifiers one at a time, by rank-one updates."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score


@dataclass
class BackwardRidge:
    """Greedy backward elimination of components, for ridge classifiers.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_components)
        Components.

    synthetic : ndarray of bool of shape (n_samples,)
        Labels.

    penalty : float
        Ridge penalty per row.
    """

    Z: np.ndarray
    synthetic: np.ndarray
    penalty: float

    def eliminate(self, splits, n_steps, known=()):
        """Remove, each time, the component without which the mean AUC is highest.

        Parameters
        ----------
        splits : list of tuple of ndarray
            Training and test rows of each fold.

        n_steps : int
            How many to remove.

        known : sequence of int, default=()
            Those that are removed already.

        Returns
        -------
        order : ndarray of shape (n_steps,)
            Which were removed.

        path : ndarray of shape (n_steps + 1,)
            Mean AUC before and after each removal.
        """
        left = np.setdiff1d(np.arange(self.Z.shape[1]), known)
        ridges = [self.ridge(split, left) for split in splits]
        order, path = [], [np.mean([ridge.auc() for ridge in ridges])]
        places = np.arange(len(left))  # in `left`
        for _ in range(n_steps):
            auc = np.mean([ridge.auc_without_each(places) for ridge in ridges], axis=0)
            worst = places[auc.argmax()]
            for ridge in ridges:
                ridge.remove(worst)
            order.append(left[worst])
            path.append(auc.max())
            places = places[places != worst]
        return np.array(order, dtype=np.intp), np.array(path)

    def check(self, fold, n_steps, known):
        """Remove by the folds inside a fold, and score the fold itself.

        Parameters
        ----------
        fold : NestedFold
            Its training and test rows, and the folds of its training rows.

        n_steps : int
            How many to remove.

        known : sequence of int
            Those that are removed already.

        Returns
        -------
        order : ndarray of shape (n_steps,)
            Which were removed.

        path : list of float
            AUC of the fold after each removal.
        """
        order, _ = self.eliminate(fold.inner, n_steps, known)
        left = np.setdiff1d(np.arange(self.Z.shape[1]), known)
        ridge, path = self.ridge(fold.split, left), []
        for place in np.searchsorted(left, order):
            ridge.remove(place)
            path.append(ridge.auc())
        return order, path

    def ridge(self, split, components=slice(None)):
        """Fit to the training rows of a split.

        Parameters
        ----------
        split : tuple of ndarray
            Training and test rows.

        components : ndarray of int or slice, default=slice(None)
            Of `Z`; all by default.

        Returns
        -------
        ridge : RidgeWithout
            With the scores of the test rows.
        """
        train, test = split
        return RidgeWithout(
            self.Z[train][:, components],
            self.synthetic[train],
            self.Z[test][:, components],
            self.synthetic[test],
            self.penalty,
        )


class RidgeWithout:
    """Ridge regression on labels, and its scores of test rows without components.

    Removed components keep their place, with a weight of zero.

    Parameters
    ----------
    A : ndarray of shape (n_train, n_components)
        Training rows.

    synthetic : ndarray of bool of shape (n_train,)
        Their labels.

    V : ndarray of shape (n_test, n_components)
        Test rows.

    synthetic_test : ndarray of bool of shape (n_test,)
        Their labels.

    penalty : float
        Ridge penalty per training row.
    """

    def __init__(self, A, synthetic, V, synthetic_test, penalty):
        mean = A.mean(axis=0)
        A, V = A - mean, V - mean
        target = np.where(synthetic, 1.0, -1.0)
        gram = A.T @ A  # (n_components, n_components)
        gram.flat[:: len(gram) + 1] += penalty * len(A)
        self.inverse = np.linalg.inv(gram)
        self.coef = self.inverse @ (A.T @ (target - target.mean()))
        self.scores = V @ self.coef
        self.reach = self.inverse @ V.T  # (n_components, n_test)
        self.synthetic = synthetic_test.astype(np.float64)

    def auc(self):
        """Return the AUC of the test rows."""
        return roc_auc_score(self.synthetic, self.scores)

    def scores_without_each(self, places):
        """Return the scores without each of some components, (n_places, n_test)."""
        share = self.coef[places] / self.inverse[places, places]
        return self.scores - share[:, None] * self.reach[places]

    def auc_without_each(self, places):
        """Return the AUC without each of some components, (n_places,)."""
        # Equal scores count in any order, which is good enough to choose by.
        order = np.argsort(self.scores_without_each(places), axis=1)
        n_test, n_synthetic = order.shape[1], self.synthetic.sum()
        rank_sum = self.synthetic[order] @ np.arange(1.0, n_test + 1)
        n_pairs = n_synthetic * (n_test - n_synthetic)
        return (rank_sum - n_synthetic * (n_synthetic + 1) / 2) / n_pairs

    def remove(self, place):
        """Update everything to what a fit without a component gives."""
        column = self.inverse[:, place] / np.sqrt(self.inverse[place, place])
        share = self.coef[place] / column[place]
        reach = self.reach[place] / column[place]
        self.scores = self.scores - share * reach
        self.coef -= share * column
        self.reach -= np.outer(column, reach)
        self.inverse -= np.outer(column, column)
