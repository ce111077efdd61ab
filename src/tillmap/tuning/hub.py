"""Sends a trained model to a Hugging Face hub."""

import os
from pathlib import Path

from tillmap.core.errors import ModelError


def require_token(hub_id: str) -> str:
    """The hub's token, from HF_TOKEN alone. Raises ModelError where there is none: ask before training."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise ModelError(
            f"train_llama.hub_id is {hub_id}, but HF_TOKEN is not set; set it to a token that may write there, "
            "or train_llama.hub_id to null"
        )
    return token


def push_model(folder: Path, hub_id: str) -> str:
    """Upload a folder as a private repository of the hub (made if it isn't there); returns the commit's address.

    The hub is huggingface.co, or what HF_ENDPOINT names. Raises ModelError where it refuses; the folder stays.
    """
    token = require_token(hub_id)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi(token=token)
    try:
        api.create_repo(hub_id, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=hub_id, folder_path=folder, commit_message="Model trained by tillmap")
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(
            f"{hub_id}: the hub did not take the model ({reason}); check the name, that HF_TOKEN may write, and the "
            "network, then run again: the training itself is kept"
        ) from error
    return str(commit.commit_url)
