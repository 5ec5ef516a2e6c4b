import csv
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import (
    AbstainingClassifier,
    CLIPEmbedder,
    ConceptBottleneckClassifier,
    OrthogonalLinearDetector,
)
from sklearn_clipsid.cli import _detector as detector_module
from sklearn_clipsid.cli import main
from sklearn_clipsid.cli._say import ImageProgress
from sklearn_clipsid.persistence import dump, load

Y = np.array([0, 1] * 4 + [1])
ORTHOGONAL = OrthogonalLinearDetector(2, max_iter=3, random_state=0)
CONCEPTS = ConceptBottleneckClassifier(
    np.eye(64)[:3], ["grain", "blur", "tint"], max_iter=3, random_state=0
)
ABSTAINING = AbstainingClassifier(ORTHOGONAL, max_fpr=0.8, cv=2)


@pytest.fixture
def save(tiny_clip, image_files, tmp_path):
    """Function that fits a head behind the tiny encoder, and returns file and model."""

    def save(head=ORTHOGONAL):
        embedder = CLIPEmbedder(pretrained=tiny_clip, batch_size=2)
        model = make_pipeline(embedder, head).fit(image_files, Y)
        dump(model, tmp_path / "detector.skops")
        return str(tmp_path / "detector.skops"), model

    return save


@pytest.fixture
def score(tiny_clip, capsys):
    """Function that runs `clipsid score`; returns status, output and errors."""

    def score(*arguments):
        status = main(["score", *arguments, "--pretrained", tiny_clip])
        return status, *capsys.readouterr()

    return score


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return str(path)


def test_each_image_gets_a_line_with_its_probability(save, score, image_files):
    file, model = save()
    status, out, err = score(file, *image_files)
    expected = model.predict_proba(image_files)[:, 1]
    lines = [f"{p:.4f}\t{path}" for p, path in zip(expected, image_files)]
    assert (status, out.splitlines()) == (0, lines)
    assert err == "clipsid: 9 images scored; 0 could not be read.\n"


def test_folders_are_walked_and_standard_input_is_read(
    save, score, image_files, tmp_path, monkeypatch
):
    file, _ = save()
    folder = tmp_path / "inbox"
    (folder / "b").mkdir(parents=True)
    for place, path in (("b/2.png", image_files[0]), ("1.png", image_files[1])):
        (folder / place).hardlink_to(path)
    (folder / "notes.xcf").write_text("no image")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{image_files[2]}\n\n"))
    status, out, err = score(file, str(folder), "-")
    assert status == 0
    paths = [line.split("\t")[1] for line in out.splitlines()]
    assert paths == [f"{folder}/1.png", f"{folder}/b/2.png", image_files[2]]
    assert "left out 1 files" in err
    assert "'notes.xcf'" in err


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("empty", "Got no images in 'empty' but expected at least one"),
        ("-", "Got nothing on standard input but expected paths of images"),
        ("gone", "Got 'gone' but there is no such file or folder below"),
    ],
)
def test_no_images_are_an_error(save, score, tmp_path, monkeypatch, folder, message):
    file, _ = save()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    status, out, err = score(file, folder)
    assert (status, out) == (2, "")
    assert message in err


def test_unreadable_files_are_listed_and_the_rest_is_scored(
    save, score, image_files, broken, tmp_path
):
    file, model = save(ABSTAINING)
    gone = str(tmp_path / "gone.png")
    paths = [broken, image_files[0], gone, image_files[1]]
    status, out, err = score(file, *paths, "--csv", str(tmp_path / "out.csv"))
    assert status == 1
    first, scored, third, _ = (line.split("\t") for line in out.splitlines())
    assert first[:3] == ["-", "-", broken]
    assert third == ["-", "-", gone, "could not be read: No such file or directory"]
    assert scored[1:] == [
        model[-1].decide(model[:-1].transform(paths[1:2]))[0],
        paths[1],
    ]
    assert f"could not read {gone!r}: No such file or directory" in err
    assert f"could not read {broken!r}" in err
    assert re.search(r"2 images scored, .*\d (real|synth|und).*; 2 could not be", err)
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["path"] for row in rows] == paths
    assert [bool(row["error"]) for row in rows] == [True, False, True, False]
    assert float(rows[1]["score"]) == pytest.approx(
        model.decision_function(paths[1:2])[0]
    )
    assert rows[0]["score"] == rows[0]["verdict"] == ""


def test_files_that_are_all_unreadable_leave_nothing_to_score(save, score, broken):
    file, _ = save()
    status, out, _ = score(file, broken, broken)
    assert status == 1
    assert len(out.splitlines()) == 2


def test_json_lines_hold_every_number(save, score, image_files, broken):
    file, model = save()
    status, out, _ = score(file, "--json", "--explain", image_files[0], broken)
    scored, unread = map(json.loads, out.splitlines())
    assert status == 1
    assert scored["score"] == pytest.approx(
        model.decision_function(image_files[:1])[0], abs=1e-5
    )
    assert scored["probability"] == pytest.approx(
        model.predict_proba(image_files[:1])[0, 1], abs=1e-5
    )
    assert unread.keys() == {"path", "error"}
    # Both activations are shown: with what they leave out, they make the score.
    head = model[-1]
    X = model[:-1].transform(image_files[:1])
    rest = head.decision_function(X) - head.transform(X) @ head.activation_weights_.T
    shown = sum(part["summand"] for part in scored["explanation"])
    assert shown + rest[0, 0] == pytest.approx(scored["score"], abs=1e-5)
    sizes = [abs(part["summand"]) for part in scored["explanation"]]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("wrapped", [False, True])
def test_explanations_name_concepts(save, score, image_files, tmp_path, wrapped):
    head = AbstainingClassifier(CONCEPTS, max_fpr=0.8, cv=2) if wrapped else CONCEPTS
    file, _ = save(head)
    table = str(tmp_path / "out.csv")
    _, out, _ = score(file, image_files[0], "--explain", "--csv", table)
    words = out.rstrip("\n").split("\t")[-1].split(", ")
    assert {word.split()[0] for word in words} == {"grain", "blur", "tint"}
    with open(table, newline="", encoding="utf-8") as rows:
        assert next(csv.DictReader(rows))["explanation"].split(", ") == words


def test_what_has_no_parts_is_not_explained(save, score, image_files):
    file, _ = save(LogisticRegression())
    status, out, err = score(file, image_files[0], "--explain")
    assert (status, out) == (2, "")
    assert "Got a LogisticRegression to explain" in err


def fixed(model, threshold):
    return FixedThresholdClassifier(
        FrozenEstimator(model), threshold=threshold, response_method="decision_function"
    )


@pytest.mark.parametrize(
    ("threshold", "word"), [(-np.inf, "synthetic"), (np.inf, "real")]
)
def test_a_fixed_threshold_gives_verdicts(
    save, score, image_files, tmp_path, threshold, word
):
    _, model = save()
    threshold = np.clip(threshold, -1e9, 1e9)
    whole = str(tmp_path / "fixed.skops")  # the pipeline lies in the classifier
    dump(fixed(model, threshold).fit(image_files, Y), whole)
    _, out, _ = score(whole, *image_files)
    assert {line.split("\t")[1] for line in out.splitlines()} == {word}


def test_encoders_inside_other_classifiers_are_found(
    tiny_clip, score, image_files, tmp_path, broken
):
    pipe = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), LogisticRegression())
    model = CalibratedClassifierCV(pipe, cv=2).fit(image_files, Y)
    file = str(tmp_path / "calibrated.skops")
    dump(model, file)
    status, out, _ = score(file, image_files[0], broken)
    assert status == 1
    # Without a decision function, and without a column of verdicts.
    probability = model.predict_proba(image_files[:1])[0, 1]
    assert out.splitlines()[0] == f"{probability:.4f}\t{image_files[0]}"


def test_rows_come_part_by_part(save, image_files, tiny_clip, monkeypatch):
    file, _ = save()
    options = _Options(file, tiny_clip)
    detector = detector_module.Detector(options)
    monkeypatch.setattr(detector_module, "SECONDS", 1e9)
    parts = [len(part) for part in detector.score_in_parts(image_files)]
    assert parts == [2, 4, 3]
    monkeypatch.setattr(detector_module, "SECONDS", 0)
    parts = [len(part) for part in detector.score_in_parts(image_files)]
    assert parts == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("nested", [False, True])
def test_each_image_is_embedded_once_and_memory_stays_bounded(
    save, image_files, tiny_clip, tmp_path, encoded, monkeypatch, nested
):
    file, model = save(ABSTAINING)
    if nested:  # the pipeline lies in the classifier, which asks for rows again
        file = str(tmp_path / "nested.skops")
        dump(fixed(model, 0.5).fit(image_files, Y), file)
    detector = detector_module.Detector(_Options(file, tiny_clip), explain=True)
    detector.reader.clear_cache()
    encoded.clear()
    monkeypatch.setattr(detector_module, "MEMORY", 0)
    monkeypatch.setattr(detector_module, "SECONDS", 0)
    kept = [
        detector.reader.cache_info().rows for _ in detector.score_in_parts(image_files)
    ]
    assert sum(encoded) == len(image_files)
    assert kept == [2, 2, 2, 2, 1]


class _Options:
    def __init__(self, detector, pretrained):
        self.detector, self.pretrained, self.cache_dir = detector, pretrained, None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "but there is no such file; name a .skops file."),
        (b"no archive", "which is not a readable skops archive"),
    ],
)
def test_a_file_that_is_no_detector_is_an_error(
    score, tmp_path, image_files, content, message
):
    file = tmp_path / "x.skops"
    if content is not None:
        file.write_bytes(content)
    status, out, err = score(str(file), image_files[0])
    assert (status, out) == (2, "")
    assert err.startswith("clipsid: error: ")
    assert message in err
    assert "Traceback" not in err


def test_a_detector_is_looked_for_in_the_first_place(save, score, image_files):
    file, _ = save()
    for first in (image_files[0], str(Path(file).parent)):
        status, _, err = score(first, file)
        assert status == 2
        assert f"Got {first!r} as DETECTOR, but expected a .skops file; the " in err
    status, _, err = score(file.removesuffix("s"), image_files[0])
    assert (status, f"did you mean {file}?" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (
            "clip_orthogonal_combined.ckpt",
            "reference_pipeline('clip_orthogonal_combined', "
            "'clip_orthogonal_combined.ckpt')",
        ),
        ("$(rm -r x).pth", "reference_pipeline('NAME', 'FILE')"),
    ],
)
def test_checkpoints_are_told_how_to_become_detectors(
    score, tmp_path, image_files, name, made
):
    (tmp_path / name).write_bytes(b"PK")
    status, out, err = score(str(tmp_path / name), image_files[0])
    assert (status, out) == (2, "")
    assert "expected a .skops file. Make one of a published detector" in err
    assert f"dump({made}, 'detector.skops')" in err


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("suffix", [".skops", ".ckpt", ".pth", ".pt", ".bin", ".pkl"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("command", ["score", "info"])
def test_payloads_do_not_run(tmp_path, image_files, suffix, zipped, command, capsys):
    ran, file = tmp_path / "ran", tmp_path / f"detector{suffix}"
    payload = pickle.dumps(_Payload(str(ran)))
    file.write_bytes(payload)
    if zipped:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
            archive.writestr("schema.json", "{}")
    images = image_files[:1] if command == "score" else []
    assert main([command, str(file), *images]) == 2
    assert "clipsid: error: Got " in capsys.readouterr().err
    assert not ran.exists()
    pickle.loads(payload).close()  # it would have
    assert ran.exists()


def test_missing_weights_are_asked_for_by_their_option(
    save, image_files, tmp_path, capsys
):
    file, _ = save()
    gone = str(tmp_path / "gone.safetensors")
    assert main(["score", file, image_files[0], "--pretrained", gone]) == 2
    err = capsys.readouterr().err
    assert f"{gone!r}" in err
    assert "Here that is --pretrained PATH." in err


def test_a_detector_of_embeddings_is_refused(score, tmp_path, image_files):
    file = str(tmp_path / "head.skops")
    X = np.random.default_rng(0).normal(size=(9, 4))
    dump(LogisticRegression().fit(X, Y), file)
    status, _, err = score(file, image_files[0])
    assert status == 2
    assert "which takes embeddings, but expected a detector that takes images" in err


def test_other_labels_are_refused(tiny_clip, score, tmp_path, image_files):
    file = str(tmp_path / "words.skops")
    pipe = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), LogisticRegression())
    dump(pipe.fit(image_files, np.where(Y, "fake", "photo")), file)
    status, _, err = score(file, image_files[0])
    assert status == 2
    assert "expected one of 0 (photographs) and 1 (synthetic images)" in err


def test_another_encoder_is_refused(
    save, image_files, write_tiny_clip, tmp_path, capsys
):
    file, _ = save()
    other = write_tiny_clip(tmp_path / "other", seed=5)
    assert main(["score", file, image_files[0], "--pretrained", other]) == 2
    assert "not the one this pipeline was fitted with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("gone/out.csv", "make the folder first"),
        ("folder", "which is a folder"),
        ("photo.png", "ends in .csv, to be replaced"),  # as of `--csv *.png`
    ],
)
def test_a_table_that_cannot_be_written_is_found_before_scoring(
    save, score, image_files, tmp_path, encoded, table, message
):
    file, _ = save()
    encoded.clear()
    (tmp_path / "folder").mkdir()
    (tmp_path / "photo.png").write_bytes(b"kept")
    status, out, err = score(file, image_files[0], "--csv", str(tmp_path / table))
    assert (status, out, encoded) == (2, "", [])
    assert message in err
    assert (tmp_path / "photo.png").read_bytes() == b"kept"


def test_a_table_is_kept_until_there_is_another(
    save, image_files, write_tiny_clip, tmp_path
):
    file, _ = save()
    table = tmp_path / "out.csv"
    table.write_text("of yesterday")
    other = write_tiny_clip(tmp_path / "other", seed=5)
    arguments = ["--csv", str(table), "--pretrained"]
    assert main(["score", file, image_files[0], *arguments, other]) == 2
    assert table.read_text() == "of yesterday"


def test_ctrl_c_says_what_is_done(save, score, image_files, monkeypatch):
    file, _ = save()
    whole = detector_module.Detector.score

    def stopped(self, paths):
        if paths[0] == image_files[2]:
            raise KeyboardInterrupt
        return whole(self, paths)

    monkeypatch.setattr(detector_module.Detector, "score", stopped)
    status, out, err = score(file, *image_files)
    assert status == 130
    assert len(out.splitlines()) == 2
    assert err == "clipsid: stopped. 2 of 9 images are done.\n"


# ---- as a process of its own

COMMAND = [sys.executable, "-m", "sklearn_clipsid.cli"]


def test_help_imports_nothing_heavy():
    program = """
import sys
from sklearn_clipsid.cli import main
try:
    main(["score", "--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {"numpy", "scipy", "sklearn", "torch", "PIL", "skops", "tqdm"}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [[], ["score"], ["shout"]])
def test_wrong_usage_ends_with_2(arguments):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: clipsid")


def test_a_closed_pipe_ends_quietly(save, image_files, tiny_clip, monkeypatch, capfd):
    file, _ = save()
    read, write = os.pipe()
    os.close(read)  # as head does
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        status = main(["score", file, *image_files, "--pretrained", tiny_clip])
        pipe.write("nobody reads this")
    assert status == 141
    assert capfd.readouterr() == ("", "")


def test_closed_streams_are_done_without(save, image_files, tiny_clip, monkeypatch):
    file, _ = save()
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    arguments = ["--pretrained", tiny_clip]
    assert main(["score", file, image_files[0], *arguments]) == 0
    assert main(["score", file, "-", *arguments]) == 2  # no images
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


def test_a_signal_ends_with_130_and_no_traceback(save, image_files, tiny_clip):
    file, _ = save()
    command = [*COMMAND, "score", file, "-", "--pretrained", tiny_clip]
    with subprocess.Popen(
        command, stdin=-1, stdout=-1, stderr=-1, text=True
    ) as process:
        process.stdin.write("\n".join(image_files * 20_000))
        process.stdin.close()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        err = process.stderr.read()
    assert process.returncode == 130
    assert "of 180000 images are done." in err
    assert "Traceback" not in err


# ---- names of files


@pytest.fixture
def score_bytes(save, tiny_clip, monkeypatch):
    """Function that scores what bytes name; returns the bytes of the output."""
    file, _ = save()

    def score_bytes(names, *arguments):
        # As of a terminal that knows no more than ASCII.
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names)))
        monkeypatch.setattr(sys, "stdout", out)
        place = ["--pretrained", tiny_clip]
        assert main(["score", file, "-", *arguments, *place]) == 0
        return out.buffer.getvalue()

    return score_bytes


@pytest.mark.parametrize("name", [b"\xff.png", "日.png".encode()])
def test_names_pass_byte_for_byte(score_bytes, image_files, tmp_path, name):
    path = os.fsencode(tmp_path) + b"/" + name
    os.link(image_files[0], path)
    table = tmp_path / "out.csv"
    out = score_bytes(path, "--csv", str(table))
    assert out.rstrip().endswith(b"\t" + path)
    assert "path" in table.read_text(encoding="utf-8")  # and can be read in spite of it


def test_names_cannot_forge_lines(save, score, image_files, tmp_path):
    file, _ = save()
    path = str(tmp_path / "a\n0.0001\treal\t\x1b[8mb.png")
    os.link(image_files[0], path)
    _, out, _ = score(file, path, "--csv", str(tmp_path / "out.csv"))
    (line,) = out.splitlines()
    assert line.endswith(r"/a\n0.0001\treal\t\x1b[8mb.png")
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as table:
        assert [row["path"] for row in csv.DictReader(table)] == [path]
    _, out, _ = score(file, path, "--json")
    assert json.loads(out)["path"] == path


def test_a_table_holds_no_formulas(
    tiny_clip, score, image_files, tmp_path, monkeypatch
):
    names = [f"{start}1+1" for start in "=+-@"]
    head = ConceptBottleneckClassifier(np.eye(64)[:4], names, max_iter=3)
    pipe = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), head)
    dump(pipe.fit(image_files, Y), tmp_path / "detector.skops")
    monkeypatch.chdir(tmp_path)
    for start in "=+@":
        os.link(image_files[0], f"{start}1.png")
    score("detector.skops", "=1.png", "+1.png", "@1.png", "--explain", "--csv", "o.csv")
    with open("o.csv", newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["path"] for row in rows] == ["./=1.png", "./+1.png", "./@1.png"]
    assert all(row["explanation"].startswith("'") for row in rows)


def test_scores_are_those_of_python(save, score, image_files, tiny_clip):
    file, _ = save()
    same = load(file, pretrained=tiny_clip)
    _, out, _ = score(file, "--json", *image_files)
    scores = [json.loads(line)["score"] for line in out.splitlines()]
    np.testing.assert_allclose(scores, same.decision_function(image_files), atol=1e-5)


# ---- progress


def test_progress_is_said_in_lines_where_there_is_no_terminal(
    save, score, image_files, monkeypatch
):
    monkeypatch.setattr("sklearn_clipsid.cli._say.SECONDS_BETWEEN_LINES", -1)
    file, _ = save()
    _, out, err = score(file, *image_files)
    assert err.startswith("clipsid: 2 of 9 images are done.\n")
    assert err.count(" images are done.\n") > 1
    assert "images are done" not in out


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with ImageProgress(9) as progress:
        with progress.aside():
            pass
        progress.advance(9)
        shown = sys.stderr.getvalue()
    assert "0/9" in shown
    assert progress.n_done == 9


def test_a_file_that_could_be_read_the_second_time_is_still_named(
    save, score, broken, monkeypatch
):
    # As if it had been completed meanwhile.
    monkeypatch.setattr(
        "sklearn_clipsid.cli._readable_images.read_image", lambda *a, **k: None
    )
    file, _ = save()
    status, out, _ = score(file, broken)
    assert status == 1
    assert "it could be read when it was tried again" in out
