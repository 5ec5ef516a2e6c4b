"""Keep all shards of a folder to one encoder."""

from __future__ import annotations

from collections.abc import Mapping

from sklearn_clipsid._shard_files import (
    FORMAT,
    ShardFolder,
    read_json,
    worded_write_errors,
)

ENCODER = "manifest/encoder.json"


def agree_on_encoder(files: ShardFolder, fingerprint: dict[str, str]) -> None:
    """Refuse any encoder but the first one that asks.

    Parameters
    ----------
    files : ShardFolder
        Where the first one is noted.

    fingerprint : dict of str
        The one that asks.

    Raises
    ------
    ValueError
        When it is not the first; the message says what differs.
    """
    noted = (read_json(files.path(ENCODER)) or {}).get("fingerprint")
    if isinstance(noted, dict):
        refuse_other_encoder(
            fingerprint,
            noted,
            f"{files.root!r} was begun with; use the same model, weights and settings "
            "(precision='auto' may differ between machines: name one), or pass another "
            "folder, or overwrite=True to start it anew.",
        )
        return
    # Two that ask in the same moment both note themselves. They ask again before they
    # write a shard, when one of them finds the other.
    with worded_write_errors(files.root):
        files.write_json(ENCODER, {"format": FORMAT, "fingerprint": fingerprint})


def refuse_other_encoder(
    here: Mapping[str, str], there: Mapping[str, str], remedy: str
) -> None:
    """Say how two encoders differ, if they do.

    Parameters
    ----------
    here, there : dict of str
        Their fingerprints.

    remedy : str
        The end of the message, after "expected the one that".
    """
    # The name says where the weights came from, their digest what they are.
    changed = [
        f"{key} {here.get(key)!r} instead of {there.get(key)!r}"
        for key in sorted(here.keys() | there.keys())
        if key != "architecture" and here.get(key) != there.get(key)
    ]
    if changed:
        raise ValueError(
            f"Got another encoder ({', '.join(changed)}) but expected the one that "
            f"{remedy}"
        )
