"""Rows of a data set on the Hugging Face hub, through `datasets`, which is imported only when asked for."""

import importlib
import os
import re
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from keel.core.errors import DataError
from keel.data.rows import READERS, Place, Row, Rows

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def looks_like_hub_id(path: str) -> bool:
    """Whether `path` could name a set on the hub: "name" or "owner/name", without a data file's suffix."""
    return bool(_HUB_ID.fullmatch(path)) and not path.lower().removesuffix(".gz").endswith(tuple(READERS))


def read_hub(name: str, subset: str | None, data_dir: str | None, split: str) -> Rows:
    """Rows of one split of a hub data set. Without a network only sets that were downloaded before can be read."""
    try:
        datasets = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise DataError(
            f"{name} is no local path, and reading it from the hub needs the datasets package. "
            f'Install it with pip install "keel-rlhf[train]", or set path to a local file.'
        ) from error
    try:
        with _no_retries_without_network():
            rows = datasets.load_dataset(name, subset, data_dir=data_dir, split=split)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{name} is no local path, and the hub did not give it (subset {subset}, data_dir {data_dir}, "
            f"split {split}): {first}. Check these names and the network, or set path to a local file or folder."
        ) from error
    for number, values in enumerate(rows, start=1):
        yield Row(Place(f"{name}/{split}", number, "record"), values)


@contextmanager
def _no_retries_without_network() -> Generator[None, None, None]:
    """Use only the cache where the hub's name does not resolve: half a minute of retries would end the same."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    config: Any = importlib.import_module("datasets.config")
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    if not _hub_resolves(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _hub_resolves(endpoint: str) -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # the proxy resolves names
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, 443)
    except OSError:
        return False
    return True
