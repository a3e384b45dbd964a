"""One layer of the windowed Q-Former: queries that see each other, then the frames around their own window."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from whisper.model import MultiHeadAttention, ResidualAttentionBlock


class QFormerLayer(nn.Module):
    """The queries of a clip see each other, then each sees the frames around its window.

    The parameters are a decoder block of Whisper's, so that training can begin from one (`train.stages.whisper_start`).
    What tells the decoder the order of its tokens is told here by a depthwise convolution, which is nothing to begin
    with.
    """

    def __init__(self, width: int, window: int, margin: int, kernel: int = 9) -> None:
        super().__init__()
        self._window, self._margin = window, margin
        self.order = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        for parameter in self.order.parameters():
            nn.init.zeros_(parameter)
        heads = max(1, width // 64)  # every Whisper size has heads of width 64
        self.block = ResidualAttentionBlock(width, heads, cross_attention=True)

    def forward(self, states: Tensor, real: Tensor, features: Tensor, visible: Tensor) -> Tensor:
        """States [B, S, width] -> [B, S, width].

        `real` [B, S] is false on padding; of what a window's queries see of the features [B, T, width], `visible`
        [B, windows, span] is real.
        """
        block = self.block
        states = states * real[..., None]
        states = states + self.order(states.transpose(1, 2)).transpose(1, 2)
        normed = block.attn_ln(states)
        attention = block.attn
        states = states + _attend(
            attention, normed, attention.key(normed), attention.value(normed), real[:, None, None]
        )
        windows = block.cross_attn_ln(states).unflatten(1, (visible.shape[1], -1))
        attention = block.cross_attn
        keys, values = (
            spans(project(features), self._window, self._margin) for project in (attention.key, attention.value)
        )
        states = states + _attend(attention, windows, keys, values, visible[:, :, None, None]).flatten(1, 2)
        return states + block.mlp(block.mlp_ln(states))


def spans(frames: Tensor, window: int, margin: int) -> Tensor:
    """Frames of whole windows [B, T, n] -> what each window's queries see [B, windows, margin + window + margin, n]."""
    windows = functional.pad(frames.unflatten(1, (-1, window)), (0, 0, 0, 0, 1, 1))
    before, after = windows[:, :-2, window - margin :], windows[:, 2:, :margin]
    return torch.cat([before, windows[:, 1:-1], after], 2)


def _attend(attention: MultiHeadAttention, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Whisper's attention, with a mask: queries [..., q, width], keys and values [..., k, width] -> [..., q, width]."""

    def heads(states: Tensor) -> Tensor:
        return states.unflatten(-1, (attention.n_head, -1)).transpose(-2, -3)

    found = functional.scaled_dot_product_attention(heads(attention.query(queries)), heads(keys), heads(values), mask)
    return attention.out(found.transpose(-2, -3).flatten(-2))
