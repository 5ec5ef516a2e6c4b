"""Find synthetic images that look like a photograph, by their perceptual hashes."""

import numpy as np

from sklearn_clipsid._progress import slow_bar

# Products in one block: 64 MiB.
BLOCK = 2**24
# Of 711 images, copies of half the size and of JPEG quality 20 differ by at most 0.06;
# of 188,098 pairs of other ones none by less than 0.168 (benchmarks/leaks.py).
MAX_DIFFERENCE = 0.15


def nearest_photographs(
    looks: list[bytes], positive: np.ndarray, n_bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the synthetic images that are near-duplicates of a photograph.

    Parameters
    ----------
    looks : list of bytes
        Perceptual hash of each image, empty where it has none: the packed signs of
        `n_bits` frequencies and, as many bits, which of them count.

    positive : ndarray of shape (n_images,), dtype=bool
        Which images are synthetic.

    n_bits : int
        Number of signs in a hash.

    Returns
    -------
    synthetic : ndarray of shape (n_pairs,)
        Indices of those that differ from a photograph by at most `MAX_DIFFERENCE`, in
        rising order.

    photograph : ndarray of shape (n_pairs,)
        Index of the photograph nearest to each.

    difference : ndarray of shape (n_pairs,)
        Half of one minus the cosine of the signs, which is the share of the signs that
        differ where all of them count.
    """
    has_look = np.array([bool(look) for look in looks])
    photographs = np.flatnonzero(has_look & ~positive)
    synthetic = np.flatnonzero(has_look & positive)
    nearest = np.zeros(len(synthetic), dtype=np.intp)
    cosine = np.full(len(synthetic), -np.inf)
    # As products of signs, all differences cost no more than a matrix product.
    photo_signs = _unit_signs(looks, photographs, n_bits)
    height = max(1, BLOCK // max(1, len(photographs)))
    firsts = range(0, len(synthetic), height)
    for first in slow_bar(firsts, "comparing pictures", unit="block"):
        rows = slice(first, first + height)
        products = _unit_signs(looks, synthetic[rows], n_bits) @ photo_signs.T
        if products.size:
            nearest[rows] = products.argmax(axis=1)
            cosine[rows] = products.max(axis=1)
    difference = (1 - cosine) / 2
    found = difference <= MAX_DIFFERENCE
    return synthetic[found], photographs[nearest[found]], difference[found]


def _unit_signs(looks: list[bytes], rows: np.ndarray, n_bits: int) -> np.ndarray:
    """Return -1, 0 and 1 over their norm, of shape (n_rows, n_bits)."""
    packed = np.frombuffer(b"".join(looks[row] for row in rows), dtype=np.uint8)
    packed = packed.reshape(len(rows), 2, -(-n_bits // 8))
    bits = np.unpackbits(packed, axis=2, count=n_bits).astype(np.float32)
    signs = (2 * bits[:, 0] - 1) * bits[:, 1]
    return signs / np.sqrt(bits[:, 1].sum(axis=1, keepdims=True))
