import numpy as np
import pytest

from sklearn_clipsid import AbstainingClassifier, CLIPEmbedder, EmbeddingStore
from sklearn_clipsid.cli import main
from sklearn_clipsid.datasets import load_image_folder, make_paired_images
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
from sklearn_clipsid.persistence import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Manifest of 36 labelled images, which stands for a folder."""
    folder = tmp_path_factory.mktemp("labelled")
    make_paired_images(folder, n_pairs=9, random_state=0)
    return folder / "manifest.csv"


@pytest.fixture
def with_broken(folder, tmp_path):
    """Manifest of the same images, the first of which cannot be read."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    header, first, *others = folder.read_text().splitlines()
    rows = [f"{folder.parent}/{row}" for row in others]
    first = f"{broken},{first.partition(',')[2]}"
    (tmp_path / "manifest.csv").write_text("\n".join([header, first, *rows]) + "\n")
    return tmp_path / "manifest.csv", broken


def test_fit_saves_a_detector_of_the_folder(folder, tiny_clip, tmp_path, capsys):
    file = str(tmp_path / "detector.skops")
    arguments = [str(folder), "-o", file, "--n-components", "2", "--batch-size", "4"]
    assert main(["fit", *arguments, "--pretrained", tiny_clip]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "9 photographs and 27 synthetic images; 0 could not be read." in err
    detector = load(file, pretrained=tiny_clip)
    data = load_image_folder(folder)
    expected = CLIPEmbedder(pretrained=tiny_clip).fit_transform(data.data)
    np.testing.assert_allclose(detector[0].transform(data.data), expected, atol=1e-5)
    assert detector[-1].n_components_ == 2
    assert detector[0].batch_size == 4
    assert detector[0].on_error == "raise"
    assert detector.predict(data.data).shape == (36,)


def test_fit_leaves_out_what_cannot_be_read_and_says_so(
    with_broken, tiny_clip, tmp_path, capsys
):
    manifest, broken = with_broken
    file = str(tmp_path / "detector.skops")
    status = main(["fit", str(manifest), "-o", file, "--pretrained", tiny_clip])
    err = capsys.readouterr().err
    assert status == 1
    assert f"could not read {str(broken)!r}: " in err
    assert "1 could not be read." in err
    assert load(file, pretrained=tiny_clip)[-1].components_.shape == (8, 64)


def test_limits_are_chosen_on_held_out_generators(folder, tiny_clip, tmp_path):
    file = str(tmp_path / "detector.skops")
    arguments = ["-o", file, "--max-fpr", "0.3", "--pretrained", tiny_clip]
    assert main(["fit", str(folder), *arguments]) == 0
    head = load(file, pretrained=tiny_clip)[-1]
    assert isinstance(head, AbstainingClassifier)
    assert head.max_fpr == 0.3
    data = load_image_folder(folder)
    groups = np.column_stack([data.generator, data.pair_id])
    splits = LeaveOneGeneratorOut(random_state=0).split(data.data, data.target, groups)
    held_out = np.unique(np.concatenate([test for _, test in splits]))
    assert head.n_synthetic_ == data.target[held_out].sum()
    assert head.n_real_ == (data.target[held_out] == 0).sum()


@pytest.mark.parametrize(
    ("output", "message"),
    [("gone/x.skops", "make the folder first"), ("", "which is a folder")],
)
def test_an_output_that_cannot_be_written_is_found_before_the_work(
    folder, tiny_clip, tmp_path, encoded, capsys, output, message
):
    file = str(tmp_path / output)
    assert main(["fit", str(folder), "-o", file, "--pretrained", tiny_clip]) == 2
    assert encoded == []
    assert message in capsys.readouterr().err


def test_the_sample_is_refused_behind_another_encoder(tiny_clip, tmp_path, capsys):
    file = str(tmp_path / "detector.skops")
    assert main(["fit", "--sample", "-o", file, "--pretrained", tiny_clip]) == 2
    err = capsys.readouterr().err
    assert "Got another encoder than that of the packaged embeddings" in err
    assert "config, image_size, weights" in err
    assert main(["fit", "--sample", "-o", file]) == 2
    assert "fetch it with tools/fetch_demo_encoder.py" in capsys.readouterr().err


@pytest.mark.real_clip
def test_the_sample_makes_a_detector_of_images(
    demo_encoder, tmp_path, image_files, capsys
):
    file = str(tmp_path / "detector.skops")
    place = ["--pretrained", str(demo_encoder)]
    assert main(["fit", "--sample", "-o", file, "--max-fpr", "0.05", *place]) == 0
    assert main(["score", file, image_files[0], *place]) == 0
    probability, verdict, path = capsys.readouterr().out.rstrip("\n").split("\t")
    assert 0 < float(probability) < 1
    assert verdict in {"real", "undecided", "synthetic"}
    assert path == image_files[0]


@pytest.mark.parametrize("arguments", [[], ["a folder", "--sample"]])
def test_either_a_folder_or_the_sample_is_fitted_to(arguments):
    with pytest.raises(SystemExit) as end:
        main(["fit", *arguments, "-o", "x.skops"])
    assert end.value.code == 2


def test_embed_writes_rows_and_lists_what_it_cannot_read(
    image_files, tiny_clip, tmp_path, capsys
):
    gone = str(tmp_path / "gone.png")
    store = str(tmp_path / "store")
    arguments = ["embed", *image_files, gone, "-o", store, "--shard-size", "4"]
    assert main([*arguments, "--pretrained", tiny_clip]) == 1
    out, err = capsys.readouterr()
    assert out == f"{store}: 10 rows of 64 numbers, 1 of them NaN\n"
    assert f"could not read {gone!r}: No such file or directory" in err
    rows = EmbeddingStore(store).take(range(9))
    expected = CLIPEmbedder(pretrained=tiny_clip).fit_transform(image_files)
    np.testing.assert_allclose(rows, expected, atol=2e-3, rtol=2e-3)  # half precision


def test_a_wrong_encoder_does_not_claim_the_folder_of_embed(
    image_files, tiny_clip, tmp_path, capsys
):
    store = str(tmp_path / "store")
    wrong = str(tmp_path / "gone.safetensors")
    assert main(["embed", *image_files, "-o", store, "--pretrained", wrong]) == 2
    place = ["-o", store, "--pretrained", tiny_clip]
    assert main(["embed", *image_files[:3], *place]) == 0
    assert main(["embed", *image_files, *place]) == 2  # begun with other images
    assert "--overwrite" in capsys.readouterr().err
    assert main(["embed", *image_files, "--overwrite", *place]) == 0
    assert capsys.readouterr().out.endswith(": 9 rows of 64 numbers, 0 of them NaN\n")


def test_an_interrupted_embed_says_where_it_goes_on(
    image_files, tiny_clip, tmp_path, capsys, monkeypatch
):
    from sklearn_clipsid._clip._tower import ImageTower

    encode = ImageTower.encode

    def stopped(tower, pixels, features):
        if len(pixels) == 1:  # the last of nine, four in each shard
            raise KeyboardInterrupt
        return encode(tower, pixels, features)

    monkeypatch.setattr(ImageTower, "encode", stopped)
    store = str(tmp_path / "store")
    arguments = ["embed", *image_files, "-o", store, "--shard-size", "4"]
    assert main([*arguments, "--pretrained", tiny_clip]) == 130
    err = capsys.readouterr().err
    assert "stopped. 2 of 3 shards are finished" in err
