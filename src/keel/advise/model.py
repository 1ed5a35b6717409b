"""How large a model is, without loading it: from its files, else from its name."""

import json
import re
from math import prod
from pathlib import Path

from keel.advise.facts import Model
from keel.core.errors import ConfigError

SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)\s*([KkMmBbTt])(?![A-Za-z0-9])")
IN_NAME = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([mMbB])(?![a-zA-Z])")
FACTOR = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
KNOWN = {"gpt2": 124e6, "gpt2-medium": 355e6, "gpt2-large": 774e6, "gpt2-xl": 1.56e9, "distilgpt2": 82e6}
CHAT = re.compile(r"(instruct|chat|[-_]it\b|[-_]sft\b|zephyr|tulu|assistant)", re.IGNORECASE)


def describe(path: str | None, size: str | None) -> Model:
    """The model that a recipe would name `path`, of `size` (such as 7B) where its files and name do not tell."""
    name = path or ""
    folder = Path(name)
    local = bool(name) and folder.is_dir()
    if size is not None:
        return Model(path=name, parameters=read_size(size), chat=is_chat(name, folder, local), source="as given")
    if not name:
        raise ConfigError("keel advise needs to know the model: --model FOLDER or hub name, or at least --size 7B.")
    if local and (counted := parameters_in(folder)):
        return Model(path=name, parameters=counted, chat=is_chat(name, folder, local), source="counted in its files")
    last = name.rstrip("/").rpartition("/")[2]
    found = IN_NAME.findall(last)
    if last.lower() in KNOWN or found:
        parameters = KNOWN.get(last.lower()) or product(*found[-1])
        return Model(path=name, parameters=parameters, chat=is_chat(name, folder, local), source="by its name")
    if not local and (folder.exists() or name.count("/") != 1):
        raise ConfigError(
            f"--model {name}: no folder of a model, and no name on the hub. Check the path, or give --size."
        )
    raise ConfigError(
        f"--model {name}: neither files nor name say how many parameters it has. Give --size, such as 7B."
    )


def product(times: str, number: str, unit: str) -> float:
    return float(times or 1) * float(number) * FACTOR[unit.lower()]


def read_size(text: str) -> float:
    """7B, 1.5b, 260K, 8x7B or a plain number."""
    match = SIZE.fullmatch(text.strip())
    if match:
        value = product(*match.groups())
    else:
        value = float(text) if re.fullmatch(r"\d+(\.\d*)?([eE]\d+)?", text.strip()) else 0.0
    if not value > 0:
        raise ConfigError(f"--size {text}: expected a number of parameters such as 7B, 0.5B or 260K.")
    return value


def parameters_in(folder: Path) -> int:
    """Numbers in the safetensors files of a folder, by their headers; 0 where there are none that can be read."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length < 100_000_000:
                return 0
            try:
                header = json.loads(stream.read(length))
            except ValueError:
                return 0
        total += sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total


def is_chat(name: str, folder: Path, local: bool) -> bool:
    """Whether it has learned to follow instructions, going by its template or its name."""
    if local and (folder / "chat_template.jinja").is_file():
        return True
    return bool(CHAT.search(name.rpartition("/")[2]))
