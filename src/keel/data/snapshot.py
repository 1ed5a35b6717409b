"""The identity of a set of records: equal content, equal id, wherever it was read from."""

import hashlib
import json
from collections.abc import Iterable

from keel.data.formats import to_values
from keel.data.records import Record


def snapshot_id(records: Iterable[Record]) -> str:
    """SHA-256 (64 hex digits) over the records in their order, as `write_jsonl` writes them; where each was read from
    does not count.
    """
    digest = hashlib.sha256()
    for record in records:
        line = json.dumps(to_values(record), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
