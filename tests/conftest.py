"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models; before torch is loaded anywhere

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the shared {name} folder beside the checkout ({folder.name} is absent)")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets, each a folder of gzip-compressed JSON lines."""
    return shared_folder("data")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The tiny real pretrained models."""
    return shared_folder("models")
