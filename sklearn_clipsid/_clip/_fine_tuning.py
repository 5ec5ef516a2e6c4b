"""Train a tower and class vectors with AdamW, in a run that can be taken up again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_clipsid._clip._cosine_model import CLASS_VECTORS, LOG_SCALE, CosineModel


@dataclass(frozen=True)
class TrainingRecipe:
    """How to train.

    With ``max_iter=None`` the learning rates stay as they are.
    """

    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    batch_size: int
    max_iter: int | None
    warmup_fraction: float
    max_norm: float | None
    n_iter_no_change: int
    seed: int

    def rate(self, step: int, n_steps: int) -> float:
        """Return the share of the learning rates that a step takes, from 0 on."""
        if self.max_iter is None:
            return 1.0
        n_warm = round(self.warmup_fraction * n_steps)
        if step < n_warm:
            return (step + 1) / n_warm
        return (1 + math.cos(math.pi * (step - n_warm) / (n_steps - n_warm))) / 2


@dataclass
class History:
    """What has happened in a training run."""

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    is_over: bool = False
    failure: str = ""


@dataclass(frozen=True)
class TrainingSet:
    """The images of a training run, and their labels.

    Parameters
    ----------
    rows_of : ImageRows
        ``rows_of(indices, epoch)`` returns what the trained part reads of images;
        epoch is None where they are to be shown as they are. ``rows_of.names(indices)``
        names them.

    codes : ndarray of int of shape (n_images,)
        Classes as 0, 1, ….

    weights : ndarray of shape (n_images,)
        Of the images in the loss.

    train, held_out : ndarray of int
        Indices to train on, and to stop on, which may be none.
    """

    rows_of: Any
    codes: np.ndarray
    weights: np.ndarray
    train: np.ndarray
    held_out: np.ndarray


def fine_tune(
    model: CosineModel,
    start: Mapping[str, np.ndarray],
    rows: TrainingSet,
    recipe: TrainingRecipe,
    *,
    n_done: int = 0,
    checkpoint: str | os.PathLike | None = None,
    on_batch: Callable[[int], None] = lambda n_images: None,
) -> tuple[dict[str, np.ndarray], History]:
    """Train until the epochs are over or the validation loss no longer falls.

    Parameters
    ----------
    model : CosineModel
        What is trained.

    start : dict of ndarray
        All trained tensors before training.

    rows : TrainingSet
        The images.

    recipe : TrainingRecipe
        How to train. ``max_iter=None`` is one epoch.

    n_done : int, default=0
        Epochs before this run; each shuffles the images in another way.

    checkpoint : str or PathLike, default=None
        File that is written after each epoch. When it is there, training goes on from
        it.

    on_batch : callable
        Told how many images are done.

    Returns
    -------
    tensors : dict of ndarray
        Those of the lowest validation loss, or the last.

    history : History
        With `failure` when the loss was not finite; `tensors` are those before the
        epoch in which that happened.
    """
    run = _Run(model, start, rows, recipe, n_done, on_batch)
    if checkpoint is not None and os.path.exists(checkpoint):
        run.read(checkpoint)
        on_batch(len(run.history.loss) * len(rows.train))
    while not run.history.is_over:
        run.epoch()
        # A failure is not written: its cause may be gone when training is repeated.
        if checkpoint is not None and not run.history.failure:
            run.write(checkpoint)
    return {name: value.cpu().numpy() for name, value in run.kept.items()}, run.history


class _Run:
    """A training run between two epochs; all of its state is in a checkpoint."""

    def __init__(
        self,
        model: CosineModel,
        start: Mapping[str, np.ndarray],
        rows: TrainingSet,
        recipe: TrainingRecipe,
        n_done: int,
        on_batch: Callable[[int], None],
    ) -> None:
        self.model, self.rows, self.recipe = model, rows, recipe
        self.n_done, self.on_batch = n_done, on_batch
        self.n_epochs = recipe.max_iter or 1
        self.history = History()
        self._set(model.tower.to_tensors(start))

    def _set(self, tensors: dict[str, Any]) -> None:
        from torch.optim import AdamW

        self.tensors = {name: x.requires_grad_() for name, x in tensors.items()}
        self.kept = self._copy()
        recipe = self.recipe
        groups = []
        for name, tensor in self.tensors.items():
            of_head = name in (CLASS_VECTORS, LOG_SCALE)
            # As usual, norms and biases are not drawn towards zero; the length of a
            # class vector means nothing.
            decays = tensor.ndim > 1 and not of_head
            groups.append(
                {
                    "params": [tensor],
                    "lr": 0.0,
                    "peak": recipe.head_learning_rate
                    if of_head
                    else recipe.learning_rate,
                    "weight_decay": recipe.weight_decay if decays else 0.0,
                }
            )
        self.optimiser = AdamW(groups)

    def _copy(self) -> dict[str, Any]:
        return {name: x.detach().clone() for name, x in self.tensors.items()}

    def epoch(self) -> None:
        """Visit the images once, and decide whether to go on."""
        history, rows = self.history, self.rows
        epoch = len(history.loss)
        number = self.n_done + epoch + 1
        loss = self._visit(epoch)
        if not history.failure:
            # Without rows to stop on, those of the last step say whether it was sound.
            stop_on = rows.held_out if len(rows.held_out) else self.last_batch
            after = self._loss_of(stop_on)
            scale = self.tensors[LOG_SCALE].exp().item()
            if not math.isfinite(after) or not 0 < scale < math.inf:
                history.failure = (
                    f"a loss of {after:.3g} and a scale of the cosines of {scale:.3g} "
                    f"after epoch {number}"
                )
        if history.failure:
            history.is_over = True
            return
        history.loss.append(loss)
        if len(rows.held_out):
            history.validation_loss.append(after)
        lowest = history.validation_loss[history.best_epoch :][:1]
        if epoch == 0 or not lowest or after < lowest[0]:
            history.best_epoch, self.kept = epoch, self._copy()
        stale = epoch - history.best_epoch
        # Numbers of NumPy would make another kind of boolean, which JSON cannot write.
        history.is_over = bool(
            stale >= self.recipe.n_iter_no_change or epoch + 1 >= self.n_epochs
        )

    def _visit(self, epoch: int) -> float:
        """Take the steps of one epoch; return the mean loss."""
        import torch

        rows, recipe = self.rows, self.recipe
        # Of its own for each epoch, so that a run taken up again draws the same.
        rng = np.random.default_rng([recipe.seed, self.n_done + epoch])
        order = rng.permutation(rows.train)
        n_batches = -(-len(order) // recipe.batch_size)
        parameters = list(self.tensors.values())
        total = 0.0
        for i in range(n_batches):
            batch = order[i * recipe.batch_size : (i + 1) * recipe.batch_size]
            seen = rows.rows_of(batch, self.n_done + epoch)
            self.optimiser.zero_grad()
            loss = self.model.loss(
                self.tensors, seen, rows.codes[batch], rows.weights[batch]
            )
            loss.backward()
            limit = math.inf if recipe.max_norm is None else recipe.max_norm
            norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
            if not (loss.isfinite() and norm.isfinite()):
                self.history.failure = (
                    f"a loss of {loss.item():.3g} and a gradient of norm "
                    f"{norm.item():.3g} in batch {i + 1} of {n_batches} of epoch "
                    f"{self.n_done + epoch + 1} ({rows.rows_of.names(batch)})"
                )
                return math.nan
            share = recipe.rate(epoch * n_batches + i, self.n_epochs * n_batches)
            for group in self.optimiser.param_groups:
                group["lr"] = share * group["peak"]
            self.optimiser.step()
            total += loss.item() * len(batch)
            self.last_batch = batch
            self.on_batch(len(batch))
        return total / len(order)

    def _loss_of(self, indices: np.ndarray) -> float:
        """Return the mean loss of images as they are."""
        import torch

        rows, step = self.rows, self.recipe.batch_size
        total = 0.0
        with torch.no_grad():
            for first in range(0, len(indices), step):
                batch = indices[first : first + step]
                seen = rows.rows_of(batch, None)
                loss = self.model.loss(
                    self.tensors, seen, rows.codes[batch], rows.weights[batch]
                )
                total += loss.item() * len(batch)
        return total / (float(rows.weights[indices].sum()) or 1.0)

    def write(self, path: str | os.PathLike) -> None:
        """Replace the checkpoint, which is whole at any time."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        parts = {f"kept {name}": value for name, value in self.kept.items()}
        if not self.history.is_over:  # the rest is needed only to go on
            parts |= {f"now {name}": x for name, x in self._copy().items()}
            for name, x in self.tensors.items():
                for key, value in self.optimiser.state[x].items():
                    parts[f"{key} {name}"] = value
        partial = Path(f"{os.fspath(path)}.{os.getpid()}.partial")
        try:
            history = json.dumps(asdict(self.history))
            save_file(parts, partial, metadata={"history": history})
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"Could not write the checkpoint {os.fspath(path)!r} ({error}); make "
                "room, or pass another checkpoint_dir."
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def read(self, path: str | os.PathLike) -> None:
        """Go back to where a checkpoint was written."""
        from safetensors import SafetensorError, safe_open

        parts: dict[str, dict[str, Any]] = {}
        try:
            with safe_open(
                path, framework="pt", device=self.model.tower.device
            ) as file:
                self.history = _history_of(file.metadata()["history"])
                for key in file.keys():
                    part, name = key.split(" ", 1)
                    parts.setdefault(part, {})[name] = file.get_tensor(key)
            self._take_up(parts)
        except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"Got the checkpoint {os.fspath(path)!r}, which cannot be read "
                f"({error}), but expected one that this training wrote; delete it to "
                "start anew."
            ) from error

    def _take_up(self, parts: dict[str, dict[str, Any]]) -> None:
        is_over = self.history.is_over
        needed = {"kept"} if is_over else {"kept", "now", "exp_avg", "exp_avg_sq"}
        for part in needed:
            self._check_part(parts[part])
        if not is_over:
            # In the order of a new run, in which the norms of gradients are summed.
            self._set({name: parts["now"][name].clone() for name in self.tensors})
            for name, x in self.tensors.items():
                state = {key: parts[key][name] for key in ("exp_avg", "exp_avg_sq")}
                # AdamW keeps its counter of steps on the CPU.
                state["step"] = parts["step"][name].cpu()
                self.optimiser.state[x] = state
        self.kept = {name: parts["kept"][name] for name in self.tensors}

    def _check_part(self, part: dict[str, Any]) -> None:
        """Raise a ValueError unless a part goes together with what is trained."""
        if part.keys() != self.tensors.keys():
            raise ValueError("other tensors")
        for name, x in part.items():
            same = x.shape == self.tensors[name].shape
            if not same or x.dtype != self.tensors[name].dtype:
                raise ValueError(f"{name} of shape {tuple(x.shape)}, {x.dtype}")
            if not x.isfinite().all():
                raise ValueError(f"{name} is not finite")


def _history_of(text: str) -> History:
    """Read a history, or raise an error when it is none."""
    history = History(**json.loads(text))
    losses = [*history.loss, *history.validation_loss]
    if not all(type(loss) is float for loss in losses) or not losses:
        raise ValueError("a history without losses")
    return history
