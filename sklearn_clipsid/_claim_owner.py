"""Name the runs that claim images, and tell which of them are over."""

from __future__ import annotations

import os
import platform
import time
import uuid
from pathlib import Path

# A claim that is not honoured in this time falls to others. Longer than a batch takes;
# the images of a slower one are embedded twice, and never wrongly.
CLAIM_SECONDS = 600.0
# The same for a run of another host or container, which may have ended unseen.
UNSEEN_SECONDS = 60.0
PROCESSES = Path("/proc")
# Runs of this process that are not over: one that failed may have left claims behind.
_going_on: set[str] = set()


def begin_run() -> str:
    """Return a name for a run that begins.

    Returns
    -------
    owner : str
        To be written beside what the run claims.
    """
    pid = os.getpid()
    owner = f"{pid}|{_started(pid) or ''}|{uuid.uuid4().hex}|{_place()}"
    _going_on.add(owner)
    return owner


def end_run(owner: str) -> None:
    """Note that a run is over.

    Parameters
    ----------
    owner : str
        As `begin_run` named it.
    """
    _going_on.discard(owner)


def is_held(owner: object, since: object) -> bool:
    """Return whether a claim is to be left to its owner.

    Parameters
    ----------
    owner : str
        As `begin_run` named it.

    since : float
        When it claimed, in seconds since the epoch.

    Returns
    -------
    is_held : bool
        False when the run is over or takes too long, and for what no run has written.
    """
    if not (isinstance(owner, str) and isinstance(since, float)):
        return False
    is_alive = _is_alive(owner)
    if is_alive is False:
        return False
    longest = UNSEEN_SECONDS if is_alive is None else CLAIM_SECONDS
    # A clock that was set back must not prolong a claim without end.
    return abs(time.time() - since) < longest


def _is_alive(owner: str) -> bool | None:
    """Return None for a process that cannot be seen from here."""
    pid_text, started, _, place = [*owner.split("|", 3), "", "", ""][:4]
    if not pid_text.isdecimal():
        return False
    pid = int(pid_text)
    if place != _place() or os.name == "nt":  # where signal 0 would end it
        return None
    if pid == os.getpid() and started == (_started(pid) or ""):
        return owner in _going_on
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is there, and another user's
    # The number of an ended process may have been given to another one.
    now = _started(pid)
    return now is None or now == started


def _place() -> str:
    """Name what process numbers are unique in: a host, or a container on it."""
    try:
        namespace = os.readlink(PROCESSES / "self" / "ns" / "pid")
    except OSError:
        namespace = ""
    return f"{platform.node()} {namespace}"


def _started(pid: int) -> str | None:
    """Return when a process was started, or None where Linux does not tell."""
    try:
        status = (PROCESSES / str(pid) / "stat").read_text(errors="replace")
        # After the name, which may hold anything: the state, and the time as number 20.
        fields = status.rpartition(")")[2].split()
        # A process that was killed stays a zombie until its parent looks.
        return "never" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return None
