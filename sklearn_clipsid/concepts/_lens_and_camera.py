"""Edit a photograph as lenses, cameras and their operators would change it."""

import numpy as np
from scipy.ndimage import convolve1d, map_coordinates, median_filter

from sklearn_clipsid.concepts._colour_and_light import blur, blurred_noise, radius

# Place on the line from the light through the centre, size, and light of each channel.
FLARE = [
    (0, 0.07, [1.2, 1.14, 0.96]),
    (0, 0.28, [0.55, 0.52, 0.44]),
    (0.7, 0.035, [0.08, 0.36, 0.16]),
    (1.3, 0.06, [0.36, 0.16, 0.08]),
    (1.7, 0.045, [0.12, 0.2, 0.4]),
    (2.2, 0.09, [0.24, 0.12, 0.32]),
]


def sharpness(pixels, strength, random_state):
    """Sharpen by strength times the detail below 1 pixel, or blur when negative."""
    if strength < 0:
        return blur(pixels, -2 * strength)
    return pixels + 2 * strength * (pixels - blur(pixels, 1))


def shallow_depth_of_field(pixels, strength, random_state):
    """Blur what is far from the centre."""
    in_focus = np.clip(1.8 - 3 * radius(pixels), 0, 1)
    return in_focus * pixels + (1 - in_focus) * blur(pixels, 5 * strength)


def motion_blur(pixels, strength, random_state):
    """Smear the image horizontally, as a camera that moves."""
    length = max(round(16 * strength * pixels.shape[1] / 224), 1)
    return convolve1d(pixels, np.full(length, 1 / length), axis=1, mode="reflect")


def lens_distortion(pixels, strength, random_state):
    """Bend lines outwards (barrel), or inwards when negative (pincushion)."""
    return _magnify(pixels, 1 + strength * (2 * radius(pixels)[..., 0] ** 2 - 1) / 3)


def chromatic_aberration(pixels, strength, random_state):
    """Magnify red and reduce blue, towards the corners."""
    factors = 1 - 0.025 * strength, 1.0, 1 + 0.025 * strength
    channels = [
        _magnify(pixels[..., c : c + 1], np.float32(factor))
        for c, factor in enumerate(factors)
    ]
    return np.concatenate(channels, axis=2)


def lens_flare(pixels, strength, random_state):
    """Add a light source in a corner, its glow, a streak and coloured ghosts."""
    height, width = pixels.shape[:2]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    source = np.array([0.2, 0.22])

    def spot(along, size, colour):
        """Shine on the line from the source (0) through the centre (1)."""
        row, column = source + along * (0.5 - source)
        shape = np.exp(-((y - row) ** 2 + (x - column) ** 2) / size**2)
        return shape * np.float32(colour)  # (height, width, 3)

    light = sum(spot(*arguments) for arguments in FLARE)
    distance = ((y - source[0]) / 0.012) ** 2 + ((x - source[1]) / 0.4) ** 2
    light = light + np.exp(-distance) * np.float32([0.35, 0.42, 0.5])
    return 1 - (1 - pixels) * (1 - np.clip(strength * light, 0, 1))


def sensor_noise(pixels, strength, random_state):
    """Add coloured noise, stronger in the shadows."""
    noise = random_state.standard_normal(pixels.shape)
    return pixels + 0.15 * strength * (1.2 - pixels) * noise


def film_grain(pixels, strength, random_state):
    """Add grey grain of the size of a pixel or two."""
    grain = blurred_noise(pixels.shape[:2], 0.8, random_state)
    return pixels + 0.12 * strength * grain


def smooth_texture(pixels, strength, random_state):
    """Take away texture and keep edges, as beauty filters do."""
    size = 2 * max(round(3 * min(pixels.shape[:2]) / 224), 1) + 1
    smooth = median_filter(median_filter(pixels, (size, size, 1)), (size, size, 1))
    return (1 - strength) * pixels + strength * smooth


def _magnify(pixels, factor):
    """Sample at the distance from the centre times `factor`."""
    height, width, n_channels = pixels.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    grid = (np.indices((height, width)) - centre) * factor + centre
    return np.stack(
        [
            map_coordinates(pixels[..., c], grid, order=1, mode="reflect")
            for c in range(n_channels)
        ],
        axis=2,
    )
