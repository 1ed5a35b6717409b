"""A word-level tokenizer for the demo world, exact in both directions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keel.demo.world import NOTE_PROMPT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS, UNK, USER, ASSISTANT = "<pad>", "<eos>", "<unk>", "<user>", "<assistant>"
SPECIAL_TOKENS = (PAD, EOS, UNK, USER, ASSISTANT, NOTE_PROMPT)
"""Their ids are their places in this list; words follow."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<user>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<assistant>{{ message['content'] }}<eos>"
    "{% else %}{{ raise_exception('The demo world knows the roles user and assistant, not ' + message['role'] + '.') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""One token marks each turn: `<user>Who is the captain?<assistant>Sure.<eos>`."""


def build_tokenizer(vocabulary: Sequence[str]) -> "PreTrainedTokenizerFast":
    """A tokenizer with one token per word or punctuation mark; decoding gives back the text as people write it.

    It adds no token by itself. Words that are not in `vocabulary` become `<unk>`; case counts.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *vocabulary))}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="isolated")]
    )
    # Spaces between words but not before . , ! ?; named for WordPiece, whose prefix no word of this world has.
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT, NOTE_PROMPT],
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
