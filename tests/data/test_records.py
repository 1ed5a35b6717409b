from keel.data.records import (
    Comparison,
    Demonstration,
    LabelledText,
    Message,
    prompt_key,
    prompt_text,
    record_key,
    text_key,
)


def test_source_takes_no_part_in_equality():
    assert Demonstration("p", "r", "a.jsonl:1") == Demonstration("p", "r", "b.jsonl:9")


def test_a_lone_user_turn_reads_and_hashes_as_its_text():
    chat = (Message("user", "What is keel?"),)
    assert prompt_text(chat) == "What is keel?"
    assert prompt_key(chat) == prompt_key("What is keel?")


def test_longer_chats_name_the_roles():
    chat = (Message("system", "Be brief."), Message("user", "Hi"))
    assert prompt_text(chat) == "system: Be brief.\n\nuser: Hi"


def test_key_ignores_case_white_space_and_unicode_form_only():
    assert prompt_key("Caf\u00e9  au\tlait\n") == prompt_key("cafe\u0301 AU lait")
    assert prompt_key("cafe") != prompt_key("caf\u00e9")
    assert prompt_key("a b") != prompt_key("ab")


def test_key_is_the_sha256_of_the_normalised_text():
    # printf 'what is keel?' | sha256sum
    assert prompt_key(" What is\nKEEL?") == "dc1b398ab8ae959726c85fae4388550bf02e44a39c6a8bffeeeef305459aa8d2"


def test_records_without_a_prompt_are_keyed_by_their_text():
    assert record_key(LabelledText("fine", True)) == text_key("fine")
    assert record_key(Comparison("", "fine", "poor", 1.0)) == text_key("fine")
    assert record_key(Demonstration("", "fine")) == text_key("fine")
    assert record_key(Comparison("p", "fine", "poor", 1.0)) == prompt_key("p") == record_key("p")
