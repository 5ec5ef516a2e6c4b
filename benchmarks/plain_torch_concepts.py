"""The published concept model as a plain PyTorch loop, to compare the detector with."""

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

TEMPERATURE, SPARSITY, GATE_PRIOR, EPS = 0.1, 1e-4, 1e-4, 1e-7


class ConceptModel(nn.Module):
    """A logit from similarities to concepts, each behind a gate."""

    def __init__(self, directions):
        super().__init__()
        n_concepts, n_features = directions.shape
        self.register_buffer("T", directions)
        self.gates = nn.Linear(n_features, n_concepts)
        self.logit = nn.Linear(n_concepts, 1)
        nn.init.xavier_normal_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)
        nn.init.xavier_normal_(self.logit.weight)
        nn.init.constant_(self.logit.bias, 0.1)

    def forward(self, X):
        """Return the logits and the divergence of the gates."""
        E = functional.normalize(X)  # (n_samples, n_features)
        S = E @ self.T.T  # (n_samples, n_concepts)
        G = self.gates(E)
        Q = torch.sigmoid(G)
        if self.training:
            u = torch.rand_like(G).clamp(1e-8, 1 - 1e-8)
            noise = torch.log(u) - torch.log(1 - u)
            M = torch.sigmoid((noise + G) / TEMPERATURE).clamp(1e-6, 1 - 1e-6)
        else:
            M = Q
        return self.logit(S * M)[:, 0], divergence(Q).sum(dim=1).mean()


def divergence(Q):
    """Return KL(Bern(q) || Bern(π)), as published."""
    log_open = torch.log(Q + EPS) - np.log(GATE_PRIOR + EPS)
    log_closed = torch.log(1 - Q + EPS) - np.log(1 - GATE_PRIOR + EPS)
    return Q * log_open + (1 - Q) * log_closed


def by_index(X, targets):
    """Yield shuffled batches of one epoch, gathered by index."""
    for batch in torch.randperm(len(X)).split(256):
        yield X[batch], targets[batch]


def by_loader(X, targets):
    """Yield shuffled batches of one epoch from a DataLoader, as published."""
    yield from DataLoader(TensorDataset(X, targets), batch_size=256, shuffle=True)


def fit_plain_torch(
    X, y, directions, *, seed, batches=by_index, max_iter=400, n_iter_no_change=40
):
    """Fit the model with autograd and `torch.optim.AdamW`.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Embeddings.

    y : ndarray of shape (n_samples,)
        1 for synthetic images.

    directions : ndarray of shape (n_concepts, n_features)
        Concepts at unit norm.

    seed : int
        Initialisation, validation split, order of the batches and noise of the gates.

    batches : callable, default=by_index
        `by_index` or `by_loader`.

    max_iter : int, default=400
        Epochs at most.

    n_iter_no_change : int, default=40
        Epochs without a new minimum before stopping.

    Returns
    -------
    model : ConceptModel
        In the state of the best epoch.

    n_iter : int
        Epochs run.
    """
    torch.manual_seed(seed)
    model = ConceptModel(torch.as_tensor(directions, dtype=torch.float32))
    optimiser = torch.optim.AdamW(
        [
            {"params": model.gates.parameters(), "lr": 0.01, "weight_decay": 0},
            {"params": model.logit.parameters(), "lr": 0.01, "weight_decay": 1e-4},
        ]
    )
    bce = nn.BCEWithLogitsLoss()
    X = torch.as_tensor(X, dtype=torch.float32)
    targets = torch.as_tensor(y, dtype=torch.float32)
    train, held_out = train_test_split(
        np.arange(len(y)), test_size=0.1, stratify=y, random_state=seed
    )
    X_train, t_train = X[train], targets[train]
    X_held_out, t_held_out = X[held_out], targets[held_out]
    curve, best_state, n_stale = [np.inf], None, 0  # infinity: no epoch yet
    for _ in range(max_iter):
        model.train()
        for X_batch, t_batch in batches(X_train, t_train):
            logits, kl = model(X_batch)
            loss = bce(logits, t_batch) + SPARSITY * kl
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            logits, kl = model(X_held_out)
            value = (bce(logits, t_held_out) + SPARSITY * kl).item()
        if value < min(curve):
            n_stale = 0
            best_state = {k: v.clone() for k, v in model.state_dict().items()}
        else:
            n_stale += 1
        curve.append(value)
        if n_stale == n_iter_no_change:
            break
    model.load_state_dict(best_state)
    return model.eval(), len(curve) - 1


def decision_function(model, X):
    """Return the logits of rows as an ndarray."""
    with torch.no_grad():
        return model(torch.as_tensor(X, dtype=torch.float32))[0].numpy()
