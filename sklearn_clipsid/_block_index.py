"""Count transformer blocks from 1, or from the last as -1."""


def block_index(block, n_blocks, *, called="block "):
    """Turn the number of a block into an index from 0.

    Parameters
    ----------
    block : int
        Counted from 1, or from the last as -1.

    n_blocks : int
        How many there are.

    called : str, default="block "
        What stands before the number in the message.

    Returns
    -------
    index : int
        From 0 to n_blocks - 1.
    """
    if isinstance(block, bool) or not 1 <= abs(block) <= n_blocks:
        raise ValueError(
            f"Got {called}{block} but expected 1 to {n_blocks}, or -1 to -{n_blocks} "
            "counted from the last block."
        )
    return block - 1 if block > 0 else n_blocks + block
