"""Learn vectors in front of words through a frozen text tower (CoOp, 2109.01134)."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sklearn_clipsid._clip._checkpoint import text_tower_kind
from sklearn_clipsid._clip._tower import TextTower
from sklearn_clipsid._clip._weights import resolve_encoder

PLACEHOLDER = "x"  # a word of one token, whose vectors are replaced
LONG = 4096  # tokens; no prompt is cut off there


def has_text_tower(
    model_name: str,
    pretrained: str,
    *,
    weights_dir: str | None = None,
    local_files_only: bool = False,
) -> bool:
    """Say whether a checkpoint holds a text tower that contexts are learned through.

    Parameters
    ----------
    model_name, pretrained, weights_dir, local_files_only
        As in CLIPEmbedder.

    Returns
    -------
    has_text_tower : bool
        False as well for the text towers of Hugging Face.
    """
    encoder = resolve_encoder(
        model_name,
        pretrained,
        weights_dir=weights_dir,
        local_files_only=local_files_only,
    )
    return text_tower_kind(encoder.path) == "open_clip"


class ContextPrompts:
    """Prompts of shared context vectors, each followed by one word and a full stop.

    Parameters
    ----------
    tower : TextTower
        Stays as it is; it may be used for other texts meanwhile.

    words : sequence of str
        The word of each prompt.

    n_context : int
        Number of context vectors.

    Attributes
    ----------
    shape : tuple of two ints
        Of the context: the number of vectors, and the width of a token.

    features_shape : tuple of two ints
        Of what they make: the number of words, and the width of the joint space.
    """

    def __init__(self, tower: TextTower, words: Sequence[str], n_context: int) -> None:
        module = tower._module
        if not hasattr(module, "token_embedding"):
            raise ValueError(
                f"Got a text tower ({type(module).__name__}) that is not open_clip's "
                "own, but expected one to learn a context through; pass "
                "prompts='features'."
            )
        before = " ".join([PLACEHOLDER] * n_context)
        texts = [f"{before} {word}." for word in words]
        self.shape = (n_context, int(module.token_embedding.weight.shape[1]))
        self._start = _start_of_context(tower._tokenizer, texts, n_context)
        tokens = tower._tokenizer(texts)
        _check_length(tower._tokenizer, texts, n_context, tokens.shape[1])
        self._tokens = tokens.to(tower.device)
        self._device = tower.device
        self._context: Any = None
        # A twin with the same weights, so that the tower itself gets no hook.
        embedding = copy.copy(module.token_embedding)
        embedding._forward_hooks = OrderedDict()
        embedding.register_forward_hook(self._insert)
        self._module = copy.copy(module)
        self._module._modules = dict(module._modules, token_embedding=embedding)
        self.features_shape = self.encode(np.zeros(self.shape))[0].shape

    def encode(
        self, context: np.ndarray
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Embed the prompts in the joint space.

        Parameters
        ----------
        context : ndarray of shape (n_context, width)
            The context vectors.

        Returns
        -------
        features : ndarray of shape (n_words, d_projected), dtype float32
            One row for each word, not normalised.

        pull_back : callable
            Turns the derivative of a loss by the features into the one by the context.
        """
        import torch

        leaf = torch.tensor(context, dtype=torch.float32, device=self._device)
        leaf.requires_grad_()
        self._context = leaf
        with torch.enable_grad():  # a caller may have switched it off
            out = self._module(self._tokens)
        out = out[0] if isinstance(out, tuple) else out  # (n_words, d_projected)

        def pull_back(gradient: np.ndarray) -> np.ndarray:
            upstream = torch.tensor(gradient, dtype=out.dtype, device=out.device)
            (pulled,) = torch.autograd.grad(out, leaf, upstream)
            return pulled.cpu().numpy()

        return out.detach().cpu().numpy(), pull_back

    def _insert(self, _module: Any, _inputs: Any, out: Any) -> Any:
        import torch

        n_context = self.shape[0]
        context = self._context.expand(len(out), -1, -1)
        after = out[:, self._start + n_context :]
        return torch.cat([out[:, : self._start], context, after], dim=1)


def _check_length(
    tokenizer: Any, texts: Sequence[str], n_context: int, length: int
) -> None:
    """Refuse prompts of which the tokenizer would cut off the end."""
    rows = tokenizer(texts, context_length=LONG).tolist()
    # What a row ends with is what it was filled up with.
    n_tokens = [1 + max(i for i in range(LONG) if row[i] != row[-1]) for row in rows]
    longest = n_tokens.index(max(n_tokens))
    surplus = n_tokens[longest] - length
    if surplus > 0:
        word = texts[longest].split(" ", n_context)[-1].rstrip(".")
        most = n_context - surplus
        remedy = f"n_context={most} or less" if most > 0 else "a shorter word"
        raise ValueError(
            f"Got n_context={n_context} and the quality word {word!r:.60}, together "
            f"{n_tokens[longest]} tokens, but expected at most {length}, the context "
            f"length of this text tower; pass {remedy}."
        )


def _start_of_context(tokenizer: Any, texts: Sequence[str], n_context: int) -> int:
    """Return where the placeholders begin, the same in every prompt."""
    words = [text.split(" ", n_context)[-1] for text in texts]
    filled = tokenizer(texts, context_length=LONG)  # (n_words, LONG)
    plain = tokenizer(words, context_length=LONG)
    start = int((filled != plain).any(dim=0).int().argmax())
    stop = start + n_context
    is_one_token = bool((filled[:, start:stop] == filled[0, start]).all())
    if not is_one_token or bool((filled[:, stop:] != plain[:, start:-n_context]).any()):
        raise ValueError(
            f"Got a tokenizer that does not give the word {PLACEHOLDER!r} one token, "
            "but expected one to put context vectors in its place; pass "
            "prompts='features'."
        )
    return start
