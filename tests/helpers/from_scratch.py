"""The one-file references of examples/from_scratch, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "examples" / "from_scratch"


def reference(name: str) -> ModuleType:
    """The module `examples/from_scratch/NAME.py`, such as "sft" or "ppo"."""
    full_name = f"from_scratch_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(full_name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full_name] = module
        spec.loader.exec_module(module)
    return sys.modules[full_name]
