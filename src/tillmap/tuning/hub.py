"""Uploads a trained model to a Hugging Face hub."""

from pathlib import Path

from tillmap.core.errors import ModelError, first_line
from tillmap.core.services import read_key


def require_token(hub_id: str) -> str:
    """The hub's token, from the variable HF_TOKEN. Raises ParamsError if there is none; call this before training."""
    return read_key("HF_TOKEN", f"with write access to {hub_id}, or set train_llama.hub_id to null")


def push_model(folder: Path, hub_id: str) -> str:
    """Upload a folder to a private repository, which is created if it does not exist. Returns the commit's URL.

    The hub is huggingface.co, or the one in HF_ENDPOINT. Raises ModelError if the upload fails; the folder is kept.
    """
    token = require_token(hub_id)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi(token=token)
    try:
        api.create_repo(hub_id, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=hub_id, folder_path=folder, commit_message="Model trained by tillmap")
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise ModelError(
            f"{hub_id}: the upload to the hub failed ({first_line(error)}); check the name, that HF_TOKEN has write "
            "access, and the network, then run again; the trained model is kept"
        ) from error
    return str(commit.commit_url)
