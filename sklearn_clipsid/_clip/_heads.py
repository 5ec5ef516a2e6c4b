"""Write a projected embedding as a sum over attention heads (Gandelsman et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_heads(tower: Any, name: str, n_blocks: int) -> None:
    """Raise a ValueError when a ViT's embedding is no sum over its heads.

    Parameters
    ----------
    tower : open_clip.transformer.VisionTransformer
        The image tower.

    name : str
        What to call it in messages.

    n_blocks : int
        How many of the last blocks are asked for.
    """
    from open_clip.transformer import ResidualAttentionBlock

    blocks = tower.transformer.resblocks
    why = None
    if tower.pool_type != "tok":
        why = f"pools its tokens (pool_type={tower.pool_type!r})"
    elif not all(type(block) is ResidualAttentionBlock for block in blocks):
        why = f"has blocks of its own kind ({type(blocks[-1]).__name__})"
    if why is not None:
        raise ValueError(
            f"Got features='heads' for {name}, which {why}, but expected a ViT whose "
            "embedding is its class token after ordinary attention blocks (ViT-B-32, "
            "ViT-B-16, ViT-L-14, ViT-H-14, …); use features='projected' with this one."
        )
    if n_blocks > len(blocks):
        raise ValueError(
            f"Got head_blocks={n_blocks} for {name} but expected at most "
            f"{len(blocks)}, the number of its blocks; lower head_blocks."
        )


def head_contributions(tower: Any, streams: Sequence[Any], embedding: Any) -> Any:
    """Split projected embeddings into what each head adds, and the rest.

    The last LayerNorm is linear once the mean and the variance of an image's own class
    token are given, so that what any part of the model adds to the class token has a
    share of its own in the embedding.

    Parameters
    ----------
    tower : open_clip.transformer.VisionTransformer
        The image tower.

    streams : sequence of tensor of shape (n_images, n_tokens, width)
        The tokens before each of the last blocks, and after the last.

    embedding : tensor of shape (n_images, d_projected)
        The projected embeddings, not normalised.

    Returns
    -------
    contributions : tensor of shape (n_images, n_heads_of_all + 1, d_projected)
        Those of the heads by block, then the rest (MLPs, biases, all earlier blocks).
        Their sum is `embedding`.
    """
    import torch

    *before, after = streams
    variance = after[:, 0].float().var(dim=1, correction=0)  # (n_images,)
    scale = (variance + tower.ln_post.eps).rsqrt()[:, None, None]
    readout = tower.ln_post.weight[:, None] * tower.proj  # (width, d_projected)
    readout = readout - readout.mean(dim=0)  # LayerNorm takes a summand's own mean
    blocks = tower.transformer.resblocks[-len(before) :]
    heads = torch.cat(
        [
            torch.einsum("nhk,hkd->nhd", _head_outputs(b, x), _head_readout(b, readout))
            for b, x in zip(blocks, before)
        ],
        dim=1,
    )  # (n_images, n_heads_of_all, d_projected)
    heads = heads * scale
    rest = embedding.float() - heads.sum(dim=1)
    return torch.cat([heads, rest[:, None]], dim=1)


def _head_outputs(block: Any, stream: Any) -> Any:
    """Return what each head reads at the class token, (n_images, n_heads, d_head).

    Nothing but the query of the class token is needed, and it need not meet keys nor
    weight values: with (q W_k) x for q (W_k x), and W_v (Σ a x) for Σ a (W_v x), tokens
    are multiplied with n_heads vectors instead of two matrices.
    """
    import torch

    x = block.ln_1(stream).float()  # (n_images, n_tokens, width)
    attn = block.attn
    shape = (3, attn.num_heads, attn.head_dim)
    Q, K, V = attn.in_proj_weight.float().view(*shape, -1)  # (n_heads, d_head, width)
    # Softmax ignores the bias of the keys, which is the same for all tokens.
    q_bias, _, v_bias = attn.in_proj_bias.float().view(*shape)  # (n_heads, d_head)
    query = torch.einsum("nw,hkw->nhk", x[:, 0], Q) + q_bias
    query = torch.einsum("nhk,hkw->nhw", query, K) / attn.head_dim**0.5
    attention = torch.softmax(query @ x.transpose(1, 2), dim=-1)
    return torch.einsum("nhw,hkw->nhk", attention @ x, V) + v_bias


def _head_readout(block: Any, readout: Any) -> Any:
    """Return the map from each head's output to the embedding, (n_heads, d_head, d)."""
    out = block.attn.out_proj.weight.float()  # (width, width)
    layer_scale = getattr(block.ls_1, "gamma", None)
    if layer_scale is not None:
        out = layer_scale[:, None] * out
    to_embedding = out.T @ readout  # (width, d_projected)
    return to_embedding.view(block.attn.num_heads, block.attn.head_dim, -1)
