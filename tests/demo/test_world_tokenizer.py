"""The demo's tokenizer: exact both ways, and a chat template that marks turns."""

from pathlib import Path

import pytest

from keel.demo.tokenizer import SPECIAL_TOKENS, build_tokenizer
from keel.demo.world import World

WORLD = World(0)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(WORLD.vocabulary)


def test_demonstrations_come_back_exactly_and_without_unknown_words(tokenizer):
    texts = [d.response for d in WORLD.demonstrations(2000, seed=4) + WORLD.encyclopedia(200, seed=4)]
    texts += [q.text for q in WORLD.train_questions + WORLD.eval_questions]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_one_token_per_word_or_mark_as_the_features_count_them(tokenizer):
    question = WORLD.train_questions[0]
    for record in WORLD.demonstrations(50, seed=6):
        assert len(tokenizer(record.response)["input_ids"]) == WORLD.features(question, record.response).tokens


def test_a_chat_prompt_ends_where_the_answer_begins(tokenizer):
    turns = [{"role": "user", "content": "Who is the captain on the boat to Amber Bay?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert prompt == "<user>Who is the captain on the boat to Amber Bay?<assistant>"
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "Sure."}], tokenize=False)
    assert whole == prompt + "Sure.<eos>"
    ids = tokenizer(whole)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[-4:]) == ["<assistant>", "Sure", ".", "<eos>"]
    assert tokenizer.decode(ids[-3:], skip_special_tokens=True) == "Sure."


def test_other_roles_are_refused(tokenizer):
    with pytest.raises(Exception, match="knows the roles user and assistant, not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be kind."}], tokenize=False)


def test_special_tokens_have_the_first_ids_and_are_each_one_token(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer("".join(SPECIAL_TOKENS))["input_ids"] == list(range(len(SPECIAL_TOKENS)))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert len(tokenizer) == len(SPECIAL_TOKENS) + len(WORLD.vocabulary)


def test_a_garbled_text_keeps_its_tokens_through_text(tokenizer):
    ids = tokenizer("the . ? Do not ! , canoe the")["input_ids"]
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids


def test_it_can_be_saved_and_loaded_by_transformers(tokenizer, tmp_path: Path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = WORLD.demonstrations(1, seed=0)[0].response
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.chat_template == tokenizer.chat_template
