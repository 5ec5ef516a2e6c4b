import hashlib
import http.server
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from sklearn_clipsid.datasets import (
    _cnnspot,
    _hub_files,
    _hub_images,
    _synthbuster_plus,
    _synthclic,
    fetch_cnnspot,
    fetch_synthbuster_plus,
    fetch_synthclic,
)
from sklearn_clipsid.datasets._image_files import IMAGE_SUFFIXES
from sklearn_clipsid.metrics import average_precision_by_generator

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("filelock")
hub = pytest.importorskip("huggingface_hub", reason="the extra `datasets` has it")

BLOCK = 4096
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "marco-willi/synthclic"
SIZES = {"train": (6,), "validation": (3,), "test": (3,)}
STARTS = {
    ".jpg": b"\xff\xd8\xff\xe0",
    ".png": b"\x89PNG\r\n\x1a\n",
    ".webp": b"RIFF\n\r\x00\x01WEBP",
    ".gif": b"GIF89a",
    ".bmp": b"BM",
    ".tif": b"II*\x00",
    ".avif": b"\x00\x00\x00\x1cftypavif",
}


def picture(seed, suffix=".png", size=3000):
    return STARTS[suffix] + np.random.default_rng(seed).bytes(size)


def group(seed):
    """A photograph and two synthetic images of its motif."""
    return [
        {
            "image": {
                "bytes": picture([seed, i], ".jpg" if i == 0 else ".png"),
                "path": f"{source}.bin",
            },
            "label": int(i > 0),
            "image_id": f"id-{seed}",
            "source": source,
            "ds_name": "synthclic",
        }
        for i, source in enumerate(("clic2020", "imagen3", "flux, dev"))
    ]


def parquet_bytes(rows, columns=(*_hub_images._COLUMNS, "ds_name")):
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table(
        {
            name: pa.array(
                [row[name] for row in rows], type=image if name == "image" else None
            )
            for name in columns
        }
    )
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=2, compression="none")
    return stream.getvalue()


@pytest.fixture(scope="module")
def rows():
    """What the repository holds, by file."""
    return {
        "data/train-00000-of-00002-ab12.parquet": group(0),
        "data/train-00001-of-00002-cd34.parquet": group(1),
        "data/validation-00000-of-00001.parquet": group(2),
        "data/test-00000-of-00001.parquet": group(3),
    }


class Hub:
    """A hub on loopback with one repository, and the faults it is told to have."""

    def __init__(self, files):
        self.files = dict(files)
        self.declared = {name: self.describe(data) for name, data in files.items()}
        self.asked = []  # (file, first byte) of each request for content
        self.drop = None  # such a request whose answer breaks off in the middle
        self.refuse_from = None  # number of such requests that are answered
        self.stall = False  # whether the others wait for ever instead
        self.ignores_ranges = False
        self.requests = 0
        hub_ = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                hub_.requests += 1
                hub_.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, args=(0.02,), daemon=True
        ).start()

    @staticmethod
    def describe(data):
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        hub.close_session()

    def answer(self, request):
        path = unquote(urlsplit(request.path).path)
        if match := re.fullmatch(rf"/api/datasets/{REPO}(/revision/.+)?", path):
            self.send(request, json.dumps(self.info()).encode())
        elif path.startswith(f"/api/datasets/{REPO}/tree/{COMMIT}"):
            self.send(request, json.dumps(self.tree()).encode())
        elif match := re.fullmatch(rf"/datasets/{REPO}/resolve/{COMMIT}/(.+)", path):
            self.send_range(request, match[1])
        else:
            request.send_error(404)

    def info(self):
        siblings = [
            {
                "rfilename": name,
                "size": known["size"],
                "blobId": "f" * 40,
                "lfs": {**known, "pointerSize": 134},
            }
            if "sha256" in known
            else {"rfilename": name, "size": known["size"], "blobId": "f" * 40}
            for name, known in self.declared.items()
        ]
        readme = {"rfilename": "README.md", "size": 3, "blobId": "e" * 40}
        return {"id": REPO, "sha": COMMIT, "siblings": [readme, *siblings]}

    def tree(self):
        return [
            {"type": "file", "path": name, "size": known["size"], "oid": "f" * 40}
            for name, known in self.declared.items()
        ]

    def send_range(self, request, name):
        first, last = 0, len(self.files[name]) - 1
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers["Range"] or ""):
            first, last = int(match[1]), int(match[2] or last)
        if self.ignores_ranges:
            first, last = 0, len(self.files[name]) - 1
        if self.refuse_from is not None and len(self.asked) >= self.refuse_from:
            if self.stall:
                self.asked.append((name, "stalled"))
                threading.Event().wait(60)
            request.send_error(403)
            return
        self.asked.append((name, first))
        data = self.files[name][first : last + 1]
        whole = len(data)
        if (name, first) == self.drop:
            self.drop, data = None, data[: whole // 2]
        self.send(request, data, whole, 200 if self.ignores_ranges else 206)

    @staticmethod
    def send(request, data, length=None, status=200):
        request.send_response(status)
        request.send_header("Content-Length", length or len(data))
        request.end_headers()
        request.wfile.write(data)


@pytest.fixture
def served(rows, monkeypatch):
    """The hub that serves these rows."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hub_ = Hub({name: parquet_bytes(part) for name, part in rows.items()})
    yield hub_
    hub_.close()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    dataset = _synthclic._DATASET._replace(split_sizes=SIZES)
    monkeypatch.setattr(_synthclic, "_DATASET", dataset)
    monkeypatch.setattr(_hub_files, "_BLOCK_BYTES", BLOCK)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


def fetch(served, folder, **options):
    options = {"n_retries": 0, "delay": 0.0} | options
    return fetch_synthclic(data_home=folder, endpoint=served.endpoint, **options)


def copied(folder, rows, name="synthclic", revision="main"):
    """Lay out parquet files as a copy by hand does."""
    target = Path(folder, "clipsid", name, revision, "parquet")
    for path, part in rows.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(
            part if isinstance(part, bytes) else parquet_bytes(part)
        )
    return target


def load(folder, fetcher=fetch_synthclic, **options):
    return fetcher(data_home=folder, download_if_missing=False, **options)


def in_order(rows):
    """All rows with their parts, as they should come out."""
    return [
        (row, split)
        for split in ("train", "validation", "test")
        for path in sorted(rows)
        if f"/{split}-" in path
        for row in rows[path]
    ]


def assert_same(images, rows):
    expected = in_order(rows)
    stored = [Path(path).read_bytes() for path in images.data]
    assert stored == [row["image"]["bytes"] for row, _ in expected]
    assert images.target.tolist() == [row["label"] for row, _ in expected]
    assert images.generator.tolist() == [row["source"] for row, _ in expected]
    assert images.pair_id.tolist() == [row["image_id"] for row, _ in expected]
    assert images.split.tolist() == [split for _, split in expected]


def leftovers(folder):
    return [
        path
        for path in Path(folder).rglob("*")
        if path.suffix in (".part", ".parquet") and path.is_file()
    ]


# A local copy of the parquet files


def test_a_copied_repository_is_written_out_as_it_is_stored(tmp_path, rows):
    copied(tmp_path, rows)
    copies = leftovers(tmp_path)
    images = load(tmp_path)
    assert_same(images, rows)
    assert images.target.dtype == np.int64
    assert images.target_names == ["real", "synthetic"]
    assert "SynthCLIC" in images.DESCR
    assert len({Path(path).parent for path in images.data}) == 1
    for path in map(Path, images.data):
        assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.suffix == (".jpg" if path.read_bytes()[:1] == b"\xff" else ".png")
    assert leftovers(tmp_path) == copies  # they are the user's


def test_the_second_call_writes_nothing(tmp_path, rows):
    copied(tmp_path, rows)
    first = load(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert load(tmp_path).data.tolist() == first.data.tolist()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_one_part_needs_the_files_of_that_part_alone(tmp_path, rows):
    test = {path: part for path, part in rows.items() if "test" in path}
    copied(tmp_path, test)
    assert_same(load(tmp_path, split="test"), test)
    with pytest.raises(ValueError, match=r"Got 0 images in the part 'train'.*6.*copy"):
        load(tmp_path)


def test_files_that_are_copied_later_are_added(tmp_path, rows):
    *first, last = rows
    copied(tmp_path, {path: rows[path] for path in first})
    with pytest.raises(ValueError, match=r"Got 0 images in the part 'test'"):
        load(tmp_path)
    copied(tmp_path, {last: rows[last]})
    assert_same(load(tmp_path), rows)


def test_a_copy_that_is_replaced_is_read_again(tmp_path, rows):
    wrong = {path: part[:2] for path, part in rows.items()}
    copied(tmp_path, wrong)
    with pytest.raises(ValueError, match=r"Got 4 images in the part 'train'"):
        load(tmp_path)
    time.sleep(0.02)  # what a file system takes for the same time
    copied(tmp_path, rows)
    assert_same(load(tmp_path), rows)


def test_the_layout_of_converted_repositories_is_known(tmp_path, rows):
    moved = {f"default/{split}/0000.parquet": [] for split in SIZES}
    for row, split in in_order(rows):
        moved[f"default/{split}/0000.parquet"].append(row)
    copied(tmp_path, moved, revision="refs%2Fconvert%2Fparquet")
    images = load(tmp_path, revision="refs/convert/parquet")
    assert_same(images, rows)


def test_equal_images_share_one_file(tmp_path, rows):
    twice = group(3)
    twice[2]["image"] = twice[1]["image"]
    copied(tmp_path, rows | {"data/test-00000-of-00001.parquet": twice})
    images = load(tmp_path, split="test")
    assert images.data[1] == images.data[2]
    assert images.generator[1] != images.generator[2]


@pytest.mark.parametrize("suffix", STARTS)
def test_the_first_bytes_give_the_suffix(tmp_path, rows, suffix):
    part = group(3)
    part[0]["image"] = {"bytes": picture(9, suffix), "path": "x.png"}
    copied(tmp_path, {"data/test-0.parquet": part})
    assert load(tmp_path, split="test").data[0].endswith(suffix)
    assert suffix in IMAGE_SUFFIXES


def test_a_photograph_without_a_source_is_called_real(tmp_path):
    part = group(3)
    part[0] |= {"source": None, "image_id": None}
    copied(tmp_path, {"data/test-0.parquet": part})
    images = load(tmp_path, split="test")
    assert (images.generator[0], images.pair_id[0]) == ("real", "")


def _changed(**cells):
    part = group(3)
    part[1] |= cells
    return part


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (_changed(label=2), r"label 2 in row 1 of .*expected 0 \(real\)"),
        (_changed(source=None), r"empty source for a synthetic image in row 1 of"),
        (_changed(image=None), r"no bytes of the image in row 1 of"),
        (_changed(image={"bytes": None, "path": "a"}), r"no bytes of the image in row"),
        (
            _changed(image={"bytes": b"<html>sorry", "path": "a"}),
            r"row 1 of .*begins with b'<html>sorry'.*\.jpg \.png",
        ),
        (group(3)[:2], r"Got 2 images in the part 'test' .*expected 3; pass"),
        ([row | {"label": 1} for row in group(3)], r"one class in the part 'test'"),
        (parquet_bytes(group(3))[:-50], r"test-0.parquet', which cannot be .*whole"),
        (parquet_bytes(group(3))[100:], r"test-0.parquet', which cannot be .*whole"),
        (b"", r"test-0.parquet', which cannot be read .*whole parquet file"),
        (
            parquet_bytes(group(3), ("image", "label")),
            r"'label'\] .*\['image_id', 'source'\] is missing",
        ),
    ],
)
def test_what_is_not_as_published_is_an_error(tmp_path, part, message):
    copied(tmp_path, {"data/test-0.parquet": part})
    with pytest.raises(ValueError, match=message):
        load(tmp_path, split="test")
    assert not list(tmp_path.rglob("images/.part"))


def test_images_that_are_only_named_are_an_error(tmp_path):
    table = pa.table({name: ["x"] for name in _hub_images._COLUMNS})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    copied(tmp_path, {"data/test-0.parquet": stream.getvalue()})
    with pytest.raises(ValueError, match=r"\['image.bytes'\] is missing"):
        load(tmp_path, split="test")


def test_tables_beside_the_parts_are_left_alone(tmp_path, rows):
    prompts = {"prompts.parquet": b"not even parquet"}
    target = copied(tmp_path, rows | prompts)
    assert_same(load(tmp_path), rows)
    assert (target / "prompts.parquet").exists()


def test_nothing_there_and_no_download_is_an_error_that_says_where_to_copy(tmp_path):
    with pytest.raises(OSError, match=r"nothing of 'marco-willi/synthclic'.*parquet'"):
        load(tmp_path)


@pytest.mark.parametrize(
    "options", [{"split": "tests"}, {"n_retries": -1}, {"delay": -1}, {"revision": 1}]
)
def test_parameters_are_checked(tmp_path, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"The '{name}' parameter of fetch_synthclic"):
        load(tmp_path, **options)


# Killed while images are written


@pytest.mark.parametrize("n_written", [2, 5])
def test_a_second_call_goes_on_after_a_kill_between_images(
    n_written, tmp_path, rows, monkeypatch
):
    copied(tmp_path, rows)
    write, written = _hub_images.write, []

    def killed(path, data):
        if len(written) == n_written:
            # As a kill in the middle leaves it.
            path.with_name(".part").write_bytes(data[:10])
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, data)

    monkeypatch.setattr(_hub_images, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path)
    whole = {row["image"]["bytes"] for row, _ in in_order(rows)}
    for path in tmp_path.rglob("images/*"):
        assert path.name == ".part" or path.read_bytes() in whole
    again = []
    monkeypatch.setattr(
        _hub_images,
        "write",
        lambda path, data: (again.append(path), write(path, data)),
    )
    assert_same(load(tmp_path), rows)
    assert again
    assert not {path.name for path in again} & set(written)


# From a hub


def test_a_download_is_what_the_repository_holds(served, tmp_path, rows, capsys):
    images = fetch(served, tmp_path)
    assert_same(images, rows)
    assert not leftovers(tmp_path)
    assert "synthclic" not in capsys.readouterr().err  # it took less than 5 seconds
    assert set(Counter(served.asked).values()) == {1}


def test_what_is_there_needs_no_hub(served, tmp_path, rows):
    first = fetch(served, tmp_path)
    n_requests = served.requests
    assert fetch(served, tmp_path).data.tolist() == first.data.tolist()
    assert load(tmp_path).data.tolist() == first.data.tolist()
    assert served.requests == n_requests


def test_one_part_downloads_the_files_of_that_part_alone(served, tmp_path):
    fetch(served, tmp_path, split="validation")
    (name,) = {name for name, _ in served.asked}
    assert name == "data/validation-00000-of-00001.parquet"
    with pytest.raises(OSError, match=r"download_if_missing=False but not all images"):
        load(tmp_path)


def test_a_dropped_connection_costs_no_more_than_a_block(served, tmp_path, rows):
    dropped = ("data/train-00000-of-00002-ab12.parquet", BLOCK)
    served.drop = dropped
    assert_same(fetch(served, tmp_path), rows)
    assert Counter(served.asked)[dropped] == 2
    assert sum(n - 1 for n in Counter(served.asked).values()) == 1


def test_the_second_call_asks_for_the_rest_of_the_file(served, tmp_path, rows):
    name = "data/train-00000-of-00002-ab12.parquet"
    served.refuse_from = 2
    with pytest.raises(
        OSError,
        match=r"Could not get the file 'data/train-00000.*goes on where it stop",
    ):
        fetch(served, tmp_path)
    (part,) = leftovers(tmp_path)
    assert part.read_bytes() == served.files[name][: 2 * BLOCK]
    assert not list(tmp_path.rglob("images/*"))
    served.refuse_from = None
    assert_same(fetch(served, tmp_path), rows)
    assert served.asked[2] == (name, 2 * BLOCK)
    assert set(Counter(served.asked).values()) == {1}


def test_a_retry_asks_for_the_rest_of_the_file(served, tmp_path, rows, monkeypatch):
    served.refuse_from = 1
    pauses = []

    def repair(seconds):
        pauses.append(seconds)
        served.refuse_from = None

    monkeypatch.setattr(_hub_files.time, "sleep", repair)
    assert_same(fetch(served, tmp_path, n_retries=2, delay=0.25), rows)
    assert pauses == [0.25]
    assert set(Counter(served.asked).values()) == {1}


def test_a_killed_process_leaves_a_part_that_the_next_one_completes(
    served, tmp_path, rows
):
    served.refuse_from, served.stall = 2, True
    program = f"""
from sklearn_clipsid.datasets import _hub_files, fetch_synthclic
_hub_files._BLOCK_BYTES = {BLOCK}
fetch_synthclic(data_home={str(tmp_path)!r}, endpoint={served.endpoint!r})
"""
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        end = time.monotonic() + 60
        while len(served.asked) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        process.kill()
    name = "data/train-00000-of-00002-ab12.parquet"
    assert served.asked == [(name, 0), (name, BLOCK), (name, "stalled")]
    served.refuse_from = None
    assert_same(fetch(served, tmp_path), rows)
    assert served.asked[3] == (name, 2 * BLOCK)


def test_two_calls_at_once_download_once(served, tmp_path, rows):
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: fetch(served, tmp_path)}))
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for images in (found[0], found[1]):
        assert_same(images, rows)
    assert set(Counter(served.asked).values()) == {1}


def test_a_file_that_is_not_the_declared_one_is_never_read(served, tmp_path, rows):
    name = "data/train-00000-of-00002-ab12.parquet"
    good = served.files[name]
    served.files[name] = good[:-9] + b"?" + good[-8:]
    expected = served.declared[name]["sha256"]
    with pytest.raises(
        OSError, match=rf"Got {len(good)} bytes with .* {expected}; try"
    ):
        fetch(served, tmp_path)
    assert not leftovers(tmp_path)
    assert not list(tmp_path.rglob("images/*"))
    served.files[name] = good
    assert_same(fetch(served, tmp_path), rows)


def test_without_a_declared_digest_the_size_is_checked(served, tmp_path, rows):
    name = "data/train-00000-of-00002-ab12.parquet"
    for known in served.declared.values():
        del known["sha256"]
    assert_same(fetch(served, tmp_path), rows)
    served.declared[name]["size"] -= 1
    part = tmp_path / "again/clipsid/synthclic/main/parquet" / f"{name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(served.files[name])
    with pytest.raises(OSError, match=r"but expected .* bytes with any; try again"):
        fetch(served, tmp_path / "again")


def test_a_server_without_ranges_is_found_out(served, tmp_path):
    served.ignores_ranges = True
    with pytest.raises(
        OSError, match=r"bytes at byte 0 of .* but expected 4096; use an"
    ):
        fetch(served, tmp_path)


def test_an_image_that_was_removed_is_fetched_again(served, tmp_path, rows):
    images = fetch(served, tmp_path)
    Path(images.data[-1]).unlink()
    Path(images.data[0]).write_bytes(b"short")
    assert_same(fetch(served, tmp_path), rows)
    again = {name for name, n in Counter(served.asked).items() if n == 2}
    assert {name for name, _ in again} == {
        "data/train-00000-of-00002-ab12.parquet",
        "data/test-00000-of-00001.parquet",
    }


def test_a_hub_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path):
    nowhere = Hub({})
    nowhere.close()
    with pytest.raises(
        OSError, match=r"Could not get the list of files.*copy the repos"
    ):
        fetch(nowhere, tmp_path)


@pytest.mark.parametrize("package", ["huggingface_hub", "pyarrow", "filelock"])
def test_a_package_that_lacks_is_named_with_its_extra(
    served, tmp_path, package, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError,
        match=rf"fetch_synthclic needs {package}.*sklearn-clipsid\[datasets",
    ):
        fetch(served, tmp_path)


def test_offline_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"\(Cannot reach .* offline.*copy the reposit"):
        fetch_synthclic(data_home=tmp_path, n_retries=0, endpoint="http://127.0.0.1:9")


def test_a_folder_that_cannot_be_made_is_named(tmp_path, rows):
    (tmp_path / "clipsid").write_text("a file")
    with pytest.raises(OSError, match="clipsid"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["../train.parquet", "/train.parquet", "a\\train.parquet"]
)
def test_a_file_name_that_leads_elsewhere_is_refused(served, tmp_path, name):
    served.declared = {name: {"size": 1, "sha256": "0" * 64}}
    with pytest.raises(ValueError, match="outside of its folder"):
        fetch(served, tmp_path)


def test_a_repository_without_parquet_files_is_an_error(served, tmp_path):
    served.declared = {"data/train.zip": {"size": 1, "sha256": "0" * 64}}
    with pytest.raises(ValueError, match=r"Got no parquet files in 'marco-willi/synth"):
        fetch(served, tmp_path)


# The three data sets


@pytest.mark.parametrize(
    ("module", "totals"),
    [
        (_synthclic, {10815}),
        (_synthbuster_plus, {13999}),
        (_cnnspot, {8000, 112310}),
    ],
)
def test_the_published_sizes_add_up(module, totals, monkeypatch):
    monkeypatch.undo()  # the small sizes of the other tests
    sizes = module._DATASET.split_sizes
    assert list(sizes) == ["train", "validation", "test"]
    found = {sizes["train"][0] + sizes["validation"][0] + n for n in sizes["test"]}
    assert found == totals
    text = (
        Path(module.__file__).parent / "descr" / f"{module._DATASET.name}.rst"
    ).read_text(encoding="utf-8")
    for numbers in sizes.values():
        assert all(str(n) in text for n in numbers)
    docutils = pytest.importorskip("docutils.core")
    docutils.publish_doctree(text, settings_overrides={"halt_level": 2})


@pytest.mark.parametrize(
    ("fetcher", "module", "text"),
    [
        (fetch_synthbuster_plus, _synthbuster_plus, "SynthBuster+"),
        (fetch_cnnspot, _cnnspot, "CNNSpot-small"),
    ],
)
def test_the_others_are_fetched_alike(
    tmp_path, rows, monkeypatch, fetcher, module, text
):
    dataset = module._DATASET._replace(split_sizes=SIZES)
    monkeypatch.setattr(module, "_DATASET", dataset)
    copied(tmp_path, rows, name=dataset.name)
    images = load(tmp_path, fetcher)
    assert_same(images, rows)
    assert text in images.DESCR
    with pytest.raises(OSError, match=f"nothing of '{dataset.repo_id}'"):
        load(tmp_path / "elsewhere", fetcher)


def test_photographs_of_cnnspot_are_matched_negatives(tmp_path, monkeypatch):
    dataset = _cnnspot._DATASET._replace(split_sizes={"test": (12,)})
    monkeypatch.setattr(_cnnspot, "_DATASET", dataset)
    part = [
        row | {"source": source, "label": int(i > 0)}
        for source, seed in (("progan", 0), ("san", 1), ("ldm_100", 2), ("crn", 3))
        for i, row in enumerate(group(seed))
    ]
    copied(tmp_path, {"data/test-0.parquet": part}, name="cnnspot")
    images = load(tmp_path, fetch_cnnspot)
    scores = images.target + np.arange(12) / 100
    found = average_precision_by_generator(
        images.target, scores, groups=images.generator, negatives="matched"
    )
    assert set(found) == {"progan", "san", "ldm_100", "crn"}
    assert set(found.values()) == {1.0}
