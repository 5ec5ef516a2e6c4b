"""The paper's recipe as a plain PyTorch loop, to compare the detector with."""

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional


class OrthogonalHead(nn.Module):
    """k linear activations, summed to one logit."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.activations = nn.Linear(n_features, n_components)
        nn.init.orthogonal_(self.activations.weight)
        self.logit = nn.Linear(n_components, 1)

    def forward(self, X):
        """Return the activations and the logits."""
        A = self.activations(X)  # (n_samples, n_components)
        return A, self.logit(A)[:, 0]


def fit_plain_torch(X, y, *, n_components, seed, max_iter=200):
    """Fit the head with autograd and `torch.optim.Adam`.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features of mean row norm 32.95.

    y : ndarray of shape (n_samples,)
        1 for synthetic images.

    n_components : int
        Number of activations k.

    seed : int
        Initialisation, validation split and order of the batches.

    max_iter : int, default=200
        Epochs at most.

    Returns
    -------
    head : OrthogonalHead
        In the state of the best epoch.

    n_iter : int
        Epochs run.
    """
    torch.manual_seed(seed)
    head = OrthogonalHead(X.shape[1], n_components)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-3, weight_decay=0.01)
    bce = nn.BCEWithLogitsLoss()
    identity = torch.eye(n_components)
    X = torch.as_tensor(X, dtype=torch.float32)
    targets = torch.as_tensor(np.where(y == 1, 0.9, 0.1), dtype=torch.float32)
    train, held_out = train_test_split(
        np.arange(len(y)), test_size=0.1, stratify=y, random_state=seed
    )
    X_train, t_train = X[train], targets[train]
    X_held_out, t_held_out = X[held_out], targets[held_out]
    curve, best_state, n_stale = [np.inf], None, 0  # infinity: no epoch yet
    for _ in range(max_iter):
        for batch in torch.randperm(len(train)).split(64):
            A, logits = head(X_train[batch])
            loss = bce(logits, t_train[batch])
            unit = functional.normalize(A, dim=0)
            loss = loss + 0.33 * torch.linalg.norm(identity - unit.T @ unit)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            value = bce(head(X_held_out)[1], t_held_out).item()
        if value < min(curve):
            n_stale = 0
            best_state = {k: v.clone() for k, v in head.state_dict().items()}
        else:
            n_stale += 1
        curve.append(value)
        if n_stale == 5:
            break
    head.load_state_dict(best_state)
    return head, len(curve) - 1


def decision_function(head, X):
    """Return the logits of rows as an ndarray."""
    with torch.no_grad():
        return head(torch.as_tensor(X, dtype=torch.float32))[1].numpy()
