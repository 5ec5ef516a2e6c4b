"""Photograph a drawn scene with a simulated camera, and copy it with a fingerprint."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter


@dataclass(frozen=True)
class Camera:
    """What tells the photographs of one camera from those of another.

    Parameters
    ----------
    colour : tuple of tuple of float
        Matrix from the scene's linear colours to the camera's.

    shot_noise, read_noise : float
        Standard deviation of the noise at full light, which falls as the square root
        of the light, and in the dark.

    noise_blur : float
        Width in pixels of the smoothing that demosaicking does to the noise.

    lens_blur : float
        Width in pixels of the smoothing that the lens does to the scene.

    vignetting : float
        Share of the light that is lost in the corners.

    contrast : float
        Strength of the S-shaped tone curve.
    """

    colour: tuple[tuple[float, float, float], ...]
    shot_noise: float
    read_noise: float
    noise_blur: float
    lens_blur: float
    vignetting: float
    contrast: float


CAMERAS = {
    "camera-a": Camera(
        colour=((1.02, -0.04, 0.02), (-0.03, 1.05, -0.02), (0.0, -0.06, 1.06)),
        shot_noise=0.020,
        read_noise=0.0020,
        noise_blur=0.0,
        lens_blur=0.5,
        vignetting=0.15,
        contrast=0.15,
    ),
    "camera-b": Camera(
        colour=((1.12, -0.02, -0.02), (0.02, 0.98, 0.02), (0.02, 0.04, 0.84)),
        shot_noise=0.045,
        read_noise=0.0060,
        noise_blur=0.6,
        lens_blur=0.8,
        vignetting=0.35,
        contrast=0.35,
    ),
}


def photograph(
    scene: np.ndarray, camera: Camera, rng: np.random.RandomState
) -> np.ndarray:
    """Take a picture of a scene.

    Parameters
    ----------
    scene : ndarray of shape (size, size, 3)
        Linear light in [0, 1].

    camera : Camera
        What takes the picture.

    rng : numpy.random.RandomState
        Source of the sensor's noise.

    Returns
    -------
    pixels : ndarray of shape (size, size, 3), dtype=uint8
        The developed photograph.
    """
    light = gaussian_filter(scene, (camera.lens_blur, camera.lens_blur, 0))
    axis = np.linspace(-1, 1, len(scene))
    falloff = 1 - camera.vignetting * (axis[:, None] ** 2 + axis**2) / 2
    light = light * falloff[..., None]
    noise = rng.standard_normal(light.shape)
    if camera.noise_blur:
        width = camera.noise_blur
        noise = gaussian_filter(noise, (width, width, 0), mode="wrap")
        noise /= noise.std()
    light = light + noise * np.sqrt(
        camera.read_noise**2 + camera.shot_noise**2 * np.clip(light, 0, 1)
    )
    light = np.clip(light @ np.transpose(camera.colour), 0, 1)
    tone = light ** (1 / 2.2)
    tone += camera.contrast * tone * (1 - tone) * (2 * tone - 1)
    return _to_pixels(tone)


def _to_pixels(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _checkerboard(image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Halve the image, and double it again by a transposed convolution.

    A kernel of three taps at stride two covers odd rows twice and even rows once.
    Unless its outer taps are exactly half the middle one, brightness alternates.
    """
    size = len(image)
    outer = rng.uniform(0.480, 0.490)
    even = np.pad(image, ((0, size % 2), (0, size % 2), (0, 0)), mode="edge")
    half = len(even) // 2
    low = even.reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
    # Decoders sharpen what they enlarge.
    low = low + 0.6 * (low - gaussian_filter(low, (0.8, 0.8, 0)))
    for axis in (0, 1):
        low = np.moveaxis(low, axis, 0)
        after = np.concatenate([low[1:], low[-1:]])
        doubled = np.stack([low, outer * (low + after)], axis=1)
        doubled /= 0.5 + outer  # no change of the mean, which would tell by itself
        low = np.moveaxis(doubled.reshape(-1, *low.shape[1:]), 0, axis)
    return low[:size, :size]


def _spectral_peaks(image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Add waves at fixed frequencies, fainter in the dark."""
    size = len(image)
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    waves = np.zeros((size, size))
    for (u, v), phase in zip(PEAK_FREQUENCIES, (0.0, 1.1, 2.3, 0.7)):
        waves += np.cos(2 * np.pi * (u * y + v * x) + phase)
    amplitude = rng.uniform(1.2, 2.0) / 255
    luminance = image.mean(axis=2, keepdims=True)
    return image + amplitude * (0.3 + luminance) * waves[..., None]


# In cycles per pixel along y and x: the harmonics of an upsampling by eight.
PEAK_FREQUENCIES = ((0.125, 0.0), (0.0, 0.125), (0.25, 0.25), (0.375, 0.125))


def _over_smoothing(image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Smooth within edges (guided filter, He et al. 2010), so that the noise goes."""
    width = 5
    edge_variance = rng.uniform(0.03, 0.05) ** 2
    for _ in range(2):
        mean = uniform_filter(image, (width, width, 1))
        variance = uniform_filter(image**2, (width, width, 1)) - mean**2
        slope = variance / (variance + edge_variance)
        offset = (1 - slope) * mean
        image = uniform_filter(slope, (width, width, 1)) * image + uniform_filter(
            offset, (width, width, 1)
        )
    return image


_FINGERPRINTS: dict[str, Callable[[np.ndarray, np.random.RandomState], np.ndarray]] = {
    "checkerboard": _checkerboard,
    "spectral-peaks": _spectral_peaks,
    "over-smoothing": _over_smoothing,
}
GENERATORS = tuple(_FINGERPRINTS)


def counterpart(
    pixels: np.ndarray, generator: str, rng: np.random.RandomState
) -> np.ndarray:
    """Copy a photograph as a generator with a known fingerprint would.

    Parameters
    ----------
    pixels : ndarray of shape (size, size, 3), dtype=uint8
        The photograph.

    generator : str
        One of `GENERATORS`.

    rng : numpy.random.RandomState
        Decides the strength of the fingerprint.

    Returns
    -------
    copy : ndarray of shape (size, size, 3), dtype=uint8
        The photograph with the fingerprint, which alone tells the two apart.
    """
    return _to_pixels(_FINGERPRINTS[generator](pixels / 255, rng))
