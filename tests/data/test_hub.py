import socket

import pytest

from keel.core.errors import DataError
from keel.data.formats import DataConfig, read, read_demonstrations
from keel.data.hub import looks_like_hub_id
from keel.data.records import Demonstration


def test_hub_ids_are_told_from_paths():
    assert all(map(looks_like_hub_id, ["imdb", "Anthropic/hh-rlhf", "trl-lib/ultrafeedback_binarized"]))
    for path in ["./imdb", "../data/set", "a/b/c", "data.jsonl", "folder/pairs.jsonl.gz", "/abs/path", "a\\b"]:
        assert not looks_like_hub_id(path)


def test_without_a_network_the_error_is_one_message_and_quick(monkeypatch):
    pytest.importorskip("datasets")

    before = pytest.importorskip("huggingface_hub.constants").HF_HUB_OFFLINE

    def unreachable(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        DataError, match=r"nobody/nothing is no local path, and the hub did not give it .*split train"
    ) as e:
        read(DataConfig(path="nobody/nothing"), "comparisons")
    assert "\n" not in str(e.value)
    assert before == pytest.importorskip("huggingface_hub.constants").HF_HUB_OFFLINE


def test_rows_of_a_hub_set_name_set_split_and_record(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, subset, *, data_dir, split):
        asked.append((name, subset, data_dir, split))
        return datasets.Dataset.from_list([{"prompt": "Hi", "response": "Hello"}, {"prompt": "Ho", "response": ""}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: [])
    config = DataConfig(path="owner/set", subset="clean", data_dir="part", split="validation")
    with pytest.raises(
        DataError, match=r"owner/set/validation, record 2: response is empty\. Fill it in or drop the rec"
    ):
        read_demonstrations(config)
    (record,) = read_demonstrations(config.model_copy(update={"on_error": "drop"}))
    assert record == Demonstration("Hi", "Hello")
    assert record.source == "owner/set/validation:1"
    assert asked == [("owner/set", "clean", "part", "validation")] * 2


def test_what_exists_locally_wins_over_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "set").mkdir(parents=True)
    (tmp_path / "owner" / "set" / "train.jsonl").write_text('{"prompt": "Hi", "response": "Hello"}\n')
    assert read_demonstrations(DataConfig(path="owner/set")) == [Demonstration("Hi", "Hello")]
