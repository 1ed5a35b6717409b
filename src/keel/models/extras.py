"""Libraries that keel uses where they are installed, and does without elsewhere."""

import importlib
import logging
from importlib.util import find_spec

from keel.core.errors import ConfigError

QUANT = "bitsandbytes"


def require_bitsandbytes(setting: str) -> None:
    """Import bitsandbytes for `setting`; ConfigError says how to install it when it is missing."""
    if find_spec(QUANT) is None:
        raise ConfigError(
            f"{setting} needs the library bitsandbytes, which is not installed. Install it with "
            "`pip install 'keel-rlhf[quant]'`, or leave the setting out."
        )
    logger = logging.getLogger(QUANT)
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of an optional kernel for inference, which keel would not use
    try:
        importlib.import_module(QUANT)
    finally:
        logger.setLevel(level)
