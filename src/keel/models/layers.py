"""The decoder layers of any trunk: the last one only where it is read, the first ones not twice.

Nothing reads the last layer's answer at a prompt's tokens, apart from the one that predicts a response. And the first
layers, where nothing is trained, say the same for the policy, the reference, the critic and the reward model, in every
epoch: their answer is kept with the batch, and a forward pass begins above them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from keel.core.errors import ArtifactError

SHARED, WHERE = "keel_shared_layers", "keel_layers"
ANSWER_ONLY = ("q_proj", "o_proj")  # of attention: what they compute for a token only that token reads


def find_layers(trunk: Any) -> tuple[nn.Module, str, nn.ModuleList] | None:
    """The list of decoder layers of a transformers trunk, the module that holds it, and its name there.

    It stands beside or above the token embeddings: a vision tower has layers of its own.
    """
    if not hasattr(trunk, WHERE):
        setattr(trunk, WHERE, _search(trunk))
    where = getattr(trunk, WHERE)
    if where is None:
        return None
    holder = trunk.get_submodule(where[0])
    return holder, where[1], getattr(holder, where[1])


def _search(trunk: Any) -> tuple[str, str] | None:
    count = trunk.config.get_text_config().num_hidden_layers
    try:
        embeddings = trunk.get_input_embeddings()
    except NotImplementedError:  # a model that looks nothing up has one list at most
        embeddings = None
    for path, module in trunk.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            holder, _, name = path.rpartition(".")
            if embeddings is None or any(part is embeddings for part in trunk.get_submodule(holder).modules()):
                return holder, name
    return None


def decoder_layers(trunk: Any) -> tuple[str, nn.ModuleList]:
    """The name of the list of layers, and the list; ArtifactError where there is none."""
    found = find_layers(trunk)
    if found is None:
        raise ArtifactError(
            f"{type(trunk).__name__} keeps its layers in no list that keel finds, so adapters on some of them, "
            "ppo.layout: one_trunk and model.gradient_checkpointing cannot be had. Leave these out, or choose an "
            "architecture such as Llama, Mistral, Qwen or Gemma."
        )
    return found[1], found[2]


def untouched_layers(trunk: nn.Module) -> int:
    """How many of the first layers are as they were loaded: nothing below or in them is trained or adapted."""
    layers = decoder_layers(trunk)[1]
    own = {id(p) for p in layers.parameters()}
    if any(p.requires_grad for p in trunk.parameters() if id(p) not in own):
        return 0
    for number, layer in enumerate(layers):
        if any(p.requires_grad or "lora_" in name for name, p in layer.named_parameters()):
            return number
    return len(layers)


def share_layers(trunk: nn.Module) -> int:
    """From now on forward passes of `trunk` begin above its untouched layers where their states are at hand."""
    count = untouched_layers(trunk)
    setattr(trunk, SHARED, count)
    return count


def shared_layers(trunk: nn.Module) -> int:
    """How many of the first layers are shared; 0 when `share_layers` was never called."""
    return getattr(trunk, SHARED, 0)


def prunable(trunk: nn.Module) -> bool:
    """Whether `only_at` can save something: the last layer is known, and does not run a second time out of its sight.

    transformers' own gradient checkpointing computes all layers again in the backward pass.
    """
    found = find_layers(trunk)
    if found is None:
        return False
    last = found[2][-1]
    return not (last.training and any(getattr(module, "gradient_checkpointing", False) for module in (trunk, last)))


@contextmanager
def only_at(trunk: nn.Module, needed: Tensor) -> Iterator[None]:
    """Within it the trunk's answer is right at the `needed` tokens (sorted, each once) only.

    The last layer's queries, outputs and feed-forward part are not computed for the others.
    """
    changed: list[tuple[nn.Module, Any]] = []
    for module in decoder_layers(trunk)[1][-1].modules():
        for name, child in module.named_children():
            if name in ANSWER_ONLY or (name == "mlp" and type(child).__name__.endswith("MLP")):
                changed.append((child, vars(child).get("forward")))
                child.forward = _at(child.forward, needed)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for child, before in changed:
            del child.forward
            if before is not None:
                child.forward = before  # type: ignore[method-assign]


def pick(hidden: Tensor, needed: Tensor) -> Tensor:
    """[1, N, H] of [1, T, H]; the gradient goes back by index, which no token needs twice."""
    return _Pick.apply(hidden, needed)


def _at(compute: Callable[..., Tensor], needed: Tensor) -> Callable[[Tensor], Tensor]:
    def at(x: Tensor) -> Tensor:
        return _Spread.apply(compute(_Pick.apply(x, needed)), needed, x.shape[1])

    return at


@contextmanager
def above(trunk: nn.Module, states: Tensor) -> Iterator[None]:
    """Within it the trunk takes `states` [T, H] for the answer of its shared layers."""
    layers = decoder_layers(trunk)[1]
    count = shared_layers(trunk)
    below = [_Skip(layer) for layer in layers[:count]]
    below[-1].answer = states[None]
    with _replaced(trunk, [*below, *layers[count:]]):
        yield


@contextmanager
def watched(trunk: nn.Module) -> Iterator[list[Tensor]]:
    """Within it the list holds the answer [1, T, H] of the shared layers in every pass so far."""
    layers, seen = decoder_layers(trunk)[1], []
    handle = layers[shared_layers(trunk)].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def only_below(trunk: nn.Module) -> Iterator[list[Tensor]]:
    """Within it only the shared layers run; the list then holds their answer [1, T, H]."""
    layers = decoder_layers(trunk)[1]
    count = shared_layers(trunk)
    rest = [_Skip(layer) for layer in layers[count:]]
    kept: list[Tensor] = []
    rest[0].seen = kept
    with _replaced(trunk, [*layers[:count], *rest]):
        yield kept


@contextmanager
def _replaced(trunk: nn.Module, layers: list[nn.Module]) -> Iterator[None]:
    found = find_layers(trunk)
    if found is None:
        raise ValueError("layers were shared of a trunk that has none")
    holder, name, before = found
    setattr(holder, name, nn.ModuleList(layers))
    try:
        yield
    finally:
        setattr(holder, name, before)


class _Skip(nn.Module):
    """Stands where a layer was: hands on what it is given, or `answer`, and keeps what it saw in `seen`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = [layer]  # in a list, so that it is no submodule
        self.answer: Tensor | None = None
        self.seen: list[Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["layer"][0], name)  # such as the kind of attention that its mask is chosen by

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.seen is not None:
            self.seen.append(hidden_states)
        return hidden_states if self.answer is None else self.answer


class _Pick(torch.autograd.Function):
    """[1, T, F] -> [1, N, F]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.index, ctx.length = index, x.shape[1]
        return x.index_select(1, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return grad.new_zeros(1, ctx.length, grad.shape[2]).index_copy_(1, ctx.index, grad), None


class _Spread(torch.autograd.Function):
    """[1, N, F] -> [1, T, F], zero elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, length: int) -> Tensor:
        ctx.index = index
        return x.new_zeros(1, length, x.shape[2]).index_copy_(1, index, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return grad.index_select(1, ctx.index), None, None
