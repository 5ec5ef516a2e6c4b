"""Draw landscapes and laid tables by rule, as stand-ins for what a camera sees."""

import numpy as np
from scipy import fft
from scipy.ndimage import map_coordinates

# Linear-light colours. Only their variety matters.
_SKIES = np.array(
    [  # zenith, horizon
        [[0.10, 0.24, 0.60], [0.55, 0.70, 0.88]],
        [[0.42, 0.46, 0.52], [0.70, 0.72, 0.74]],
        [[0.16, 0.17, 0.38], [0.90, 0.48, 0.24]],
        [[0.20, 0.38, 0.66], [0.86, 0.82, 0.70]],
    ]
)
_GROUNDS = np.array(
    [
        [0.12, 0.22, 0.06],
        [0.30, 0.24, 0.14],
        [0.48, 0.42, 0.30],
        [0.06, 0.12, 0.16],
        [0.22, 0.22, 0.21],
    ]
)
_PAINTS = np.array(
    [
        [0.62, 0.10, 0.07],
        [0.80, 0.52, 0.08],
        [0.10, 0.28, 0.55],
        [0.14, 0.40, 0.20],
        [0.72, 0.68, 0.60],
        [0.30, 0.12, 0.34],
        [0.06, 0.06, 0.07],
    ]
)


def draw_scene(rng: np.random.RandomState, size: int) -> np.ndarray:
    """Draw one scene.

    Parameters
    ----------
    rng : numpy.random.RandomState
        Decides everything about the scene.

    size : int
        Height and width in pixels.

    Returns
    -------
    scene : ndarray of shape (size, size, 3)
        Linear light in [0, 1], without noise.
    """
    draw = _landscape if rng.uniform() < 0.6 else _still_life
    return np.clip(draw(rng, size), 0, 1)


def fractal_field(
    rng: np.random.RandomState,
    shape: tuple[int, ...],
    exponent: float,
    stretch: float = 1.0,
) -> np.ndarray:
    """Draw a random field whose power falls as frequency to the minus `exponent`.

    Parameters
    ----------
    rng : numpy.random.RandomState
        Source of the random phases.

    shape : tuple of int
        Shape of the field, of one or two dimensions.

    exponent : float
        About 2 for natural images; larger is smoother.

    stretch : float, default=1.0
        How many times as long as wide the structures are, along the last axis.

    Returns
    -------
    field : ndarray of shape `shape`
        Periodic, with mean 0 and standard deviation 1.
    """
    frequencies = [fft.fftfreq(n) for n in shape[:-1]]
    frequencies.append(stretch * fft.rfftfreq(shape[-1]))
    grid = np.meshgrid(*frequencies, indexing="ij", sparse=True)
    squared = np.square(grid[0])
    for axis in grid[1:]:
        squared = squared + axis**2  # (*shape[:-1], shape[-1] // 2 + 1)
    squared.flat[0] = np.inf  # no mean
    spectrum = fft.rfftn(rng.standard_normal(shape)) * squared ** (-exponent / 4)
    field = fft.irfftn(spectrum, shape)
    return field / field.std()


def _landscape(rng: np.random.RandomState, size: int) -> np.ndarray:
    y, x = _coordinates(size)
    horizon = rng.uniform(0.35, 0.65)
    sky = _SKIES[rng.randint(len(_SKIES))]
    sun = rng.uniform(-1, 1)  # from the left or from the right
    image = _sky(rng, y / horizon, sky)
    for distance in np.linspace(1, 0.35, rng.randint(1, 4)):
        ridge = fractal_field(rng, (2 * size,), 3.0)[:size]
        top = horizon - 0.10 * distance * (0.9 + ridge * rng.uniform(0.2, 0.6))
        rock = _GROUNDS[rng.randint(len(_GROUNDS))] * 0.7
        relief = 1 + 0.25 * fractal_field(rng, (size, size), 2.2)
        colour = (1 - distance) * rock + distance * sky.mean(axis=0) * 0.75
        image = _over(image, y - top, relief[..., None] * colour)
    ground = _GROUNDS[rng.randint(len(_GROUNDS))]
    image = _over(image, y - horizon, _ground(rng, y - horizon, x, ground))
    # Far things first, so that near ones cover them.
    for depth in np.sort(rng.uniform(0.05, 0.9, rng.randint(2, 8))):
        base = horizon + depth * (1 - horizon)
        add = _add_tree if rng.uniform() < 0.65 else _add_house
        image = add(rng, image, rng.uniform(0.02, 0.98), base, 0.08 + 0.3 * depth, sun)
    return image * rng.uniform(0.75, 1.1)


def _sky(rng: np.random.RandomState, height: np.ndarray, sky: np.ndarray) -> np.ndarray:
    size = len(height)
    fade = np.clip(height, 0, 1)[..., None] ** 1.5
    image = (1 - fade) * sky[0] + fade * sky[1]
    clouds = fractal_field(rng, (size, size), 2.8, stretch=3)
    cover = _smooth_step((clouds - rng.uniform(-0.3, 1.5)) / 1.2)[..., None]
    shade = (0.85 + 0.12 * clouds)[..., None] * (0.6 * sky[1] + 0.4)
    return image + 0.85 * cover * (shade - image)


def _ground(
    rng: np.random.RandomState, below: np.ndarray, x: np.ndarray, colour: np.ndarray
) -> np.ndarray:
    size = len(below)
    # A plane in perspective: (x, below) is seen at ((x - 1/2) / below, 1 / below).
    depth = size / 6 / np.maximum(below, 0.5 / size)
    texture = map_coordinates(
        fractal_field(rng, (size, size), 1.6),
        [depth, (x - 0.5) * depth],
        order=1,
        mode="wrap",
    )
    # Far texture is finer than the pixels and has to fade, or it aliases.
    contrast = 0.35 * np.clip(9 * below**2, 0, 1)
    patches = 0.15 * fractal_field(rng, (size, size), 3.0)
    tint = colour * rng.uniform(0.8, 1.25, 3)
    return np.maximum(1 + contrast * texture + patches, 0.1)[..., None] * tint


def _add_tree(
    rng: np.random.RandomState,
    image: np.ndarray,
    centre: float,
    base: float,
    height: float,
    sun: float,
) -> np.ndarray:
    y, x = _coordinates(len(image))
    rough = fractal_field(rng, y.shape, 2.2)
    trunk = np.maximum(
        np.abs(x - centre) - 0.05 * height, np.abs(y - base + height / 3) - height / 3
    )
    shadow = (
        np.hypot((x - centre + sun * height / 3) / 2.5, (y - base) * 2) - height / 4
    )
    image = image * (1 - 0.45 * _smooth_step(-shadow / (0.1 * height)))[..., None]
    image = _over(image, -trunk, (1 + 0.2 * rough)[..., None] * [0.12, 0.08, 0.05])
    dx, dy = (x - centre) / height, (y - base + 0.75 * height) / height
    edge = 0.33 + 0.05 * rough - np.hypot(dx * rng.uniform(0.9, 1.4), dy)
    light = 0.8 + 0.9 * (sun * dx - dy) + 0.3 * rough
    leaf = np.array([0.11, 0.17, 0.06]) * rng.uniform(0.7, 1.4, 3)
    return _over(image, edge * height, np.maximum(light, 0.15)[..., None] * leaf)


def _add_house(
    rng: np.random.RandomState,
    image: np.ndarray,
    centre: float,
    base: float,
    height: float,
    sun: float,
) -> np.ndarray:
    y, x = _coordinates(len(image))
    width = height * rng.uniform(0.5, 0.9)
    dx, dy = x - centre, base - y
    paint = _PAINTS[rng.randint(len(_PAINTS))] * 0.5 + 0.3
    grain = 1 + 0.05 * fractal_field(rng, y.shape, 1.0)
    # Two walls meet at `corner`; the one that faces the sun is brighter.
    corner = width * rng.uniform(-0.5, 0.5)
    bright = np.where((dx - corner) * sun > 0, 1.1, 0.6)
    wall = np.minimum(width - np.abs(dx), np.minimum(dy, 0.7 * height - dy))
    image = _over(image, wall, (grain * bright)[..., None] * paint)
    columns = rng.randint(2, 5)
    across = np.abs((dx / width + 1) / 2 * columns % 1 - 0.5) - 0.2
    along = np.abs(dy / (0.7 * height) * 2 % 1 - 0.5) - 0.22
    window = -np.maximum(across * width / columns * 2, along * 0.35 * height)
    glass = np.array([0.08, 0.10, 0.13]) * rng.uniform(0.5, 3)
    image = _over(image, np.minimum(window, wall - 0.02 * height), glass)
    slope = np.minimum(
        dy - 0.7 * height, height - dy - 0.3 * height * np.abs(dx) / width
    )
    return _over(image, slope, grain[..., None] * _PAINTS[rng.randint(2)] * 0.5)


def _still_life(rng: np.random.RandomState, size: int) -> np.ndarray:
    y, x = _coordinates(size)
    edge = rng.uniform(0.4, 0.6)
    sun = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 0.9)
    glow = 0.75 + 0.35 * sun * (x - 0.5) - 0.2 * y
    plaster = 1 + 0.04 * fractal_field(rng, (size, size), 1.5)
    wall_paint = _PAINTS[rng.randint(len(_PAINTS))] * 0.4 + 0.25
    image = (glow * plaster)[..., None] * wall_paint
    grain = fractal_field(rng, (size, size), 1.8, stretch=6)
    wood = np.array([0.34, 0.20, 0.10]) * rng.uniform(0.6, 1.6)
    table = (glow * (1 + 0.12 * grain))[..., None] * wood
    slant = rng.uniform(-0.06, 0.06)
    image = _over(image, y - edge - slant * (x - 0.5), table)
    for depth in np.sort(rng.uniform(0, 1, rng.randint(3, 7))):
        base = edge + 0.06 + depth * (0.9 - edge)
        radius = rng.uniform(0.06, 0.11) * (1 + 0.6 * depth)
        image = _add_vessel(rng, image, rng.uniform(0.1, 0.9), base, radius, sun)
    return image * rng.uniform(0.9, 1.3)


def _add_vessel(
    rng: np.random.RandomState,
    image: np.ndarray,
    centre: float,
    base: float,
    radius: float,
    sun: float,
) -> np.ndarray:
    """Add a ball or a jar with its shadow, lit from the side of the sun."""
    y, x = _coordinates(len(image))
    dx, dy = (x - centre) / radius, (y - base) / radius
    shadow = 1 - np.hypot((dx + 0.9 * sun) / 1.8, dy / 0.45)
    image = image * (1 - 0.6 * _smooth_step(0.5 + shadow / 0.5))[..., None]
    tall = rng.uniform(1.2, 3) if rng.uniform() < 0.5 else 0.0
    # A jar is a ball that stays open towards the top for `tall` radii.
    up = np.maximum(-dy - 1 - tall, 0) + np.minimum(-dy - 1, 0)
    inside = 1 - np.hypot(dx, up)
    depth = np.sqrt(np.clip(1 - dx**2 - up**2, 0, 1))
    toward = np.clip(0.5 * sun * dx + 0.35 * up + 0.6 * depth, 0, 1)
    gloss = rng.uniform(0.05, 0.6) * np.clip(toward, 0, 1) ** 24
    paint = _PAINTS[rng.randint(len(_PAINTS))] * rng.uniform(0.7, 1.3, 3)
    mottle = 1 + 0.08 * fractal_field(rng, y.shape, 2.0)
    body = ((0.15 + toward) * mottle)[..., None] * paint + gloss[..., None]
    return _over(image, inside * radius, body)


def _coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def _over(image: np.ndarray, inside: np.ndarray, paint: np.ndarray) -> np.ndarray:
    """Lay paint over the image where the signed distance `inside` is positive."""
    cover = _smooth_step(0.5 + inside * len(image) / 2)  # an edge two pixels wide
    return image + cover[..., None] * (paint - image)


def _smooth_step(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
