import json
import random

import pytest
from helpers.laws import quick
from hypothesis import given
from hypothesis import strategies as st

from keel.core.errors import DataError
from keel.data.chat import (
    decode_response,
    encode_comparison,
    encode_demonstration,
    encode_prompt,
    encode_response,
)
from keel.data.formats import DataConfig, read_demonstrations
from keel.data.records import Comparison, Demonstration, Message

ZEPHYR = (
    "{{ bos_token if bos_token else '' }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "<|im_start|>user\nHow do I reset my password?<|im_end|>\n<|im_start|>assistant\nOpen settings and press reset.",
    "Once upon a time, there was a little girl named Lily. She liked to play in the park.\n\nThe end.",
    "[INST] What is it? [/INST] It is what it is.\n\nHuman: Hi there\n\nAssistant: Hello, how may I help you?",
] * 3


def byte_level():
    """GPT-2's and Qwen's kind: bytes, no BOS written, <|im_end|> ends a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", chat_template=CHATML)


def sentence_piece():
    """Llama's and Mistral's kind: a space before the first word, BOS written by the tokenizer and by its template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False, max_token_length=8
    )
    inner.train_from_iterator(CORPUS, trainer)
    trained = json.loads(inner.to_str())
    for byte in range(256):
        trained["model"]["vocab"][f"<0x{byte:02X}>"] = len(trained["model"]["vocab"])
    inner = Tokenizer.from_str(json.dumps(trained))
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=INST
    )


@pytest.fixture(scope="session")
def tokenizers(shared_models):
    transformers = pytest.importorskip("transformers")
    stories = transformers.AutoTokenizer.from_pretrained(shared_models / "stories260k")
    stories.chat_template = ZEPHYR
    return {"byte_level": byte_level(), "sentence_piece": sentence_piece(), "stories260k": stories}


@pytest.fixture(params=["byte_level", "sentence_piece", "stories260k"])
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def chat(*turns: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if index % 2 else "user", turn) for index, turn in enumerate(turns))


# Text that a tokenizer may change (its own word mark, its special tokens, lone carriage returns) is left out.
texts = st.text(st.characters(codec="utf-8", exclude_characters="▁\r\0<"), min_size=1, max_size=30).filter(str.strip)
# Mistral's kind loses a space before the first word of a text, so nothing opens with one.
openings = (texts | st.just("Once")).filter(lambda text: text[0] != " ")
words = st.lists(
    st.sampled_from(["Hi", " there", "\n\n", " ", "Once", " upon", "!", "\n", "é", " 中", "  "]), min_size=1
).map("".join)


def test_prompt_and_response_decode_to_the_whole_text_and_the_response_to_itself(tokenizer):
    @quick
    @given(openings, texts | words)
    def law(prompt, response):
        prompt_ids, response_ids = encode_prompt(tokenizer, prompt), encode_response(tokenizer, prompt, response)
        assert decode_response(tokenizer, response_ids) == response
        assert tokenizer.decode(prompt_ids + response_ids, skip_special_tokens=True) == prompt + response

    law()


def test_encoding_what_was_decoded_gives_the_same_ids(tokenizer):
    @quick
    @given(texts | words, texts | words)
    def law(prompt, response):
        ids = encode_response(tokenizer, prompt, response)
        assert encode_response(tokenizer, prompt, decode_response(tokenizer, ids)) == ids

    law()


def test_the_same_laws_hold_without_a_prompt(tokenizer):
    @quick
    @given(openings)
    def law(text):
        ids = encode_response(tokenizer, "", text)
        assert decode_response(tokenizer, ids, opening=True) == text
        assert [*encode_prompt(tokenizer, ""), *ids[:-1]] == tokenizer.encode(text)

    law()


def test_bos_stands_once_at_the_start_and_eos_once_at_the_end(tokenizer):
    @quick
    @given(words, words)
    def law(prompt, response):
        for asked in (prompt, chat(prompt), chat(prompt, response, prompt), ""):
            prompt_ids, response_ids = encode_prompt(tokenizer, asked), encode_response(tokenizer, asked, response)
            if tokenizer.bos_token_id is not None:
                assert prompt_ids[0] == tokenizer.bos_token_id
                assert (prompt_ids + response_ids).count(tokenizer.bos_token_id) == 1
            assert response_ids.count(tokenizer.eos_token_id) == 1
            assert response_ids[-1] == tokenizer.eos_token_id

    law()


def test_bos_or_eos_already_in_the_text_is_not_doubled(tokenizers):
    tokenizer = tokenizers["stories260k"]
    assert encode_prompt(tokenizer, "<s>Once upon") == [1, *tokenizer.encode("Once upon", add_special_tokens=False)]
    assert encode_response(tokenizer, "Once", " upon a time.</s>") == encode_response(
        tokenizer, "Once", " upon a time."
    )


def test_prompt_and_response_are_the_tokens_of_the_whole_text_where_a_token_ends_between_them(tokenizer):
    prompt, response = "Once upon a time,", " there was a girl."
    together = encode_prompt(tokenizer, prompt) + encode_response(tokenizer, prompt, response)
    assert together[:-1] == tokenizer.encode(prompt + response)


def test_a_token_across_the_border_is_split_between_prompt_and_response(tokenizers):
    tokenizer = tokenizers["stories260k"]
    whole = tokenizer.encode("Once upon a time")
    prompt_ids, response_ids = encode_prompt(tokenizer, "Once up"), encode_response(tokenizer, "Once up", "on a time")
    assert prompt_ids == tokenizer.encode("Once up")
    assert prompt_ids != whole[: len(prompt_ids)]
    assert tokenizer.decode(prompt_ids + response_ids, skip_special_tokens=True) == "Once upon a time"


def test_chats_are_what_transformers_makes_of_the_template(tokenizer):
    turns = chat("How do I reset it?", "Press reset.", "And then?")
    messages = [{"role": m.role, "content": m.content} for m in turns]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert encode_prompt(tokenizer, turns) == expected
    finished = [*messages, {"role": "assistant", "content": "Wait."}]
    whole = tokenizer.apply_chat_template(finished, tokenize=False).rstrip()
    together = encode_prompt(tokenizer, turns) + encode_response(tokenizer, turns, "Wait.")
    assert together == tokenizer.encode(whole, add_special_tokens=False)


def test_the_mask_of_a_chat_is_true_on_the_assistant_turns_and_their_ends_only(tokenizer):
    said = ["Press reset.", "It starts anew, é.", "You are welcome!"]
    turns = chat("How do I reset it?", said[0], "And then?", said[1], "Thank you.")
    prompt_ids, response_ids, mask = encode_demonstration(tokenizer, Demonstration(turns, said[2]))
    spans, before = [], False
    for token, counts in zip(response_ids, mask, strict=True):
        if counts and not before:
            spans.append([])
        if counts:
            spans[-1].append(token)
        before = counts
    end = tokenizer.eos_token_id
    assert [span[-1] for span in spans] == [end] * 3
    assert [decode_response(tokenizer, span).strip() for span in spans] == said
    assert mask[0]
    assert mask[-1]
    assert prompt_ids == encode_prompt(tokenizer, turns[:1])
    whole = encode_prompt(tokenizer, turns) + encode_response(tokenizer, turns, said[2])
    assert prompt_ids + response_ids == whole


def test_every_turn_false_learns_the_last_turn_only(tokenizer):
    turns = chat("How do I reset it?", "Press reset.", "And then?")
    prompt_ids, response_ids, mask = encode_demonstration(tokenizer, Demonstration(turns, "Wait."), every_turn=False)
    assert prompt_ids == encode_prompt(tokenizer, turns)
    assert response_ids == encode_response(tokenizer, turns, "Wait.")
    assert all(mask)


def test_turns_learned_in_a_row_are_those_learned_one_by_one(tokenizer):
    @quick
    @given(st.lists(words.filter(str.strip), min_size=5, max_size=5))
    def law(contents):
        asked, answer, again, reply = chat(*contents[:4])
        encoded = encode_demonstration(tokenizer, Demonstration((asked, answer, again), reply.content))
        learned = [t for t, counts in zip(encoded.response_ids, encoded.response_mask, strict=True) if counts]
        first = encode_response(tokenizer, (asked,), answer.content)
        second = encode_response(tokenizer, (asked, answer, again), reply.content)
        assert learned == first + second

    law()


def test_a_comparison_shares_its_prompt(tokenizer):
    prompt_ids, a_ids, b_ids = encode_comparison(tokenizer, Comparison("Once upon", " a time", " b time", 1.0))
    assert prompt_ids == encode_prompt(tokenizer, "Once upon")
    assert a_ids == encode_response(tokenizer, "Once upon", " a time")
    assert b_ids == encode_response(tokenizer, "Once upon", " b time")


def test_a_tokenizer_without_a_chat_template_says_what_to_set(tokenizers, shared_models):
    from transformers import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(shared_models / "stories260k")
    with pytest.raises(DataError, match=r"tokenizer has no chat template\. Set model\.chat_template"):
        encode_prompt(bare, chat("Hi"))
    with pytest.raises(DataError, match=r"^a\.jsonl:3: these records are chats"):
        encode_demonstration(bare, Demonstration(chat("Hi"), "Hello", "a.jsonl:3"))
    assert encode_prompt(bare, "Hi") == bare.encode("Hi")


def test_a_template_that_refuses_a_role_is_explained(tokenizers):
    turns = (Message("system", "Be brief."), *chat("Hi"))
    with pytest.raises(DataError, match=r"refuses the roles system, user: only user and assistant\. Change the roles"):
        encode_prompt(tokenizers["sentence_piece"], turns)


def test_a_template_that_does_not_continue_its_generation_prompt_is_refused(tokenizers):
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    with pytest.raises(DataError, match="does not continue its own generation prompt"):
        encode_response(tokenizer, chat("Hi"), "Hello")


def test_a_template_that_rewrites_earlier_turns_can_learn_the_last_turn(tokenizers):
    tokenizer = byte_level()
    asked_last = (
        "{% set last = messages | map(attribute='role') | list | length - (1 if add_generation_prompt else 2) %}"
    )
    shortened = "{{ '...' if m.role == 'assistant' and loop.index0 < last else m.content }}"
    tokenizer.chat_template = asked_last + CHATML.replace("{{ m.content }}", shortened)
    demonstration = Demonstration(chat("a", "b", "c", "d", "e"), "f")
    with pytest.raises(DataError, match=r"rewrites earlier turns.*every_turn: false"):
        encode_demonstration(tokenizer, demonstration)
    encoded = encode_demonstration(tokenizer, demonstration, every_turn=False)
    assert decode_response(tokenizer, encoded.response_ids) == "f"


def test_the_end_mark_inside_a_response_is_refused_with_what_stands_around_it(tokenizers):
    demonstration = Demonstration("Once", " upon</s> a time", "a.jsonl:7")
    with pytest.raises(DataError, match=r"^a\.jsonl:7: the response holds '</s>'.*' upon</s> a time'"):
        encode_demonstration(tokenizers["stories260k"], demonstration)


def test_a_tokenizer_without_eos_is_refused():
    tokenizer = byte_level()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no EOS token"):
        encode_response(tokenizer, "Once", " upon")


def test_real_dialogues_keep_the_laws(tokenizer, shared_data):
    config = DataConfig(path=str(shared_data / "hh-harmless-base"), on_error="drop")
    eos = tokenizer.eos_token_id
    for as_chat in (False, True):
        records = read_demonstrations(config.model_copy(update={"as_chat": as_chat}))
        for record in random.Random(0).sample(records, 25):
            encoded = encode_demonstration(tokenizer, record)
            assert encoded.response_ids[-1] == eos
            assert len(encoded.response_mask) == len(encoded.response_ids)
            ids = encode_response(tokenizer, record.prompt, record.response)
            assert ids.count(eos) == 1
            assert decode_response(tokenizer, ids).strip() == record.response.strip()
