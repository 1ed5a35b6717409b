import pytest

from keel.data.chat import encode_comparison, encode_demonstration
from keel.data.doctor.tokens import token_texts, token_views
from keel.data.records import Comparison, Demonstration, Message

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(shared_models):
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(shared_models / "stories260k")
    loaded.chat_template = TEMPLATE
    return loaded


def test_the_ids_and_the_mask_are_those_of_training(tokenizer):
    demonstration = Demonstration("Once upon a time", " there was a bear.")
    (view,) = token_views(tokenizer, demonstration, 512, "left")
    prompt, response, mask = encode_demonstration(tokenizer, demonstration)
    assert [token.id for token in view.tokens] == [*prompt, *response]
    assert [token.part == "learned" for token in view.tokens] == [False] * len(prompt) + mask
    assert view.fate == "whole"
    assert (
        "".join(token.text for token in view.tokens if not token.special).strip("▁")
        == "Once upon a time there was a bear."
    )
    assert [token.text for token in view.tokens if token.special] == ["<s>", "</s>"]


def test_turns_between_answers_carry_no_loss(tokenizer):
    chat = (Message("user", "Who?"), Message("assistant", "A bear."), Message("user", "Where?"))
    (view,) = token_views(tokenizer, Demonstration(chat, "In the wood."), 512, "left")
    assert [part for part, _ in view.runs()] == ["prompt", "learned", "context", "learned"]
    assert "".join(token.text for token in view.runs()[2][1]).find("Where?") > 0


def test_what_is_cut_stands_behind_bos_and_is_what_training_cuts(tokenizer):
    demonstration = Demonstration("Once upon a time there was a very old bear", " who slept.")
    whole = len(token_views(tokenizer, demonstration, 512, "left")[0].tokens)
    (view,) = token_views(tokenizer, demonstration, whole - 5, "left")
    assert [token.part for token in view.tokens[:7]] == ["prompt", *["cut"] * 5, "prompt"]
    assert view.fate == "shortened: 5 prompt tokens cut on the left"
    (dropped,) = token_views(tokenizer, demonstration, whole - 5, "drop")
    assert dropped.fate.startswith("dropped: too long")
    assert dropped.count("cut") == 0


def test_a_comparison_is_two_sequences_cut_alike(tokenizer):
    pair = Comparison("Once upon a time there was", " a bear.", " a bear who never slept at all.", 1.0)
    prompt, a, b = encode_comparison(tokenizer, pair)
    one, other = token_views(tokenizer, pair, len(prompt) + len(b) - 2, "left")
    assert (one.title, other.title) == ("answer a", "answer b")
    assert one.count("cut") == other.count("cut") == 2
    assert (one.count("learned"), other.count("learned")) == (len(a), len(b))


def test_a_prompt_carries_no_loss(tokenizer):
    (view,) = token_views(tokenizer, "Once upon a time", 512, "left")
    assert {token.part for token in view.tokens} == {"prompt"}


def test_halves_of_a_character_show_as_their_bytes(tokenizer):
    ids = tokenizer.encode("a 熊", add_special_tokens=False)
    assert token_texts(tokenizer, ids)[-3:] == ["<0xE7>", "<0x86>", "<0x8A>"]
