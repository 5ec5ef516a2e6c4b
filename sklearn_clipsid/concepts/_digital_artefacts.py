"""Add the artefacts of files, scaling and generators to a photograph."""

import numpy as np

from sklearn_clipsid.concepts._colour_and_light import blur, blurred_noise, luma

# Recursive 4 x 4 threshold map (B. E. Bayer, 1973).
BAYER = (
    np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) + 0.5
) / 16 - 0.5


def jpeg_compression(pixels, strength, random_state):
    """Compress with quality 95 - 87 strength."""
    from sklearn_clipsid._clip import compress_jpeg

    quality = round(95 - 87 * strength)
    return compress_jpeg(np.rint(pixels * 255).astype(np.uint8), quality) / 255


def upsampling(pixels, strength, random_state):
    """Enlarge from a copy of 1 / (1 + 3 strength) of the size."""
    return _resized(pixels, 1 + 3 * strength, "bilinear", "bicubic")


def pixelation(pixels, strength, random_state):
    """Enlarge as above, without interpolation."""
    return _resized(pixels, 1 + 4 * strength, "box", "nearest")


def colour_banding(pixels, strength, random_state):
    """Round to few levels."""
    n_steps = max(round(4 / strength), 1)
    return np.rint(pixels * n_steps) / n_steps


def dithering(pixels, strength, random_state):
    """Round to few levels, over a pattern of thresholds."""
    height, width = pixels.shape[:2]
    thresholds = np.tile(BAYER, (-(-height // 4), -(-width // 4)))[:height, :width]
    n_steps = max(round(2 / strength), 1)
    return np.rint(pixels * n_steps + thresholds[..., None]) / n_steps


def ringing(pixels, strength, random_state):
    """Surround edges by waves, by cutting off high frequencies at once."""
    spectrum = np.fft.rfft2(pixels, axes=(0, 1))
    fy = np.fft.fftfreq(pixels.shape[0])[:, None]
    fx = np.fft.rfftfreq(pixels.shape[1])
    spectrum[np.hypot(fy, fx) > 0.1 * 224 / min(pixels.shape[:2])] = 0
    low = np.fft.irfft2(spectrum, s=pixels.shape[:2], axes=(0, 1))
    return pixels + strength * (low - blur(pixels, 1.5))


def halos(pixels, strength, random_state):
    """Sharpen far too much, with light seams along edges."""
    return pixels + 3 * strength * (pixels - blur(pixels, 3))


def checkerboard(pixels, strength, random_state):
    """Lay squares of 2 pixels over the image, as transposed convolutions do."""
    y, x = np.indices(pixels.shape[:2])
    sign = np.where((x // 2 + y // 2) % 2, 1, -1)[..., None]
    return pixels + 0.08 * strength * sign


def grid_pattern(pixels, strength, random_state):
    """Draw the seams of blocks of 8 pixels."""
    y, x = np.indices(pixels.shape[:2])
    seam = ((x % 8 == 0) | (y % 8 == 0))[..., None]
    return pixels - 0.15 * strength * seam


def scan_lines(pixels, strength, random_state):
    """Darken every other pair of rows."""
    dark = (np.arange(pixels.shape[0]) // 2 % 2)[:, None, None]
    return pixels * (1 - 0.4 * strength * dark)


def colour_bleeding(pixels, strength, random_state):
    """Blur the colours, not the lightness."""
    grey = luma(pixels)
    return grey + (1 + 0.3 * strength) * blur(pixels - grey, 8 * strength)


def blotches(pixels, strength, random_state):
    """Vary the lightness over regions that follow nothing in the picture."""
    clouds = blurred_noise(
        pixels.shape[:2], 5 * min(pixels.shape[:2]) / 224, random_state
    )
    return pixels + 0.12 * strength * clouds


def _resized(pixels, factor, down, up):
    from sklearn_clipsid._clip import resize_pixels

    height, width = pixels.shape[:2]
    small = max(round(width / factor), 1), max(round(height / factor), 1)
    image = np.rint(pixels * 255).astype(np.uint8)
    return resize_pixels(resize_pixels(image, small, down), (width, height), up) / 255
