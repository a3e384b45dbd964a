"""Dynamic int8: on a CPU four times smaller and several times faster than float32, for the LLM and the connector."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """A linear layer with int8 weights (one scale an output channel) and activations quantised as they come.

    torch's kernel takes one scale for all rows of a call. Tokens differ too much for that: the first one's activations
    are hundreds of times larger than the others' (arXiv 2402.17762) and would leave them a few of the 128 steps. So
    every row is brought to the same size first and back afterwards. What is left in common is the zero point.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float().cpu()
        scales = weight.abs().amax(1).clamp(min=1e-8).double() / 127
        self._bias = None if linear.bias is None else linear.bias.detach().float().cpu()
        with warnings.catch_warnings():  # torch announces a successor that has no int8 kernel for CPUs yet
            warnings.simplefilter("ignore")
            quantised = torch.quantize_per_channel(weight, scales, torch.zeros(len(scales)).long(), 0, torch.qint8)
            self._packed = torch.ops.quantized.linear_prepack(quantised, None)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [..., in] -> float32 [..., out]."""
        # Seven-bit activations (True): the 16-bit sums of processors without VNNI would overflow with eight.
        y: Tensor
        if x.numel() == x.shape[-1]:  # one row, as in decoding: its scale is the call's, and the detour costs a third
            y = torch.ops.quantized.linear_dynamic(x, self._packed, True)
        else:
            size = x.abs().amax(-1, keepdim=True).clamp(min=1e-8)
            y = torch.ops.quantized.linear_dynamic(x / size, self._packed, True).mul_(size)
        return y if self._bias is None else y.add_(self._bias)


def supported() -> bool:
    """Whether this build of torch has int8 kernels for this processor."""
    return torch.backends.quantized.engine not in ("none", "")


def chosen(precision: str, device: torch.device) -> str:
    """The precision that `auto` stands for on a device: int8 on a CPU that can, bfloat16 on a GPU."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" else "int8" if supported() else "float32"


def quantise(module: nn.Module) -> None:
    """Replace every `nn.Linear` inside `module`, LoRA's small matrices excepted, by an `Int8Linear`."""
    found = [
        (parent, name, child)
        for path, parent in module.named_modules()
        if "lora_" not in path
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    # Packing runs on one core; several at a time halve the wait at the start.
    with ThreadPoolExecutor() as pool:
        for (parent, name, _), replaced in zip(
            found, pool.map(Int8Linear, [child for *_, child in found]), strict=True
        ):
            setattr(parent, name, replaced)
