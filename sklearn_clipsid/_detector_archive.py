"""Stamp the archive of a saved detector, and check it before anything is built."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

from sklearn_clipsid._loaded_parts import parts_of
from sklearn_clipsid._model_card import package_versions, render_card
from sklearn_clipsid._warn_user import warn_user

FORMAT = 1
STAMP_NAME = "sklearn_clipsid.json"
CARD_NAME = "README.md"
# Other versions of these may compute something else from the same arrays.
COMPARED_PACKAGES = ("sklearn_clipsid", "scikit-learn")
# Fitted arrays hardly shrink when they are compressed, bombs do.
MAX_UNPACKED = 2**28
MAX_RATIO = 100


def with_stamp(data: bytes, portable: Any) -> bytes:
    """Add the stamp and the model card to an archive.

    Parameters
    ----------
    data : bytes
        What skops wrote.

    portable : estimator
        The detector in it.

    Returns
    -------
    data : bytes
        The same with two more members.
    """
    stamp: dict[str, Any] = {
        "format": FORMAT,
        "estimator": type(portable).__name__,
        "versions": package_versions(),
        "encoders": [
            part.fingerprint_
            for part in parts_of(portable)
            if hasattr(part, "fingerprint_")
        ],
    }
    card = render_card(portable, stamp)
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CARD_NAME, card)
        stamp["digests"] = _digests(archive)
        archive.writestr(STAMP_NAME, json.dumps(stamp, indent=2, sort_keys=True))
    return buffer.getvalue()


def _digests(archive: zipfile.ZipFile) -> dict[str, str]:
    return {
        name: hashlib.blake2b(archive.read(name), digest_size=16).hexdigest()
        for name in sorted(archive.namelist())
        if name != STAMP_NAME
    }


def check_archive(data: bytes, name: str) -> None:
    """Refuse what is no archive, or one made to deceive or to fill the memory.

    Parameters
    ----------
    data : bytes
        The file.

    name : str
        What to call it in messages.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            archive.getinfo("schema.json")
    except Exception as error:
        raise ValueError(
            f"Got {name}, which is not a readable skops archive ({error!r}), but "
            "expected a file written by sklearn_clipsid.persistence.dump; never load "
            "another kind of file in its place."
        ) from error
    if len({member.filename for member in members}) < len(members):
        raise ValueError(
            f"Got {name}, which holds two members of one name, so that what is checked "
            "need not be what is shown; get the original file again."
        )
    size = sum(member.file_size for member in members)
    if size > max(MAX_UNPACKED, MAX_RATIO * len(data)):
        raise ValueError(
            f"Got {name} of {len(data):,} bytes, which unpacks to {size:,}, but "
            f"expected at most {MAX_RATIO} times its size; it is no detector."
        )


def check_stamp(data: bytes, name: str) -> None:
    """Compare an archive with its stamp.

    Parameters
    ----------
    data : bytes
        The file.

    name : str
        What to call it in messages.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if STAMP_NAME not in archive.namelist():
            warn_user(
                f"{name} was not written by sklearn_clipsid.persistence.dump: whether "
                "it was changed, and which versions and encoder it needs, cannot be "
                "checked."
            )
            return
        try:
            stamp = json.loads(archive.read(STAMP_NAME))
            there, newest = dict(stamp["digests"]), int(stamp["format"])
            versions = {k: str(v) for k, v in stamp["versions"].items()}
            digests = _digests(archive)
        except Exception as error:
            raise ValueError(
                f"Got {name}, whose members cannot be read or whose stamp is damaged "
                f"({error!r}); get the original file again."
            ) from error
    changed = sorted(
        member
        for member in there.keys() | digests.keys()
        if there.get(member) != digests.get(member)
    )
    if changed:
        raise ValueError(
            f"Got {name}, whose members {', '.join(changed)} were changed, added or "
            "removed after it was saved; get the original file again."
        )
    if newest > FORMAT:
        raise ValueError(
            f"Got {name} in format {newest} but expected at most {FORMAT}; install "
            f"sklearn_clipsid {versions.get('sklearn_clipsid')} or newer."
        )
    _warn_of_other_versions(versions, name)


def _warn_of_other_versions(versions: dict[str, str], name: str) -> None:
    here = package_versions()
    for package in COMPARED_PACKAGES:
        saved = versions.get(package, "unknown")
        if saved.split(".")[:2] != here[package].split(".")[:2]:
            warn_user(
                f"{name} was saved with {package} {saved} and is loaded with "
                f"{here[package]}: compare its scores on known images before use."
            )
