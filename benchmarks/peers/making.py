"""Makes the material that both sides train; apart from `material` because of what it imports."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peers.material import LlamaShape
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from keel.core.errors import DataError
from keel.core.seed import derive
from keel.data.chat import encode_comparison
from keel.data.formats import DataConfig, read_comparisons
from keel.data.records import Comparison, prompt_text
from keel.models.load import load_causal_lm, load_tokenizer, quiet
from keel.models.reward import RewardModel

EOS, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL = (PAD, EOS)


def make(
    folder: Path,
    source: Path,
    *,
    model: str,
    shape: LlamaShape | None,
    vocabulary: int,
    max_tokens: int,
    ending_tokens: int,
    seed: int,
) -> dict[str, int]:
    """Write model/, reward/ and records.json into `folder`; `shape` None copies the folder `model`."""
    comparisons = read_comparisons(DataConfig(path=str(source), on_error="drop"))
    if shape is None:
        shutil.copytree(model, folder / "model")
    else:
        write_llama(folder / "model", shape, train_tokenizer(comparisons, vocabulary), ending_tokens, seed)
    network = load_causal_lm(folder / "model", device="cpu", verify=False)
    records = encode(comparisons, folder / "model", max_tokens)
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
    RewardModel.from_policy(
        folder / "model", seed=derive(seed, "reward", 0), freeze_embeddings=False, device="cpu"
    ).save(folder / "reward")
    return {"parameters": sum(p.numel() for p in network.parameters()), "count": len(records)}


def write_llama(
    folder: Path,
    shape: LlamaShape,
    tokenizer: PreTrainedTokenizerFast,
    ending_tokens: int,
    seed: int,
    *,
    device: str = "cpu",
    dtype: str = "float32",
) -> int:
    """A random Llama with its tokenizer, drawn on `device`; how many parameters it has."""
    torch.manual_seed(derive(seed, "weights"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device(device):
        network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    drawn = torch.randperm(len(tokenizer), generator=torch.Generator().manual_seed(derive(seed, "endings")))
    special = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    endings = [token for token in drawn.tolist() if token not in special][:ending_tokens]
    if endings:
        network.generation_config.eos_token_id = [tokenizer.eos_token_id, *endings]
    with quiet():
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return network.num_parameters()


def train_tokenizer(comparisons: Sequence[Comparison], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; when the texts have too few pairs to merge, unused tokens fill the vocabulary up."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text for c in comparisons for text in (prompt_text(c.prompt), c.a, c.b))
    tokenizer.train_from_iterator(texts, trainer)
    short = vocabulary - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<|unused {i}|>" for i in range(max(0, short))])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD)


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A word for every token, so that any row of them is a text."""
    words = {name: number for number, name in enumerate(SPECIAL)}
    words |= {word(number): number for number in range(len(SPECIAL), vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=EOS))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD)


def word(token: int) -> str:
    return f"w{token}"


def encode(comparisons: Sequence[Comparison], model: Path, max_tokens: int) -> list[dict[str, Any]]:
    """Token ids of every pair that fits whole, chosen first; pairs whose prompt a peer would cut otherwise fall out."""
    tokenizer = load_tokenizer(model)
    out = []
    for c in comparisons:
        prompt, a, b = encode_comparison(tokenizer, c)
        text = prompt_text(c.prompt)
        fits = len(prompt) + max(len(a), len(b)) <= max_tokens
        if not fits or not prompt or min(len(a), len(b)) < 2 or list(tokenizer(text).input_ids) != list(prompt):
            continue
        chosen, rejected = (a, b) if c.preference > 0.5 else (b, a)
        out.append({"prompt_text": text, "prompt": list(prompt), "chosen": list(chosen), "rejected": list(rejected)})
    if not out:
        raise DataError(f"No pair fits into {max_tokens} tokens with this tokenizer. Raise --max-tokens.")
    return out
