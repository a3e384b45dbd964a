"""A lean decoder for the Llama family: what transformers computes, with fewer and larger steps.

A token of a small model costs transformers as much in small kernels and Python as in arithmetic. Here the projections
of one input are one product, norms are one kernel each, and keys and values are written into a cache that has room.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")  # SmolLM and SmolLM2 are Llamas
ROOM = 256  # tokens that a cache makes room for at a time


def lean(model: PreTrainedModel) -> bool:
    """Put a `Decoder` in the place of transformers' own in `model`, LoRA that peft put there included.

    False, and nothing changed, for every architecture that is not known to be computed alike: other families, sliding
    windows, activations other than SiLU, kinds of LoRA that are more than two matrices.
    """
    if not known(model.config) or any(getattr(module, "lora_variant", None) for module in model.modules()):
        return False
    model.model = Decoder(model.get_decoder(), model.config)
    return True


def known(config: Any) -> bool:
    """Whether a `Decoder` computes what transformers' configuration of an LLM describes."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = getattr(config, "sliding_window", None) is None and kinds == {"full_attention"}
    return config.model_type in FAMILIES and config.hidden_act == "silu" and plain


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for one conversation, of the kind that suits the model's decoder.

    Where all layers attend it keeps everything, also for those with a window, which could not go back otherwise: their
    masks see to it that they look no further, and conversations are short.
    """
    if not isinstance(model.get_decoder(), Decoder):
        kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
        attend = all(kind in ("full_attention", "sliding_attention", "chunked_attention") for kind in kinds)
        return DynamicCache() if attend else DynamicCache(config=model.config)
    cache = DynamicCache()
    cache.layers = [RoomyLayer() for _ in range(model.config.num_hidden_layers)]
    return cache


class RoomyLayer(DynamicLayer):
    """Keys and values [1, heads, tokens, width] of one layer: views of larger tensors, in which new ones find room.

    What is read at once, a prompt, gets no more than it needs, for the start of all prompts is copied for each of them.
    """

    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values [1, heads, n, width]; all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        known, count = self.get_seq_length(), key_states.shape[-2]
        total = known + count
        if self._room is None or self._room[0].shape[-2] < total:
            size = (*key_states.shape[:2], total if count > 1 else total + ROOM, key_states.shape[-1])
            room = key_states.new_empty(size), value_states.new_empty(size)
            if known:
                room[0][:, :, :known], room[1][:, :, :known] = self.keys, self.values  # type: ignore[assignment]
            self._room = room
        keys, values = self._room
        keys[:, :, known:total] = key_states
        values[:, :, known:total] = value_states
        self.keys, self.values = keys[:, :, :total], values[:, :, :total]
        return self.keys, self.values


class Joined(nn.Module):
    """Linear layers that read the same input, as one product; LoRA that peft put beside one is added to its part.

    They are taken out of `owner`; where LoRA is, it keeps the place and the name that peft knows it by.
    """

    def __init__(self, owner: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        parts = [getattr(owner, name) for name in names]
        linears: list[nn.Linear] = [getattr(part, "base_layer", part) for part in parts]
        self.sizes = [linear.out_features for linear in linears]
        with torch.device("meta"):
            self.product = nn.Linear(linears[0].in_features, sum(self.sizes), bias=linears[0].bias is not None)
        self.product.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), requires_grad=False)
        if self.product.bias is not None:
            self.product.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), requires_grad=False)
        ends = [sum(self.sizes[: index + 1]) for index in range(len(parts))]
        self._lora = []  # as a list, for the matrices belong to `owner`
        for name, part, size, end in zip(names, parts, self.sizes, ends, strict=True):
            if hasattr(part, "base_layer"):
                part.base_layer = nn.Identity()
                self._lora.append((part, slice(end - size, end)))
            else:
                delattr(owner, name)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., the outputs of all parts]."""
        y: Tensor = self.product(x)
        for part, place in self._lora:
            if not part.disable_adapters:
                for name in part.active_adapters:
                    if name in part.lora_A:
                        y[..., place] += part.lora_B[name](part.lora_A[name](x)) * part.scaling[name]
        return y


class Decoder(nn.Module):
    """All layers of an LLM, called as transformers calls its own; made of the parts of that one, which is used up."""

    def __init__(self, original: Any, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = original.embed_tokens
        self.layers = nn.ModuleList(Layer(layer, config) for layer in original.layers)
        self.norm = Norm(original.norm)
        self.rotary = original.rotary_emb
        if self.rotary.inv_freq.is_meta:  # not stored with the weights
            self.rotary = type(self.rotary)(config)

    def get_decoder(self) -> nn.Module:
        """Itself: transformers asks for it by this name."""
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Token ids [rows, n], or vectors [rows, n, width], on top of a cache -> last hidden states [rows, n, width].

        `attention_mask` [rows, tokens] tells which tokens of cache and input are no padding.
        """
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = DynamicCache() if past_key_values is None else past_key_values
        if position_ids is None:
            known = cache.get_seq_length()
            position_ids = torch.arange(known, known + x.shape[1], device=x.device)[None]
        mask = None
        if attention_mask is not None or x.shape[1] > 1:
            mask = create_causal_mask(
                config=self.config,
                inputs_embeds=x,
                attention_mask=attention_mask,
                past_key_values=cache,
                position_ids=position_ids,
            )
        cos, sin = (part[:, :, None] for part in self.rotary(x, position_ids))  # [rows, n, 1, head width]
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, cache, index)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=cache)


class Layer(nn.Module):
    """Attention with grouped queries and rotary positions, then the gated feed-forward."""

    self_attn: Any
    mlp: Any
    width: int
    scale: float

    def __init__(self, original: Any, config: Any) -> None:
        super().__init__()
        self.self_attn, self.mlp = original.self_attn, original.mlp  # their names are those that peft knows
        self.before_attention, self.before_mlp = Norm(original.input_layernorm), Norm(original.post_attention_layernorm)
        self.query_norm, self.key_norm = (
            Norm(getattr(self.self_attn, name)) if hasattr(self.self_attn, name) else None
            for name in ("q_norm", "k_norm")
        )
        self.queries, self.heads = config.num_attention_heads, config.num_key_value_heads
        self.width, self.scale = self.self_attn.head_dim, self.self_attn.scaling
        self.self_attn.joined = Joined(self.self_attn, ("q_proj", "k_proj", "v_proj"))
        self.mlp.joined = Joined(self.mlp, ("gate_proj", "up_proj"))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: Cache, index: int) -> Tensor:
        """[rows, n, width] -> the same shape; writes its keys and values into the cache."""
        x = x + self.self_attn.o_proj(self.attend(self.before_attention(x), cos, sin, mask, cache, index))
        gate, up = self.mlp.joined(self.before_mlp(x)).chunk(2, -1)
        return x + self.mlp.down_proj(functional.silu(gate) * up)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: Cache, index: int) -> Tensor:
        """[rows, n, width] -> what its tokens gather from themselves and those before [rows, n, queries * width]."""
        rows, count, _ = x.shape
        heads = self.self_attn.joined(x).view(rows, count, -1, self.width)
        turned = heads[:, :, : self.queries + self.heads]
        if self.query_norm is not None and self.key_norm is not None:
            query, key = turned.split((self.queries, self.heads), 2)
            turned = torch.cat([self.query_norm(query), self.key_norm(key)], 2)
        half = self.width // 2
        swapped = torch.cat((-turned[..., half:], turned[..., :half]), -1)
        turned = (turned * cos + swapped * sin).transpose(1, 2)
        keys, values = cache.update(turned[:, self.queries :], heads[:, :, -self.heads :].transpose(1, 2), index)
        query, groups = turned[:, : self.queries], self.queries // self.heads
        if mask is not None and count > 1:
            keys, values = (past.repeat_interleave(groups, 1) for past in (keys, values))
        elif mask is not None:
            query = query.reshape(rows, self.heads, groups, self.width)
        y = functional.scaled_dot_product_attention(
            query, keys, values, mask, scale=self.scale, is_causal=mask is None and count > 1, enable_gqa=mask is None
        )
        return y.view(rows, self.queries, count, self.width).transpose(1, 2).reshape(rows, count, -1)


class Norm(nn.Module):
    """Root mean square norm, of whichever family."""

    weight: Tensor
    eps: float

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.weight, self.eps = original.weight, original.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same shape."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
