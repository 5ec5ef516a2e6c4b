"""Edit the colours and the light of a photograph, as a darkroom does."""

import numpy as np
from scipy.ndimage import gaussian_filter

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
SEPIA = np.array(
    [[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]],
    dtype=np.float32,
)


def luma(pixels):
    """Return the lightness of each pixel, with an axis for the channels."""
    return (pixels @ LUMA)[..., None]  # (height, width, 1)


def blur(pixels, sigma):
    """Blur within the image plane; `sigma` in pixels of an image of side 224."""
    sigma = sigma * min(pixels.shape[:2]) / 224
    return gaussian_filter(pixels, (sigma, sigma, 0), mode="reflect")


def blurred_noise(shape, sigma, random_state):
    """Return noise of variance 1 that changes over some `sigma` pixels."""
    noise = gaussian_filter(random_state.standard_normal(shape), sigma, mode="wrap")
    # The blur divides the deviation by this number, in the middle of a large image.
    return (noise * max(2 * np.sqrt(np.pi) * sigma, 1))[..., None]


def radius(pixels):
    """Return the distance from the centre, 1 in the corners."""
    height, width = pixels.shape[:2]
    y, x = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    return np.sqrt((y[:, None] ** 2 + x**2) / 2)[..., None].astype(np.float32)


def saturation(pixels, strength, random_state):
    """Multiply the distance from grey by 1 + strength."""
    grey = luma(pixels)
    return grey + (1 + strength) * (pixels - grey)


def warmth(pixels, strength, random_state):
    """Multiply red by 1 + strength / 4, and blue by 1 - strength / 4."""
    return pixels * np.float32([1 + strength / 4, 1, 1 - strength / 4])


def tint(pixels, strength, random_state):
    """Multiply green by 1 - strength / 4 and the others by 1 + strength / 8."""
    return pixels * np.float32([1 + strength / 8, 1 - strength / 4, 1 + strength / 8])


def split_toning(pixels, strength, random_state):
    """Move lights towards orange and shadows towards teal, or the other way round."""
    towards = strength * (2 * luma(pixels) - 1)
    return pixels + towards * np.float32([0.2, 0, -0.2])


def sepia(pixels, strength, random_state):
    """Mix with a brown monochrome."""
    return (1 - strength) * pixels + strength * pixels @ SEPIA.T


def exposure(pixels, strength, random_state):
    """Multiply the light by two to the power of strength, in stops."""
    return (pixels**2.2 * 2**strength) ** np.float32(1 / 2.2)


def contrast(pixels, strength, random_state):
    """Multiply the distance from the mean lightness by 1 + strength."""
    middle = luma(pixels).mean()
    return middle + (1 + strength) * (pixels - middle)


def shadow_detail(pixels, strength, random_state):
    """Lighten the shadows and leave the lights, or darken them."""
    weight = (1 - np.clip(luma(pixels), 0, 1)) ** 3
    return pixels * (1 + strength * weight) + 0.15 * max(strength, 0) * weight


def vignetting(pixels, strength, random_state):
    """Darken the corners to 1 - strength of their light, or lighten them."""
    return pixels * (1 - strength * radius(pixels) ** 2)


def haze(pixels, strength, random_state):
    """Mix with the light grey of the air."""
    return (1 - strength) * pixels + strength * np.float32([0.8, 0.83, 0.87])


def bloom(pixels, strength, random_state):
    """Let the lights glow over their surroundings."""
    lights = np.maximum(pixels - 0.5, 0) * 2
    return 1 - (1 - pixels) * (1 - strength * blur(lights, 8))


def clarity(pixels, strength, random_state):
    """Add strength times what a wide blur takes away; a soft look when negative."""
    return pixels + strength * (pixels - blur(pixels, 12))


def tone_mapping(pixels, strength, random_state):
    """Even out the lightness of regions, and deepen detail and colour (HDR look)."""
    local = blur(luma(pixels), 20)
    evened = pixels + strength * (0.5 - local)
    return saturation(clarity(evened, 0.8 * strength, None), 0.4 * strength, None)
