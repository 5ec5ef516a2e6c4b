"""An image tower whose last part can be trained, cut where the frozen part ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from sklearn_clipsid._clip._checkpoint import image_tensors
from sklearn_clipsid._clip._tower import DTYPES, Features, ImageTower, _digest

BLOCK = "transformer.resblocks.{}."
# The four matrices of a block, which LoRA adds to; biases and norms stay as they are.
MATRICES = (
    "attn.in_proj_weight",
    "attn.out_proj.weight",
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
)
# What updates are added to, of each tower by the first of its blocks: reading it again
# would take longer than a prediction.
FIXED: WeakKeyDictionary[ImageTower, dict[int, Any]] = WeakKeyDictionary()
DOWN, UP = ".lora_down", ".lora_up"  # (rank, n_inputs) and (n_outputs, rank)


class TunableTower:
    """What is trained of an image tower, as a function of its trained tensors.

    Parameters
    ----------
    tower : ImageTower
        The frozen tower, which is not changed.

    train : {"all", "blocks", "lora", "head"}
        As in CLIPFineTuneClassifier. "head" trains nothing of the tower.

    n_blocks : int
        How many of the last blocks are trained, or get low-rank updates.

    lora_rank : int
        Rank of the updates.

    Attributes
    ----------
    device : str
        Of the tower.
    """

    def __init__(
        self, tower: ImageTower, train: str, n_blocks: int, lora_rank: int
    ) -> None:
        self.device = tower.device
        self._tower = tower
        self._train = train
        self._rank = lora_rank
        if train == "head":
            return
        check_trainable(tower, train, n_blocks)
        module = tower._module
        width = module.conv1.out_channels
        if train == "lora" and lora_rank > width:
            raise ValueError(
                f"Got lora_rank={lora_rank} for {tower.encoder.name} but expected at "
                f"most {width}, the rank of its matrices; lower lora_rank."
            )
        self._blocks = list(module.transformer.resblocks)
        self._first = 0 if train == "all" else len(self._blocks) - n_blocks
        self._shape = (module.positional_embedding.shape[0], width)

    def start(self, seed: int) -> dict[str, np.ndarray]:
        """Return the trained tensors as they are before training.

        Parameters
        ----------
        seed : int
            Draws one half of each low-rank update. The other half is zero, so that the
            tower computes what it did.

        Returns
        -------
        tensors : dict of ndarray of dtype float32
            Named as in a checkpoint of open_clip, low-rank updates after the matrix
            that they are added to.
        """
        if self._train == "head":
            return {}
        base = self._base()
        if self._train != "lora":
            return {name: value.numpy().copy() for name, value in base.items()}
        rng = np.random.default_rng(seed)
        tensors = {}
        for name in base:
            if name.endswith(MATRICES):
                n_out, n_in = base[name].shape
                down = rng.standard_normal((self._rank, n_in)) / np.sqrt(n_in)
                tensors[name + DOWN] = down.astype(np.float32)
                tensors[name + UP] = np.zeros((n_out, self._rank), dtype=np.float32)
        return tensors

    def encode(self, pixels: Sequence[np.ndarray], features: Features) -> np.ndarray:
        """Run the frozen part.

        Parameters
        ----------
        pixels : sequence of ndarray of shape (size, size, 3), dtype uint8
            Cropped images.

        features : str, int or tuple
            Ignored: the frozen part has but one.

        Returns
        -------
        rows : ndarray of shape (n_images, n_tokens * width)
            What the first trained block reads. In float16 unless the tower runs in
            fp32: that is finer than bf16 and half as large as float32. With
            ``train="all"`` the pixels.
        """
        import torch

        if self._train == "all":
            return np.stack(pixels).reshape(len(pixels), -1)
        module = self._tower._module
        with torch.inference_mode():
            x = module._embeds(self._tower._standardise(pixels))  # (n, n_tokens, width)
            for block in self._blocks[: self._first]:
                x = block(x)
            if self._tower.precision == "fp32":
                return x.float().flatten(1).cpu().numpy()
            rows = x.to(torch.float16)
            if x.isfinite().all() and not rows.isfinite().all():
                raise ValueError(
                    f"Got values of up to {x.abs().max():.3g} in front of the trained "
                    f"blocks of {self._tower.encoder.name}, but what is kept of them "
                    "in float16 ends at 65504; set precision='fp32' of the embedder."
                )
            return rows.flatten(1).cpu().numpy()

    def embed(self, tensors: Mapping[str, Any], rows: np.ndarray) -> Any:
        """Run the trained part.

        Parameters
        ----------
        tensors : dict of torch.Tensor
            The trained tensors.

        rows : ndarray of shape (n_images, n_features)
            As `encode` returns them.

        Returns
        -------
        pooled, projected : torch.Tensor of shape (n_images, width or d_projected)
            Differentiable in the tensors. With ``train="head"`` both are `rows`.
        """
        import torch
        from torch.nn import functional

        if self._train == "head":
            x = torch.from_numpy(rows).to(self.device)
            return x, x
        weights = self._weights(tensors)
        if self._train == "all":
            x = self._patches(weights, rows)
        else:
            x = torch.from_numpy(rows.reshape(len(rows), *self._shape))
            x = x.to(self.device).float()  # (n, n_tokens, width)
        last = len(self._blocks) - 1
        for index in range(self._first, last + 1):
            x = self._block(weights, index, x, class_token_alone=index == last)
        pooled = functional.layer_norm(
            x[:, 0],
            x.shape[-1:],
            weights["ln_post.weight"],
            weights["ln_post.bias"],
            self._tower._module.ln_post.eps,
        )
        return pooled, pooled @ weights["proj"]

    def embedder(
        self, arrays: Mapping[str, np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Return the trained part as a function from rows to arrays.

        Parameters
        ----------
        arrays : dict of ndarray
            The trained tensors.

        Returns
        -------
        embed : callable
            As `embed`, but for arrays.
        """
        import torch

        tensors = self.to_tensors(arrays)

        def embed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                pooled, projected = self.embed(tensors, rows)
            return pooled.cpu().numpy(), projected.cpu().numpy()

        return embed

    def to_tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return copies of arrays as tensors where the tower is."""
        import torch

        return {
            name: torch.tensor(array, device=self.device)
            for name, array in arrays.items()
        }

    def check(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Raise a ValueError when tensors are not those that this trains.

        Parameters
        ----------
        tensors : dict of ndarray
            Of a fitted estimator.
        """
        expected = {} if self._train == "head" else self._shapes()
        got = {name: np.shape(value) for name, value in tensors.items()}
        if got != expected:
            names = sorted(expected.keys() ^ got.keys())
            names += [n for n in sorted(got) if expected.get(n, got[n]) != got[n]]
            raise ValueError(
                f"Got {len(got)} trained tensors but expected {len(expected)}, which "
                f"differ in {', '.join(names[:3])}; set train, n_blocks and lora_rank "
                "as they were, or fit again."
            )

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {
            name: tuple(value.shape)
            for name, value in self._tower._module.state_dict().items()
            if self._is_late(name)
        }
        if self._train != "lora":
            return shapes
        of_updates: dict[str, tuple[int, ...]] = {}
        for name, shape in shapes.items():
            if name.endswith(MATRICES):
                of_updates[name + DOWN] = (self._rank, shape[1])
                of_updates[name + UP] = (shape[0], self._rank)
        return of_updates

    def _is_late(self, name: str) -> bool:
        """Say whether a tensor is behind the frozen part."""
        late = (BLOCK.format(i) for i in range(self._first, len(self._blocks)))
        return self._train == "all" or name.startswith((*late, "ln_post.", "proj"))

    def _base(self) -> dict[str, Any]:
        """Read what follows the frozen part; a tower in bf16 holds it rounded."""
        tensors = image_tensors(self._tower.encoder.path)
        if _digest(tensors) != self._tower.weights_digest:
            raise ValueError(
                f"Got {self._tower.encoder.path!r}, which was replaced since the model "
                "was built, but expected the same weights; start again."
            )
        return {name: value for name, value in tensors.items() if self._is_late(name)}

    def _weights(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return every tensor of the trained part, with its low-rank updates added."""
        if self._train != "lora":
            return tensors
        fixed = FIXED.setdefault(self._tower, {})
        if self._first not in fixed:
            base = self._base().items()
            fixed[self._first] = {name: x.to(self.device) for name, x in base}
        weights = dict(fixed[self._first])
        for name in list(weights):
            if name + DOWN in tensors:
                update = tensors[name + UP] @ tensors[name + DOWN]
                weights[name] = weights[name] + update
        return weights

    def _patches(self, weights: Mapping[str, Any], rows: np.ndarray) -> Any:
        """Make tokens of pixels, as open_clip does before the first block."""
        import torch
        from torch.nn import functional

        module, size = self._tower._module, self._tower.recipe.size
        pixels = self._tower._standardise(list(rows.reshape(-1, size, size, 3)))
        x = functional.conv2d(pixels, weights["conv1.weight"], stride=module.patch_size)
        x = x.flatten(2).transpose(1, 2)  # (n, n_patches, width)
        first = weights["class_embedding"].expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + weights["positional_embedding"]
        if "ln_pre.weight" not in weights:
            return x
        return functional.layer_norm(
            x,
            x.shape[-1:],
            weights["ln_pre.weight"],
            weights["ln_pre.bias"],
            module.ln_pre.eps,
        )

    def _block(
        self, weights: Mapping[str, Any], index: int, x: Any, class_token_alone: bool
    ) -> Any:
        """Run one block; of the last, nothing but the class token is looked at."""
        import torch
        from torch.nn import functional

        block = self._blocks[index]
        dtype = getattr(torch, DTYPES[self._tower.precision])
        own = {name: weights[BLOCK.format(index) + name] for name in block.state_dict()}

        def linear(x: Any, weight: Any, bias: Any) -> Any:
            return functional.linear(x.to(dtype), weight.to(dtype), bias.to(dtype))

        def norm(x: Any, name: str) -> Any:
            scale, shift = own[f"{name}.weight"], own[f"{name}.bias"]
            eps = getattr(block, name).eps
            return functional.layer_norm(x, x.shape[-1:], scale, shift, eps)

        def scaled(x: Any, name: str) -> Any:
            gamma = own.get(f"{name}.gamma")
            return x if gamma is None else x * gamma

        read = norm(x, "ln_1")  # (n, n_tokens, width)
        if class_token_alone:
            x = x[:, :1]
        attended = self._attention(own, read, x.shape[1], block.attn.num_heads, linear)
        out = linear(
            attended, own["attn.out_proj.weight"], own["attn.out_proj.bias"]
        )  # (n, n_tokens or 1, width)
        x = x + scaled(out.float(), "ls_1")
        hidden = linear(
            norm(x, "ln_2"), own["mlp.c_fc.weight"], own["mlp.c_fc.bias"]
        )  # (n, n_tokens or 1, 4 * width)
        out = linear(
            block.mlp.gelu(hidden), own["mlp.c_proj.weight"], own["mlp.c_proj.bias"]
        )
        return x + scaled(out.float(), "ls_2")

    @staticmethod
    def _attention(
        own: Mapping[str, Any], read: Any, n_queries: int, n_heads: int, linear: Any
    ) -> Any:
        from torch.nn import functional

        width = read.shape[-1]
        of_query, of_rest = own["attn.in_proj_weight"].split([width, 2 * width])
        query_bias, rest_bias = own["attn.in_proj_bias"].split([width, 2 * width])
        query = linear(read[:, :n_queries], of_query, query_bias)
        key, value = linear(read, of_rest, rest_bias).chunk(2, dim=-1)
        heads = [
            x.unflatten(-1, (n_heads, -1)).transpose(1, 2)  # (n, n_heads, n_tokens, d)
            for x in (query, key, value)
        ]
        attended = functional.scaled_dot_product_attention(*heads)
        return attended.transpose(1, 2).flatten(2)  # (n, n_queries, width)


def check_trainable(tower: ImageTower, train: str, n_blocks: int) -> None:
    """Raise a ValueError when the blocks of a tower cannot be trained.

    Parameters
    ----------
    tower : ImageTower
        The tower.

    train : {"all", "blocks", "lora"}
        What is to be trained.

    n_blocks : int
        How many of the last blocks.
    """
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    module, name, why = tower._module, tower.encoder.name, None
    if tower.precision == "fp16":
        raise ValueError(
            "Got precision='fp16' of the embedder, in which small gradients vanish, "
            f"but expected 'fp32', 'bf16' or 'auto' with train={train!r}; set another."
        )
    if not isinstance(module, VisionTransformer):
        why = "is none of open_clip's own ViT models"
    elif module.attn_pool is not None or module.pool_type != "tok":
        why = "pools its tokens"
    else:
        blocks = module.transformer.resblocks
        kinds = {type(block).__name__ for block in blocks}
        if any(type(block) is not ResidualAttentionBlock for block in blocks):
            why = f"has blocks of its own kind ({', '.join(sorted(kinds))})"
    if why is not None:
        raise ValueError(
            f"Got train={train!r} for {name}, which {why}, but expected a ViT whose "
            "embedding is its class token after ordinary attention blocks (ViT-B-32, "
            "ViT-B-16, ViT-L-14, ViT-H-14, …); use train='head' with this one."
        )
    if train != "all" and n_blocks > len(blocks):
        raise ValueError(
            f"Got n_blocks={n_blocks} for {name} but expected at most {len(blocks)}, "
            "the number of its blocks; lower n_blocks."
        )
