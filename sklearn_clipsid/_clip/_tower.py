"""One frozen CLIP tower as a function from pixels or texts to arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sklearn_clipsid._block_index import block_index
from sklearn_clipsid._clip._checkpoint import image_tensors, text_tensors
from sklearn_clipsid._clip._heads import check_heads, head_contributions
from sklearn_clipsid._clip._weights import Encoder
from sklearn_clipsid._content_hash import signature_of

# What CLIPEmbedder calls features; its heads with the number of their blocks.
Features = str | int | tuple[str, int]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class ImageTower:
    """A built image tower.

    Parameters
    ----------
    encoder : Encoder
        What to build, and from which file.

    device : str
        A torch device.

    precision : {"fp32", "bf16", "fp16"}
        Number format of the weights and of the forward pass.

    Attributes
    ----------
    weights_digest : str
        blake2b over the names, shapes and fp32 values of the tower's tensors: the same
        for a .pt file, a .safetensors file and a file that holds both towers.

    file : FileSignature
        The checkpoint as it was when it was read.

    recipe : Recipe
        The model's own preprocessing.

    device, precision : str
        As given.
    """

    def __init__(self, encoder: Encoder, device: str, precision: str) -> None:
        self.file = signature_of(encoder.path)  # before it is read
        tensors = image_tensors(encoder.path)
        self.encoder = encoder
        self.recipe = encoder.recipe
        self.device = device
        self.precision = precision
        self.weights_digest = _digest(tensors)
        module = _build_image_module(encoder, tensors)
        # Kept in fp32, as a cast tower rounds its own copy.
        projection = getattr(module, "proj", None)
        self._projection = (
            None if projection is None else projection.detach().numpy().copy()
        )
        self._module = module.to(device).eval().requires_grad_(False)
        self._input_dtype = _to_precision(self._module, precision)

    @property
    def projection(self) -> np.ndarray:
        """Matrix from pooled to projected features, (d_pooled, d_projected)."""
        self._check_vit("projection()")
        assert self._projection is not None
        return self._projection.copy()

    def check_features(self, features: Features) -> None:
        """Raise a ValueError when this tower has no such features.

        Parameters
        ----------
        features : {"pooled", "projected", "blocks"}, int or ("heads", int)
            Which features; see CLIPEmbedder.
        """
        if features == "projected":
            return
        name = features[0] if isinstance(features, tuple) else features
        self._check_vit(f"features={name!r}")
        if isinstance(features, tuple):
            check_heads(self._module, self.encoder.name, features[1])
        elif not isinstance(features, str):
            block_index(features, len(self._module.transformer.resblocks))

    def encode(self, pixels: Sequence[np.ndarray], features: Features) -> np.ndarray:
        """Embed a batch.

        Parameters
        ----------
        pixels : sequence of ndarray of shape (size, size, 3), dtype uint8
            Cropped images.

        features : {"pooled", "projected", "blocks"}, int or ("heads", int)
            Which features; see CLIPEmbedder.

        Returns
        -------
        embeddings : ndarray of shape (n_images, n_features), dtype float32
        """
        import torch

        with torch.inference_mode():
            embedded = self._forward(self._standardise(pixels), features)
            return embedded.float().cpu().numpy()  # (n_images, n_features)

    def _standardise(self, pixels: Sequence[np.ndarray]) -> Any:
        """Scale and standardise in torchvision's order of operations, bit for bit."""
        import torch

        batch = torch.from_numpy(np.stack(pixels)).to(self.device)  # (n, s, s, 3)
        x = batch.permute(0, 3, 1, 2).contiguous().float().div_(255)  # (n, 3, s, s)
        mean = torch.tensor(self.recipe.mean, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(self.recipe.std, device=self.device).view(1, 3, 1, 1)
        return x.sub_(mean).div_(std).to(self._input_dtype)

    def _forward(self, x: Any, features: Features) -> Any:
        import torch

        if features == "projected":
            out = self._module(x)
            return out[0] if isinstance(out, tuple) else out  # (n, d_projected)
        self.check_features(features)
        tower = self._module
        tokens = tower._embeds(x)  # (n, n_tokens, width)
        if features == "pooled":
            return tower._pool(tower.transformer(tokens))[0]  # (n, width)
        if isinstance(features, tuple):
            return self._heads(tokens, features[1])
        n_blocks = len(tower.transformer.resblocks)
        wanted = (
            range(n_blocks)
            if features == "blocks"
            else [block_index(int(features), n_blocks)]
        )
        _, blocks = tower.transformer.forward_intermediates(
            tokens, indices=list(wanted), stop_early=True
        )
        return torch.cat([block[:, 0] for block in blocks], dim=1)

    def _heads(self, tokens: Any, n_blocks: int) -> Any:
        tower = self._module
        n_in_all = len(tower.transformer.resblocks)
        first = n_in_all - n_blocks
        _, streams = tower.transformer.forward_intermediates(
            tokens, indices=list(range(max(first - 1, 0), n_in_all))
        )
        if first == 0:
            streams = [tokens, *streams]
        embedding = tower._pool(streams[-1])[0] @ tower.proj  # (n, d_projected)
        parts = head_contributions(tower, streams, embedding)
        return parts.flatten(1)  # (n, (n_heads_of_all + 1) * d_projected)

    def _check_vit(self, asked: str) -> None:
        from open_clip.transformer import VisionTransformer

        is_vit = isinstance(self._module, VisionTransformer)
        if not is_vit or self._module.attn_pool is not None:
            raise ValueError(
                f"Got {asked} for {self.encoder.name}, which has no class token before "
                "a linear projection, but expected one of open_clip's own ViT models "
                "(ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14, …); use "
                "features='projected' with this one."
            )


class TextTower:
    """A built text tower with its tokenizer.

    Parameters
    ----------
    encoder : Encoder
        What to build, and from which file.

    tokenizer_name : str
        The name under which open_clip knows the tokenizer.

    device : str
        A torch device. Texts are always embedded in fp32: there are few of them.
    """

    def __init__(self, encoder: Encoder, tokenizer_name: str, device: str) -> None:
        import open_clip
        from open_clip.model import _build_text_tower

        config = encoder.config
        tower = _build_text_tower(
            config["embed_dim"],
            dict(config["text_cfg"], hf_model_pretrained=False),
            quick_gelu=bool(config.get("quick_gelu", False)),
        )
        tensors = text_tensors(encoder.path)
        _load_strictly(tower, tensors, encoder, what="text tower")
        self.device = device
        self._module = tower.to(device).eval().requires_grad_(False)
        self._tokenizer = open_clip.get_tokenizer(tokenizer_name)

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        """Embed texts in the joint space.

        Parameters
        ----------
        texts : sequence of str
            The texts; tokens beyond the model's context length are cut off.

        batch_size : int
            Texts per forward pass.

        Returns
        -------
        embeddings : ndarray of shape (n_texts, d_projected), dtype float32
        """
        import torch

        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                tokens = self._tokenizer(list(texts[start : start + batch_size]))
                out = self._module(tokens.to(self.device))
                out = out[0] if isinstance(out, tuple) else out
                rows.append(out.float().cpu().numpy())
        return np.concatenate(rows)  # (n_texts, d_projected)


def _digest(tensors: dict[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {tuple(value.shape)} ".encode())
        digest.update(value.numpy())
    return digest.hexdigest()


def _build_image_module(encoder: Encoder, tensors: dict[str, Any]) -> Any:
    import torch
    from open_clip.model import _build_vision_tower

    def build(place: str) -> Any:
        with torch.device(place):
            return _build_vision_tower(
                encoder.config["embed_dim"],
                # False, or timm would fetch ImageNet weights that are then overwritten.
                dict(encoder.config["vision_cfg"], timm_model_pretrained=False),
                quick_gelu=bool(encoder.config.get("quick_gelu", False)),
            )

    # On the meta device nothing is initialised only to be overwritten; towers with
    # buffers that no checkpoint holds (timm's rotary ones) need the real thing.
    if encoder.config["vision_cfg"].get("timm_model_name"):
        tower = build("cpu")
    else:
        tower = build("meta")
    _load_strictly(tower, tensors, encoder, what="image tower")
    return tower


def _to_precision(module: Any, precision: str) -> Any:
    """Cast a tower in place and return the dtype of its input.

    In open_clip's ViT only the matrices of the blocks are cast; the residual stream and
    both ends stay in fp32. Rounding the stream too makes a forward pass a tenth faster
    and the worst row fifty times further from fp32 (cosine .9922 against .9998).
    """
    import torch
    from open_clip.transformer import VisionTransformer

    dtype = getattr(torch, DTYPES[precision])
    if not isinstance(module, VisionTransformer):
        module.to(dtype)
        return dtype
    if dtype != torch.float32:
        for block in module.transformer.resblocks:
            block.attn.to(dtype)
            block.mlp.to(dtype)
            for norm in (block.ln_1, block.ln_2):
                norm.register_forward_hook(lambda _module, _in, out: out.to(dtype))
    return torch.float32


def _load_strictly(
    tower: Any, tensors: dict[str, Any], encoder: Encoder, what: str
) -> None:
    expected = {key: tuple(v.shape) for key, v in tower.state_dict().items()}
    got = {key: tuple(v.shape) for key, v in tensors.items()}
    if expected != got:
        missing = sorted(expected.keys() - got.keys())
        unexpected = sorted(got.keys() - expected.keys())
        reshaped = [
            f"{key} is {got[key]}, not {expected[key]}"
            for key in sorted(expected.keys() & got.keys())
            if expected[key] != got[key]
        ]
        raise ValueError(
            f"Got a checkpoint ({encoder.path!r}) whose {what} is not that of "
            f"{encoder.name}: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(reshaped)} "
            f"of another shape {reshaped[:3]}.{_fitting_models(got)}"
        )
    tower.load_state_dict(tensors, assign=True)


def _fitting_models(shapes: dict[str, tuple[int, ...]]) -> str:
    """Name open_clip's ViT models whose measures a checkpoint has."""
    import open_clip

    if not {"conv1.weight", "positional_embedding", "proj"} <= shapes.keys():
        return ""
    width, _, patch, _ = shapes["conv1.weight"]
    grid = round((shapes["positional_embedding"][0] - 1) ** 0.5)
    block_of = (k.split(".")[2] for k in shapes if k.startswith("transformer.resbl"))
    n_blocks = len(set(block_of))
    fitting = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision = config["vision_cfg"]
        measures = (vision.get("width"), vision.get("patch_size"), vision.get("layers"))
        if (*measures, vision.get("image_size"), config["embed_dim"]) == (
            width,
            patch,
            n_blocks,
            patch * grid,
            shapes["proj"][1],
        ):
            fitting.append(name)
    if not fitting:
        return ""
    return f" Its measures are those of {', '.join(fitting)}: pass that model_name."
