"""List the edits of photographs that come with the package."""

from sklearn_clipsid.concepts import _colour_and_light as light
from sklearn_clipsid.concepts import _digital_artefacts as artefacts
from sklearn_clipsid.concepts import _lens_and_camera as lens
from sklearn_clipsid.concepts._photographic_edit import PhotographicEdit

# Name: function, what its positive and negative poles look like, and their strengths.
# Where only one pole is named, the other is the photograph as it is.
EDITS = {
    "colour": {
        "saturation": (
            light.saturation,
            "vivid colours",
            1,
            "washed-out colours",
            -0.8,
        ),
        "warmth": (light.warmth, "warm cast", 1, "cold cast", -1),
        "tint": (light.tint, "magenta cast", 1, "green cast", -1),
        "split_toning": (
            light.split_toning,
            "orange lights and teal shadows",
            1,
            "teal lights and orange shadows",
            -1,
        ),
        "sepia": (light.sepia, "brown monochrome", 1),
    },
    "light and composition": {
        "exposure": (light.exposure, "overexposed", 1.2, "underexposed", -1.8),
        "contrast": (light.contrast, "high contrast", 0.9, "flat", -0.6),
        "shadow_detail": (
            light.shadow_detail,
            "lightened shadows",
            1,
            "blocked shadows",
            -0.8,
        ),
        "vignetting": (light.vignetting, "dark corners", 0.9, "light corners", -0.9),
        "haze": (light.haze, "hazy air", 0.5),
        "bloom": (light.bloom, "glowing lights", 1),
    },
    "lens": {
        "sharpness": (lens.sharpness, "oversharpened", 1, "out of focus", -1),
        "shallow_depth_of_field": (
            lens.shallow_depth_of_field,
            "blurred surroundings",
            1,
        ),
        "lens_distortion": (
            lens.lens_distortion,
            "barrel distortion",
            1,
            "pincushion",
            -0.8,
        ),
        "chromatic_aberration": (lens.chromatic_aberration, "colour fringes", 1),
        "lens_flare": (lens.lens_flare, "flare of a light source", 1),
    },
    "camera": {
        "sensor_noise": (lens.sensor_noise, "colour noise", 1),
        "film_grain": (lens.film_grain, "film grain", 1),
    },
    "technique": {
        "clarity": (light.clarity, "punchy local contrast", 1.2, "soft look", -0.7),
        "tone_mapping": (light.tone_mapping, "HDR look", 0.8),
        "motion_blur": (lens.motion_blur, "smeared by motion", 1),
        "smooth_texture": (lens.smooth_texture, "waxy texture", 1),
    },
    "image artefacts": {
        "jpeg_compression": (artefacts.jpeg_compression, "JPEG blocks", 1),
        "upsampling": (artefacts.upsampling, "enlarged from few pixels", 1),
        "pixelation": (artefacts.pixelation, "visible pixels", 1),
        "colour_banding": (artefacts.colour_banding, "banded tones", 1),
        "dithering": (artefacts.dithering, "dither pattern", 1),
        "ringing": (artefacts.ringing, "waves along edges", 1),
        "halos": (artefacts.halos, "light seams along edges", 1),
        "checkerboard": (artefacts.checkerboard, "checkerboard pattern", 1),
        "grid_pattern": (artefacts.grid_pattern, "seams of blocks", 1),
        "scan_lines": (artefacts.scan_lines, "scan lines", 1),
        "colour_bleeding": (artefacts.colour_bleeding, "bleeding colours", 1),
        "blotches": (artefacts.blotches, "blotches of light", 1),
    },
}


def photographic_edits():
    """Return edits that photographers and forensic analysts know by name.

    Each makes a photograph more of what its name says, and the opposite or nothing
    at the negative pole. The strengths are large enough to be seen at once in an
    image of 224 pixels: directions are found by them, small effects are measured
    along the directions. Blurs, shifts and flares grow with the size of the image;
    noise and patterns of pixels do not.

    Returns
    -------
    edits : list of PhotographicEdit
        In the groups colour, light and composition, lens, camera, technique and image
        artefacts.

    See Also
    --------
    concept_directions_from_images : Find the directions of these edits.

    Examples
    --------
    >>> from sklearn_clipsid.concepts import photographic_edits
    >>> edits = {edit.name: edit for edit in photographic_edits()}
    >>> edits["sharpness"].positive, edits["sharpness"].negative
    ('oversharpened', 'out of focus')
    """
    return [
        _edit(name, category, *description)
        for category, descriptions in EDITS.items()
        for name, description in descriptions.items()
    ]


def _edit(name, category, apply, positive, up, negative="as photographed", down=0):
    return PhotographicEdit(name, category, apply, positive, negative, up, down)
