import csv
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from sklearn_clipsid.datasets import load_image_folder


def touch(root, *names):
    """Make empty files: loading a folder does not open its images."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write_manifest(root, text, *images):
    touch(root, *images)
    path = root / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def rows(images, root):
    """(path relative to root, label, generator) of each image."""
    names = [os.path.relpath(path, root).replace(os.sep, "/") for path in images.data]
    return list(zip(names, images.target.tolist(), images.generator.tolist()))


def test_cnndetection_layout_has_classes_between_generator_and_label(tmp_path):
    touch(
        tmp_path,
        "progan/cat/0_real/1.png",
        "progan/cat/1_fake/2.png",
        "biggan/1_fake/3.png",
    )
    assert rows(load_image_folder(tmp_path), tmp_path) == [
        ("biggan/1_fake/3.png", 1, "biggan"),
        ("progan/cat/0_real/1.png", 0, "progan"),
        ("progan/cat/1_fake/2.png", 1, "progan"),
    ]


def test_classes_may_lie_beneath_the_label_folder(tmp_path):
    touch(tmp_path, "ldm/1_fake/cat/a/1.JPG", "laion/0_real/dog/2.webp")
    assert rows(load_image_folder(tmp_path), tmp_path) == [
        ("laion/0_real/dog/2.webp", 0, "laion"),
        ("ldm/1_fake/cat/a/1.JPG", 1, "ldm"),
    ]


def test_community_forensics_layout_gives_photographs_their_folder_s_name(tmp_path):
    touch(tmp_path, "SD1.4/real/1.png", "SD1.4/Fake/2.png")
    assert rows(load_image_folder(tmp_path), tmp_path) == [
        ("SD1.4/Fake/2.png", 1, "SD1.4"),
        ("SD1.4/real/1.png", 0, "SD1.4"),
    ]


@pytest.mark.parametrize(
    ("real", "fake"), [("real", "fake"), ("0_real", "1_fake"), ("nature", "ai")]
)
def test_two_label_folders_are_a_data_set_of_unknown_generators(tmp_path, real, fake):
    touch(tmp_path, f"{real}/1.png", f"{fake}/2.png")
    images = load_image_folder(tmp_path)
    assert sorted(zip(images.target.tolist(), images.generator.tolist())) == [
        (0, "real"),
        (1, "fake"),
    ]


def test_folders_beneath_label_folders_are_generators(tmp_path):
    touch(tmp_path, "real/1.png", "fake/SD1.4/2.png", "fake/FLUX/a/3.png")
    assert rows(load_image_folder(tmp_path), tmp_path) == [
        ("fake/FLUX/a/3.png", 1, "FLUX"),
        ("fake/SD1.4/2.png", 1, "SD1.4"),
        ("real/1.png", 0, "real"),
    ]


def test_names_beneath_both_labels_are_ambiguous_until_the_layout_is_given(tmp_path):
    touch(tmp_path, "real/cat/1.png", "fake/cat/2.png")
    with pytest.raises(ValueError, match=r"'cat' beneath both labels.*layout='label'"):
        load_image_folder(tmp_path)
    as_class = load_image_folder(tmp_path, layout="label")
    as_source = load_image_folder(tmp_path, layout="label/generator")
    assert as_class.generator.tolist() == ["fake", "real"]
    assert as_source.generator.tolist() == ["cat", "cat"]
    assert as_class.target.tolist() == as_source.target.tolist() == [1, 0]


def test_images_beside_generators_in_a_label_folder_are_ambiguous(tmp_path):
    touch(tmp_path, "real/1.png", "fake/2.png", "fake/SD1.4/3.png")
    with pytest.raises(ValueError, match="images beside folders in 'fake'"):
        load_image_folder(tmp_path)


def test_label_folders_beside_generators_are_ambiguous(tmp_path):
    touch(tmp_path, "real/1.png", "SD1.4/1_fake/2.png")
    with pytest.raises(ValueError, match=r"\['real'\] beside 'SD1.4'.*manifest"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("name", ["SD1.4/real/fake/1.png", "real/1_fake/1.png"])
def test_label_folders_of_both_kinds_on_one_path_are_an_error(tmp_path, name):
    touch(tmp_path, name)
    with pytest.raises(ValueError, match=os.path.dirname(name)):
        load_image_folder(tmp_path)


def test_parts_of_a_split_are_not_taken_for_generators(tmp_path):
    touch(tmp_path, "train/REAL/1.png", "test/FAKE/2.png")
    with pytest.raises(ValueError, match=r"\['test', 'train'\].*one part at a time"):
        load_image_folder(tmp_path)
    assert load_image_folder(tmp_path / "test").target.tolist() == [1]


def test_images_without_a_label_folder_are_counted_and_named(tmp_path):
    touch(tmp_path, "SD1.4/1.png", "SD1.4/0_real/2.png")
    with pytest.raises(ValueError, match=r"1 of 2 images .*'SD1.4/1.png'.*1_fake"):
        load_image_folder(tmp_path)


def test_a_folder_without_images_is_an_error(tmp_path):
    touch(tmp_path, "real/readme.txt")
    with pytest.raises(ValueError, match="Got no images"):
        load_image_folder(tmp_path)


def test_a_missing_root_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_image_folder(tmp_path / "nowhere")


def test_side_files_are_ignored(tmp_path):
    names = ["Thumbs.db", ".DS_Store", "._1.png", "LICENSE", "info.json", "a.csv"]
    touch(tmp_path, "real/1.png", *(f"real/{name}" for name in names))
    touch(tmp_path, ".git/fake/2.png")
    assert rows(load_image_folder(tmp_path), tmp_path) == [("real/1.png", 0, "real")]


def test_files_of_unknown_kind_are_counted_in_one_warning(tmp_path):
    touch(tmp_path, "real/1.png", "real/2.heic", "fake/3.raw", "fake/noextension")
    with pytest.warns(UserWarning, match=r"Got 3 files.*'fake/3.raw'") as record:
        images = load_image_folder(tmp_path)
    assert len(record) == 1
    assert record[0].filename == __file__
    assert len(images.data) == 1


def test_linked_folders_are_read(tmp_path):
    touch(tmp_path, "elsewhere/1.png")
    (tmp_path / "root").mkdir()
    link = tmp_path / "root" / "fake"
    link.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert load_image_folder(tmp_path / "root").target.tolist() == [1]


def test_a_link_in_a_circle_is_an_error(tmp_path):
    touch(tmp_path, "fake/1.png")
    (tmp_path / "fake" / "again").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="a link to a folder that is read already"):
        load_image_folder(tmp_path)


def test_an_unknown_layout_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"layout='imagenet'.*label/generator"):
        load_image_folder(tmp_path, layout="imagenet")


def test_a_folder_is_no_manifest_and_a_manifest_no_folder(tmp_path):
    manifest = write_manifest(tmp_path, "path,label,generator\n1.png,0,a\n", "1.png")
    with pytest.raises(ValueError, match="layout='csv'"):
        load_image_folder(tmp_path, layout="csv")
    with pytest.raises(ValueError, match="layout='label'"):
        load_image_folder(manifest, layout="label")
    with pytest.raises(ValueError, match=r"1\.png"):
        load_image_folder(tmp_path / "1.png")


def test_folder_bunch_has_the_documented_types(tmp_path):
    touch(tmp_path, "real/1.png", "fake/2.png")
    images = load_image_folder(str(tmp_path))
    assert images.data.dtype == object and isinstance(images.data[0], str)
    assert images.target.dtype.kind == "i"
    assert images.generator.dtype.kind == images.pair_id.dtype.kind == "U"
    assert images.pair_id.tolist() == ["", ""]
    assert images.target_names == ["real", "synthetic"]
    assert "2 images (1 real, 1 synthetic)" in images.DESCR


def test_manifest_keeps_its_order_and_pairs(tmp_path):
    manifest = write_manifest(
        tmp_path,
        "path,label,generator,pair_id,width\n"
        "b/2.png,1,SD1.4,p1,512\n"
        "1.png,0,,p1,512\n"
        "c.unknown,synthetic,FLUX,,512\n",
        "b/2.png",
        "1.png",
        "c.unknown",
    )
    images = load_image_folder(manifest)
    assert rows(images, tmp_path) == [
        ("b/2.png", 1, "SD1.4"),
        ("1.png", 0, "real"),
        ("c.unknown", 1, "FLUX"),
    ]
    assert images.pair_id.tolist() == ["p1", "p1", ""]


def test_grip_manifest_states_real_or_the_generator(tmp_path):
    manifest = write_manifest(
        tmp_path, "filename,typ\n1.png,real\n2.png,glide\n", "1.png", "2.png"
    )
    assert rows(load_image_folder(manifest), tmp_path) == [
        ("1.png", 0, "real"),
        ("2.png", 1, "glide"),
    ]


def test_openfake_manifest_is_read(tmp_path):
    manifest = write_manifest(
        tmp_path,
        "file_name,label,model\n1.png,real,real\n2.png,fake,flux.1-dev\n",
        "1.png",
        "2.png",
    )
    assert rows(load_image_folder(manifest), tmp_path) == [
        ("1.png", 0, "real"),
        ("2.png", 1, "flux.1-dev"),
    ]


@pytest.mark.parametrize(
    ("word", "label"),
    [("Real", 0), ("PHOTO", 0), ("0.0", 0), ("AI-generated", 1), ("1", 1), ("fake", 1)],
)
def test_labels_may_be_words_in_any_case(tmp_path, word, label):
    manifest = write_manifest(
        tmp_path, f"path,label,generator\n1.png, {word} ,x\n", "1.png"
    )
    assert load_image_folder(manifest).target.tolist() == [label]


def test_an_unknown_label_names_row_and_value(tmp_path):
    manifest = write_manifest(
        tmp_path, "path,label,generator\n1.png,1,x\n2.png,maybe,x\n", "1.png", "2.png"
    )
    with pytest.raises(ValueError, match="label 'maybe' in line 3"):
        load_image_folder(manifest)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    manifest = write_manifest(
        tmp_path, "\ufeffpath,label,generator\n1.png,1,x\n", "1.png"
    )
    assert len(load_image_folder(manifest).data) == 1


def test_absolute_paths_in_a_manifest_are_kept(tmp_path):
    image = touch(tmp_path, "elsewhere/1.png") / "elsewhere" / "1.png"
    (tmp_path / "lists").mkdir()
    manifest = write_manifest(
        tmp_path / "lists", f"path,label,generator\n{image},1,x\n"
    )
    assert load_image_folder(manifest).data.tolist() == [str(image)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("path,label,generator\n", "no rows"),
        ("path,label\n1.png,1\n", r"add \['generator'\]"),
        ("path;label;generator\n1.png;1;x\n", "separated by commas"),
        ("path,label,label,generator\n1.png,1,1,x\n", r"\['label'\] more than once"),
        ("path,label,generator,filename,typ\n1.png,1,x,1.png,x\n", "more than one"),
        ("path,label,generator\n1.png,1\n", "number of cells.*line 2"),
        ("path,label,generator\n1.png,1,x,y\n", "number of cells.*line 2"),
        ("path,label,generator\n,1,x\n", "empty 'path' in line 2"),
        ("path,label,generator\n1.png,1,\n", "empty 'generator'.*line 2"),
        ("path,label,generator\n1.png,,x\n", "label '' in line 2"),
        ('path,label,generator\n"1.png,1,x\n', "after line 1 .unexpected end"),
    ],
)
def test_a_faulty_manifest_says_what_is_wrong(tmp_path, text, message):
    manifest = write_manifest(tmp_path, text, "1.png")
    with pytest.raises(ValueError, match=message):
        load_image_folder(manifest)


def test_a_manifest_in_another_encoding_is_an_error(tmp_path):
    manifest = write_manifest(tmp_path, "")
    manifest.write_bytes("path,label,generator\né.png,1,x\n".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        load_image_folder(manifest)


def test_repeated_paths_are_an_error_that_names_both_lines(tmp_path):
    manifest = write_manifest(
        tmp_path,
        "path,label,generator\n1.png,1,x\n2.png,0,y\nsub/../1.png,0,y\n",
        "1.png",
        "2.png",
    )
    with pytest.raises(ValueError, match=r"1 repeated paths.*lines 2 and 4"):
        load_image_folder(manifest)


def test_missing_files_are_counted_and_the_first_are_named(tmp_path):
    lines = "".join(f"{i}.png,1,x\n" for i in range(9))
    manifest = write_manifest(tmp_path, "path,label,generator\n" + lines, "0.png")
    with pytest.raises(FileNotFoundError, match=r"8 of 9 .*1\.png.* and 3 more"):
        load_image_folder(manifest)


def test_a_manifest_is_read_without_pandas(tmp_path):
    manifest = write_manifest(tmp_path, "path,label,generator\n1.png,1,x\n", "1.png")
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from sklearn_clipsid.datasets import load_image_folder\n"
        "print(load_image_folder(sys.argv[1]).target)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(manifest)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[1]"


def test_the_shared_images_load_from_their_manifest(shared_images):
    images = load_image_folder(shared_images / "manifest.csv")
    with open(shared_images / "manifest.csv", newline="") as stream:
        expected = list(csv.DictReader(stream))
    assert len(images.data) == 712
    assert Counter(images.generator.tolist()) == Counter(
        row["generator"] for row in expected
    )
    np.testing.assert_array_equal(images.target, [int(r["label"]) for r in expected])
    np.testing.assert_array_equal(images.pair_id, [r["pair_id"] for r in expected])


def test_a_manifest_in_a_folder_without_labels_is_pointed_out(tmp_path):
    (tmp_path / "GAN").mkdir()
    (tmp_path / "GAN" / "a.png").touch()
    (tmp_path / "list.csv").write_text("path,label,generator\n")
    with pytest.raises(ValueError, match=r"holds 'list\.csv': pass it"):
        load_image_folder(tmp_path)
