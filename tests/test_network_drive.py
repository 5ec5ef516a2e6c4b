import os

import pytest

from sklearn_clipsid import _network_drive
from sklearn_clipsid._network_drive import is_network_drive

MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:40 / /home rw shared:2 - nfs4 server:/home rw,vers=4.2
23 22 8:2 / /home/local rw - xfs /dev/sdb1 rw
24 21 0:41 / /mnt/with\040space\134and\011tab rw - cifs //server/share rw
25 21 0:42 / /data rw master:1 - fuse.sshfs host:/data rw
26 21 0:43 / /twice rw - nfs server:/old rw
27 21 8:3 / /twice rw - ext4 /dev/sdc1 rw
28 21 0:44 / /overlay rw - overlay overlay rw,lowerdir=/a,upperdir=/b
29 21 0:45 / /lustre rw - lustre 10.0.0.1@tcp:/scratch rw
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS.lstrip(), encoding="utf-8")
    monkeypatch.setattr(_network_drive, "MOUNTS", path)
    return path


@pytest.mark.parametrize(
    ("folder", "is_network"),
    [
        ("/", False),
        ("/var/cache", False),
        ("/home", True),
        ("/home/me/cache", True),
        ("/home/local/cache", False),  # a disk inside the network drive
        ("/homely/cache", False),  # no part of it, in spite of its name
        ("/mnt/with space\\and\ttab/cache", True),
        ("/mnt/with", False),
        ("/data/cache", True),
        ("/twice/cache", False),  # what was mounted last hides the rest
        ("/overlay/cache", False),
        ("/lustre/cache", True),
    ],
)
def test_the_innermost_mount_decides(mounts, folder, is_network):
    assert is_network_drive(folder) == is_network


def test_a_link_lies_where_it_leads(mounts, tmp_path):
    link = tmp_path / "link"
    link.symlink_to("/data/cache")
    assert is_network_drive(str(link))
    assert not is_network_drive(str(tmp_path))


def test_names_that_are_no_text_do_not_matter(mounts):
    with open(mounts, "ab") as file:
        file.write(b"30 21 0:46 / /\xff rw - nfs server:/\xff rw\n")
    assert is_network_drive(os.fsdecode(b"/\xff/cache"))
    assert not is_network_drive("/var")


def test_a_folder_on_windows_server_is_told_by_its_name(mounts, monkeypatch):
    monkeypatch.setattr(_network_drive.os.path, "realpath", lambda folder: folder)
    assert is_network_drive(r"\\server\share\cache")


def test_where_it_cannot_be_found_out_no_drive_is_a_network_drive(
    mounts, tmp_path, monkeypatch
):
    monkeypatch.setattr(_network_drive, "MOUNTS", tmp_path / "missing")
    assert not is_network_drive("/home/me/cache")


def test_the_mounts_of_this_machine_can_be_read(tmp_path):
    assert is_network_drive(str(tmp_path)) in (True, False)
