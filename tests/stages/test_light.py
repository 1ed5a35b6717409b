"""What stands between raters and training starts without torch: a laptop or the studio's server needs none."""

import subprocess
import sys

LIGHT = ("sample", "deliver", "ai_judge", "collect", "promote", "lineage", "studio_snapshots", "endpoint", "place")


def test_sampling_judging_collecting_and_promoting_start_without_torch():
    code = "import sys\n" + "".join(f"import keel.stages.{name}\n" for name in LIGHT)
    code += "sys.exit(', '.join({'torch', 'transformers', 'fastapi'} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
