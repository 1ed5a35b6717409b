"""Optional libraries: loaded without a word, and one clear error where they are missing."""

import subprocess
import sys

import pytest

from keel.core.errors import ConfigError
from keel.models import extras


def test_a_missing_library_is_one_error_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"model\.quantise: 4bit needs .*pip install 'keel-rlhf\[quant\]'"):
        extras.require_bitsandbytes("model.quantise: 4bit")


def test_the_library_is_loaded_without_a_word():
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    code = "from keel.models.extras import require_bitsandbytes; require_bitsandbytes('a test')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("", "")
