"""Tiny random clones of the decoders that keel meets, and a word tokenizer for them."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>")
_TEXT = """
the a my your this is was are be can do does not no yes please thank you i we it he she they how what when where why who
which order parcel refund late lost found broken new old good bad help sorry hello hi day week two three paid sent will
would could may must have has had get got ask answer cat dog red blue fast slow again now soon . ? ! ,
"""
WORDS = tuple(_TEXT.split())
VOCAB_SIZE = 112

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] + (eos_token if message['role'] == 'assistant' else '') + ' ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)

_KINDS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (
        LlamaConfig,
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "mistral": (MistralConfig, {"sliding_window": 6}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma2": (
        Gemma2Config,
        {
            "head_dim": 8,
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        Gemma3TextConfig,
        {
            "head_dim": 8,
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gpt_neox": (GPTNeoXConfig, {"num_key_value_heads": None}),
}
ARCHITECTURES = tuple(_KINDS)


def tiny_config(name: str, **changes: Any) -> PreTrainedConfig:
    """Two layers of width 32, four heads of which keys and values share two."""
    kind, own = _KINDS[name]
    settings = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,  # large enough that attention and logits are far from uniform
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        **own,
        **changes,
    }
    return kind(**{key: value for key, value in settings.items() if value is not None})


def tiny_model(name: str = "llama", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random causal language model in float32, in eval mode, the same for a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(name, **changes))
    return model.eval()


def tiny_tokenizer(*, chat: bool = False) -> PreTrainedTokenizerFast:
    """One token a word, seven special tokens; unknown words become <unk>. With `chat`, a chat template too."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[4:]),
        model_max_length=256,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast
