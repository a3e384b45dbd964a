"""Dynamic int8: on a CPU four times smaller and several times faster than float32, for the LLM and the connector."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


@contextmanager
def _quietly() -> Iterator[None]:
    """torch announces a successor of its quantised tensors that has no int8 kernel for CPUs yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Int8Linear(nn.Module):
    """A linear layer with int8 weights (one scale an output channel) and activations quantised as they come.

    torch's kernel takes one scale for all rows of a call. Tokens differ too much for that: the first one's activations
    are hundreds of times larger than the others' (arXiv 2402.17762) and would leave them a few of the 128 steps. So
    every row is brought to the same size first and back afterwards. What is left in common is the zero point.
    """

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        """Steps int8 [out, in], the size of a step in each row float32 [out], and a bias [out]."""
        super().__init__()
        self._bias = None if bias is None else bias.detach().float()
        with _quietly():
            zero = torch.zeros(len(scales), dtype=torch.long)
            quantised = torch._make_per_channel_quantized_tensor(weight, scales.double(), zero, 0)
            self._packed = torch.ops.quantized.linear_prepack(quantised, None)

    @classmethod
    def of(cls, linear: nn.Linear) -> "Int8Linear":
        """A linear layer quantised."""
        weight = linear.weight.detach().float().cpu()
        scales = weight.abs().amax(1).clamp(min=1e-8).double() / 127
        with _quietly():
            quantised = torch.quantize_per_channel(weight, scales, torch.zeros(len(scales)).long(), 0, torch.qint8)
        return cls(quantised.int_repr(), scales.float(), None if linear.bias is None else linear.bias.cpu())

    def stored(self) -> dict[str, Tensor]:
        """What `__init__` takes, by name."""
        quantised, _ = torch.ops.quantized.linear_unpack(self._packed)
        tensors = {"int8": quantised.int_repr(), "scales": quantised.q_per_channel_scales().float()}
        return tensors if self._bias is None else {**tensors, "bias": self._bias}

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


class HalfEmbedding(nn.Module):
    """Input embeddings kept in half precision [vocabulary, width], given in float32: the same numbers, half the memory.

    The table is no parameter, so what turns the rest into float32 leaves it alone.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight.detach()

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> float32 [..., width]."""
        return functional.embedding(ids, self.weight).float()


def quantise(module: nn.Module) -> None:
    """Replace every `nn.Linear` inside `module`, LoRA's small matrices excepted, by an `Int8Linear`.

    Embeddings of 16 bits stay so while the rest of `module` becomes float32.
    """
    replace_linears(module, lambda _, linear: Int8Linear.of(linear))
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Embedding and child.weight.dtype == torch.float16:
                setattr(parent, name, HalfEmbedding(child.weight))
    module.float()


def replace_linears(module: nn.Module, replacement: Callable[[str, nn.Linear], nn.Module]) -> None:
    """Put what `replacement` makes of a name and a linear layer in its place, for all of them but LoRA's."""
    found = [
        (parent, name, f"{path}.{name}".lstrip("."), child)
        for path, parent in module.named_modules()
        if "lora_" not in path
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    # Packing runs on one core; several at a time, the largest first, halve the wait at the start.
    found.sort(key=lambda one: -one[-1].in_features * one[-1].out_features)
    with ThreadPoolExecutor() as pool:
        made = pool.map(replacement, [path for *_, path, _ in found], [child for *_, child in found])
        for (parent, name, *_), replaced in zip(found, made, strict=True):
            setattr(parent, name, replaced)
