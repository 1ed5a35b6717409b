"""Libraries that keel uses where they are installed, and does without elsewhere."""

from importlib.util import find_spec

from keel.core.errors import ConfigError

QUANT = "bitsandbytes"
QUANTISED = "keel_quantised"
"""Attribute of a trunk whose weights are held in 4 bits, and of the config of a model folded out of them."""


def require_bitsandbytes(setting: str) -> None:
    """ConfigError for a `setting` that needs bitsandbytes, where that is missing."""
    if find_spec(QUANT) is None:
        raise ConfigError(
            f"{setting} needs the library bitsandbytes, which is not installed. Install it with "
            "`pip install 'keel-rlhf[quant]'`, or leave the setting out."
        )
