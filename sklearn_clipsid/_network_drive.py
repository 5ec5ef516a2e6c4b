"""Tell folders on a network drive, where databases cannot rely on locks."""

from __future__ import annotations

import os
import re
from pathlib import Path

# File systems that another machine serves, as Linux names them.
NETWORK_TYPES = (
    "9p afp afs beegfs ceph cifs davfs fuse.ceph fuse.drive fuse.gcsfuse "
    "fuse.glusterfs fuse.juicefs fuse.rclone fuse.s3fs fuse.sshfs gfs2 glusterfs gpfs "
    "lustre ncpfs nfs nfs4 ocfs2 orangefs panfs pvfs2 smb3 smbfs wekafs"
).split()
MOUNTS = Path("/proc/self/mountinfo")
ESCAPED = re.compile(r"\\([0-7]{3})")


def is_network_drive(folder: str) -> bool:
    """Return whether a folder lies on a network file system.

    Parameters
    ----------
    folder : str
        An absolute path.

    Returns
    -------
    is_network : bool
        False where it cannot be found out: it is asked of Linux, and of Windows'
        names of servers.
    """
    folder = os.path.realpath(folder)
    if folder.startswith("\\\\"):  # \\server\share
        return True
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    holding, kind = "", ""
    for line in mounts.splitlines():
        place, _, source = line.partition(" - ")
        # Spaces, tabs, line feeds and backslashes in names are written as \040.
        point = ESCAPED.sub(lambda m: chr(int(m[1], 8)), place.split(" ")[4])
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(holding):  # the last mount on a point counts
            holding, kind = point, source.split(" ")[0]
    return kind in NETWORK_TYPES
