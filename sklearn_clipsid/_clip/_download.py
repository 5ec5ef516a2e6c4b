"""Fetch a model's files from where its tag or hub name says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONFIG_NAME = "open_clip_config.json"
# In the order in which open_clip itself prefers them.
WEIGHTS_NAMES = (
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.safetensors",
)


def weights_in_folder(folder: Path) -> str:
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return str(folder / name)
    raise ValueError(
        f"Got the folder {str(folder)!r} but expected one of "
        f"{', '.join(WEIGHTS_NAMES)} in it; copy the model's weights there."
    )


def download_tag(
    config: dict[str, Any], weights_dir: str | None, local_files_only: bool
) -> str:
    from open_clip.pretrained import download_pretrained_from_url

    if config.get("hf_hub"):
        repo, _, filename = config["hf_hub"].rpartition("/")
        return download_weights(repo, filename, weights_dir, local_files_only)
    url = config["url"]
    if local_files_only:
        raise ValueError(_unreachable(url, Path(url).name, "local_files_only=True"))
    try:
        return download_pretrained_from_url(url, cache_dir=weights_dir)
    except Exception as error:
        raise ValueError(_unreachable(url, Path(url).name, error)) from error


def download_weights(
    repo: str, filename: str, weights_dir: str | None, local_files_only: bool
) -> str:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    names = [filename] if filename else list(WEIGHTS_NAMES)
    if filename and not filename.endswith(".safetensors"):
        names.insert(0, str(Path(filename).with_suffix(".safetensors")))
    first_error = None
    for name in names:
        try:
            return hub_file(repo, name, weights_dir, local_files_only)
        except ValueError as error:
            # The first name is the one to copy by hand, so its error is the one raised.
            first_error = first_error or error
            if not isinstance(error.__cause__, EntryNotFoundError):
                break
            # Without the hub, the cache may still hold the weights by another name.
            local_files_only |= isinstance(error.__cause__, LocalEntryNotFoundError)
    assert first_error is not None
    raise first_error


def hub_file(
    repo: str, filename: str, weights_dir: str | None, local_files_only: bool
) -> str:
    import huggingface_hub

    try:
        return huggingface_hub.hf_hub_download(
            repo, filename, cache_dir=weights_dir, local_files_only=local_files_only
        )
    # The hub client raises from four libraries; all mean that the file is not here.
    except Exception as error:
        raise ValueError(_unreachable(repo, filename, error)) from error


def _unreachable(repo: str, filename: str, error: Exception | str) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    return (
        f"Could not get the file {filename!r} of {repo!r} ({reason}). On a "
        "machine that reaches it, download that file, copy it here, and pass "
        f"pretrained='PATH/TO/{filename}'; or copy the repository with its "
        f"{CONFIG_NAME} and pass pretrained='local-dir:FOLDER'."
    )
