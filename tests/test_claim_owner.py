import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from sklearn_clipsid import _claim_owner
from sklearn_clipsid._claim_owner import (
    CLAIM_SECONDS,
    UNSEEN_SECONDS,
    begin_run,
    end_run,
    is_held,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals end processes there")


@pytest.fixture
def owner():
    owner = begin_run()
    yield owner
    end_run(owner)


@pytest.fixture
def process():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1)
    yield process
    process.kill()
    process.communicate()


def owner_in(process):
    """Name a run as the process itself would."""
    started = _claim_owner._started(process.pid)
    return f"{process.pid}|{started or ''}|run|{_claim_owner._place()}"


def test_runs_of_one_process_have_names_of_their_own(owner):
    other = begin_run()
    assert other != owner
    end_run(other)
    assert is_held(owner, time.time())
    assert not is_held(other, time.time())


def test_a_claim_falls_to_others_when_it_takes_too_long(owner):
    now = time.time()
    assert is_held(owner, now - CLAIM_SECONDS + 5)
    assert not is_held(owner, now - CLAIM_SECONDS - 5)
    # A clock that was set back.
    assert not is_held(owner, now + CLAIM_SECONDS + 5)


def test_a_claim_lasts_as_long_as_its_process(process):
    owner = owner_in(process)
    assert is_held(owner, time.time())
    process.send_signal(signal.SIGSTOP)
    assert is_held(owner, time.time())
    process.kill()
    process.wait()
    assert not is_held(owner, time.time())


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="Linux alone tells")
def test_a_killed_process_that_nobody_has_waited_for_holds_nothing(process):
    owner = owner_in(process)
    process.kill()
    deadline = time.monotonic() + 10
    while is_held(owner, time.time()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_held(owner, time.time())
    os.kill(process.pid, 0)  # its number is still taken


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="Linux alone tells")
def test_a_process_that_got_the_number_of_another_one_holds_nothing(process):
    pid, _, run, place = owner_in(process).split("|")
    assert not is_held(f"{pid}|1|{run}|{place}", time.time())
    # A container that is started again gives its processes the same numbers.
    mine = begin_run()
    pid, _, run, place = mine.split("|")
    assert not is_held(f"{pid}|1|{run}|{place}", time.time())
    end_run(mine)


def test_a_process_of_another_user_is_a_process(monkeypatch):
    def not_allowed(pid, number):
        raise PermissionError

    monkeypatch.setattr(_claim_owner.os, "kill", not_allowed)
    monkeypatch.setattr(_claim_owner, "_started", lambda pid: None)
    assert is_held(f"1||run|{_claim_owner._place()}", time.time())


@pytest.mark.parametrize("where", ["host", "container"])
def test_a_run_that_cannot_be_seen_is_waited_for_but_not_long(
    owner, monkeypatch, tmp_path, where
):
    if where == "host":
        monkeypatch.setattr(platform, "node", lambda: "another")
    else:
        (tmp_path / "self" / "ns").mkdir(parents=True)
        (tmp_path / "self" / "ns" / "pid").symlink_to("pid:[1]")
        monkeypatch.setattr(_claim_owner, "PROCESSES", tmp_path)
    end_run(owner)  # which cannot be seen either
    now = time.time()
    assert is_held(owner, now - UNSEEN_SECONDS + 5)
    assert not is_held(owner, now - UNSEEN_SECONDS - 5)


@pytest.mark.parametrize(
    ("owner", "since"),
    [
        ("", 0.0),
        ("|||", 0.0),
        ("x|y|z", 0.0),
        ("-1|1|run|place", 0.0),
        ("9" * 30 + "|1|run|{place}", 0.0),
        (None, 0.0),
        (b"1|1|run|place", 0.0),
        (5, 0.0),
        ("1|1|run|place", None),
        ("1|1|run|place", "now"),
        ("1|1|run|place", float("nan")),
        ("1|1|run|place", float("inf")),
        ("1|1|run|place", 1e300),
    ],
)
def test_what_no_run_has_written_is_no_claim(owner, since):
    if isinstance(owner, str):
        owner = owner.format(place=_claim_owner._place())
    if since == 0.0:
        since = time.time()
    assert not is_held(owner, since)
