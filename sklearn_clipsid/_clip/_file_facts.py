"""Read what an image file tells apart from its picture, and a hash of the picture."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sklearn_clipsid._clip._images import UnreadableImageError, open_image, to_rgb
from sklearn_clipsid._content_hash import read_file, signature_of

if TYPE_CHECKING:
    from PIL import Image

SOFTWARE_TAG, ORIENTATION_TAG = 0x0131, 0x0112
# Blocks of metadata that Pillow hands on under these names, whatever the format.
METADATA_BLOCKS = ("comment", "photoshop", "xmp")
# Metadata are as long as whoever wrote the file pleased.
MAX_TEXT, MAX_FIELDS = 60, 32
# Side of the thumbnail, and of its lowest frequencies whose signs are the hash.
THUMBNAIL, FREQUENCIES = 32, 16
LOOK_BITS = FREQUENCIES**2 - 1
# A frequency that is weaker than this, in grey levels, has the sign of its noise; a
# picture with fewer than so many others has nothing to be recognised by.
NOISE, FEWEST_SIGNS = 4.0, 32
# Table K.1 of the JPEG standard, which libjpeg scales by the quality.
LUMINANCE = np.array(
    """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56
    14 17 22 29 51 87 80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
    49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99""".split(),
    dtype=np.int64,
)


class FileFacts(NamedTuple):
    """What is known of a file without looking at its picture, but for the last."""

    format: str  # as Pillow names it
    mode: str  # as the file has it, such as "RGB", "L" or "P"
    width: int
    height: int
    n_bytes: int
    quality: float  # of libjpeg's encoder, NaN where the file is no JPEG
    tables: str  # digest of the quantisation tables, "" where there are none
    subsampling: str  # of chroma, "" where there is none
    progressive: bool
    has_exif: bool
    software: str  # that wrote the file, as it says, else ""
    fields: tuple[str, ...]  # names of other metadata
    profile: str  # digest of the colour profile, "" where there is none
    look: bytes  # packed signs and, as many, whether they count; b"" if hardly any do


def read_file_facts(path: str | os.PathLike) -> FileFacts:
    """Read the facts of one image file, and decode it to make sure that it is whole.

    Parameters
    ----------
    path : str or PathLike
        The file.

    Returns
    -------
    facts : FileFacts

    Raises
    ------
    UnreadableImageError
        With the reason, when it cannot be read, is no image or is damaged.
    """
    try:
        data = read_file(path).data
        return _facts(open_image(data), len(data))
    except UnreadableImageError:
        raise
    # As in decode_image, Pillow raises whatever it stumbles over.
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def read_image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Read width and height from the header of an image file.

    Parameters
    ----------
    path : str or PathLike
        The file.

    Returns
    -------
    size : tuple of int
        Width and height, as the file has them.

    Raises
    ------
    UnreadableImageError
        With the reason, when it cannot be read or is no image.
    """
    from PIL import Image

    try:
        signature_of(path)  # raises for a pipe, whose opening would wait
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is not an image in a format that Pillow reads"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _facts(image: Image.Image, n_bytes: int) -> FileFacts:
    width, height = image.size
    mode = image.mode
    profile = image.info.get("icc_profile") or b""
    quantization = getattr(image, "quantization", None)
    has_exif, software, orientation = _exif(image)
    progressive = bool(image.info.get("progressive"))
    look = _look(image, upright=orientation in (None, 1))
    return FileFacts(
        format=image.format or "",
        mode=mode,
        width=width,
        height=height,
        n_bytes=n_bytes,
        quality=_estimated_quality(quantization) if quantization else np.nan,
        tables=_digest(repr(sorted(quantization.items())).encode())
        if quantization
        else "",
        subsampling=_subsampling(image),
        progressive=progressive,
        has_exif=has_exif,
        software=software or _text_field(image, "Software"),
        fields=_metadata_fields(image),  # those of PNG may follow the pixels
        profile=_digest(profile) if profile else "",
        look=look,
    )


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=4).hexdigest()


def _exif(image: Image.Image) -> tuple[bool, str, int | None]:
    """Return whether there is EXIF, the software and the orientation that it names."""
    try:
        exif = image.getexif()
        software, orientation = exif.get(SOFTWARE_TAG), exif.get(ORIENTATION_TAG)
    # A picture can be whole behind damaged EXIF, which Pillow mostly takes for empty.
    except Exception:
        return True, "", None
    has_exif = len(exif) > 0 or bool(image.info.get("exif"))
    return has_exif, _shortened(software or ""), orientation


def _shortened(text: object) -> str:
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return " ".join(str(text).replace("\0", " ").split())[:MAX_TEXT]


def _text_field(image: Image.Image, name: str) -> str:
    return _shortened(getattr(image, "text", {}).get(name, ""))


def _metadata_fields(image: Image.Image) -> tuple[str, ...]:
    """Name the text fields of a PNG, and the blocks of other metadata."""
    blocks = {name for name in METADATA_BLOCKS if image.info.get(name)}
    fields = {_shortened(name) for name in getattr(image, "text", {})}
    return tuple(sorted(blocks | fields)[:MAX_FIELDS])


def _estimated_quality(quantization: dict[int, list[int]]) -> float:
    """Return the quality whose luminance table of libjpeg is nearest."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = np.clip((LUMINANCE * scale[:, None] + 50) // 100, 1, 255)  # (100, 64)
    table = np.asarray(quantization[min(quantization)])  # (64,)
    return float(quality[np.abs(tables - table).sum(axis=1).argmin()])


def _subsampling(image: Image.Image) -> str:
    """Return for instance "4:2:0", or the sampling factors where that has no name."""
    factors = [tuple(layer[1:3]) for layer in getattr(image, "layer", [])]
    if len(factors) < 3:
        return ""
    names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0"}
    if factors[1:] == [(1, 1), (1, 1)] and factors[0] in names:
        return names[factors[0]]
    return " ".join(f"{across}x{down}" for across, down in factors)


def _look(image: Image.Image, *, upright: bool) -> bytes:
    """Hash the picture by the signs of its lowest frequencies.

    The hash survives another size, another JPEG quality and a change of brightness,
    but neither a crop nor a flip.
    """
    from PIL import Image
    from scipy.fft import dctn

    # A JPEG is decoded at an eighth of its size, where that is enough.
    image.draft("L", (2 * THUMBNAIL, 2 * THUMBNAIL))
    grey = to_rgb(image, not upright).convert("L")
    thumbnail = np.asarray(
        grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR), dtype=float
    )
    # Without the first frequency, which is the brightness.
    low = dctn(thumbnail, norm="ortho")[:FREQUENCIES, :FREQUENCIES].ravel()[1:]
    counts = np.abs(low) > NOISE
    if counts.sum() < FEWEST_SIGNS:
        return b""
    return np.packbits(low > 0).tobytes() + np.packbits(counts).tobytes()
