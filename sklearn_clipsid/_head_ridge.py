"""Fit ridge regressions to chosen heads, and to each other head beside them."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.stats import rankdata


@dataclass
class HeadRidges:
    """Ridge regressions on labels from the heads of many splits of the same rows.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_heads, rank)
        Features of each head.

    synthetic : ndarray of bool of shape (n_samples,)
        Labels.

    alpha : float
        Penalty, in units of the mean variance of a head.
    """

    Z: np.ndarray
    synthetic: np.ndarray
    alpha: float

    @property
    def n_heads(self):
        """Number of heads."""
        return self.Z.shape[1]

    def select(self, splits, n_heads, known=(), check=None):
        """Choose head after head by the mean AUC on splits.

        Parameters
        ----------
        splits : list of tuple of ndarray
            Rows to train on, and rows to score.

        n_heads : int
            How many to choose.

        known : sequence of int, default=()
            The first of them, chosen earlier.

        check : tuple of ndarray, default=None
            Another split, without a say in the choice.

        Returns
        -------
        order : ndarray of int of shape (n_heads,)
            The chosen heads.

        path : ndarray of shape (n_heads - n_known,)
            AUC after each new head on `check`, or the mean on `splits` without it.
        """
        ridges = [_HeadRidge(self.Z, self.synthetic, *s, self.alpha) for s in splits]
        checked = ridges
        if check is not None:
            checked = [_HeadRidge(self.Z, self.synthetic, *check, self.alpha)]
            ridges = [*ridges, *checked]
        for head in known:
            for ridge in ridges:
                ridge.choose(head)
        order, path = list(known), []
        for _ in range(n_heads - len(known)):
            auc = [ridge.auc_with_each() for ridge in ridges[: len(splits)]]
            mean = np.mean(auc, axis=0)  # (n_heads,)
            mean[order] = -1
            best = int(mean.argmax())
            for ridge in ridges:
                ridge.choose(best)
            order.append(best)
            path.append(np.mean([ridge.auc() for ridge in checked]))
        return np.array(order, dtype=np.intp), np.array(path)


class _HeadRidge:
    """Ridge regression on labels from chosen heads, and from each other beside them."""

    def __init__(self, Z, synthetic, train, test, alpha):
        n_train = np.bincount(synthetic[train])
        self.weight = 0.5 / n_train[synthetic[train].astype(int)]  # (n_train,)
        self.mean = np.tensordot(self.weight, Z[train], 1)  # (n_heads, rank)
        self.train = Z[train] - self.mean
        by_head = self.train.transpose(1, 2, 0)  # (n_heads, rank, n_train)
        self.gram = (by_head * self.weight) @ by_head.transpose(0, 2, 1)
        variance = self.gram.trace(axis1=1, axis2=2).mean()
        self.gram += alpha * variance * np.eye(Z.shape[2])
        target = np.where(synthetic[train], self.weight, -self.weight)
        self.moment = by_head @ target  # (n_heads, rank)
        self.test = Z[test] - self.mean  # (n_test, n_heads, rank)
        self.synthetic = synthetic[test]
        self.scores = np.zeros(len(test))
        self.eliminated = []

    def auc(self):
        """Return the AUC of the chosen heads."""
        return self._auc(self.scores[:, None])[0]

    def auc_with_each(self):
        """Return the AUC of the chosen heads and each other one, (n_heads,)."""
        coef = np.linalg.solve(self.gram, self.moment[..., None])[..., 0]
        added = np.einsum("nhr,hr->nh", self.test, coef)
        return self._auc(self.scores[:, None] + added)

    def choose(self, head):
        """Add a head to those chosen, and take it out of all that is left."""
        lower = cholesky(self.gram[head], lower=True)
        inverse = solve_triangular(lower, np.eye(len(lower)), lower=True)
        cross = (self.train[:, head].T * self.weight) @ _flat(self.train)
        for W in self.eliminated:
            cross -= W[:, head].T @ _flat(W)
        flat = inverse @ cross  # (rank, n_heads * rank)
        u = inverse @ self.moment[head]  # (rank,)
        T = self.test[:, head] @ inverse.T  # (n_test, rank)
        self.scores = self.scores + T @ u
        self.test -= (T @ flat).reshape(self.test.shape)
        W = flat.reshape(-1, *self.mean.shape)  # (rank, n_heads, rank)
        by_head = W.transpose(1, 2, 0)
        self.gram -= by_head @ by_head.transpose(0, 2, 1)
        self.moment -= by_head @ u
        self.eliminated.append(W)

    def _auc(self, scores):
        rank = rankdata(scores, axis=0)[self.synthetic].sum(axis=0)
        n_test, n_synthetic = len(scores), self.synthetic.sum()
        pairs = n_synthetic * (n_test - n_synthetic)
        return (rank - n_synthetic * (n_synthetic + 1) / 2) / pairs


def _flat(rows):
    return rows.reshape(len(rows), -1)
