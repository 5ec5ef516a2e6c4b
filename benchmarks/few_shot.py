"""What eight steps an epoch are worth when there are few images."""

import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings

SIZES = (10, 20, 50, 100, 200, 400)
N_DRAWS = 8
BATCH_SIZE, N_EPOCHS, MIN_STEPS = 64, 200, 8


def draw(y, size, random_state):
    """Draw half photographs and half synthetic images; the rest is for testing."""
    chosen = [
        random_state.choice(np.flatnonzero(y == label), size // 2, replace=False)
        for label in (0, 1)
    ]
    train = np.concatenate(chosen)
    return train, np.setdiff1d(np.arange(len(y)), train)


def epochs_of_published_schedule(n_rows):
    """Return our epochs that take the steps of 200 epochs of one visit to each row."""
    n_batches = -(-n_rows // BATCH_SIZE)
    n_visits = -(-MIN_STEPS // n_batches)
    return N_EPOCHS // n_visits


def main():
    """Print AUC by number of training images."""
    X, y = load_sample_embeddings(return_X_y=True)
    print("Random rows of the packaged sample, so test generators are also trained on.")
    print(f"{'images':>8}{'paper':>10}{'ours':>10}   AUC, mean of {N_DRAWS} draws")
    for size in tqdm(SIZES, leave=False):
        auc = np.empty((N_DRAWS, 2))
        for seed in range(N_DRAWS):
            train, test = draw(y, size, np.random.RandomState(seed))
            for j, max_iter in enumerate(
                (epochs_of_published_schedule(size), N_EPOCHS)
            ):
                detector = OrthogonalLinearDetector(
                    max_iter=max_iter,
                    early_stopping=False,
                    random_state=seed,
                ).fit(X[train], y[train])
                auc[seed, j] = roc_auc_score(
                    y[test], detector.decision_function(X[test])
                )
        before, after = auc.mean(axis=0)
        print(f"{size:8d}{before:10.3f}{after:10.3f}", flush=True)


if __name__ == "__main__":
    main()
