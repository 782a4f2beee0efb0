"""Normalise l_d, and fuse it with l_f into l_a (Fig. 1b).

What enters: l_f (B, F) of a backbone and l_d (B, D) of the diffusion model, and for `ChannelNorm` the moments of l_d over
the training items. What leaves: l_a (B, width). In the equations LN is layer normalisation (Ba et al., 2016), and N the
normalisation of l_d, an entry of FEATURE_NORMS.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and standard deviation (D,) of each channel of l_d."""
_HALF: Final = np.finfo(np.float16)


class RowNorm(nn.LayerNorm):
    """Layer normalisation of l_d: each row by its own mean and standard deviation over channels."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.width = width


class ChannelNorm(nn.Module):
    """Standardise each channel of l_d by its mean and standard deviation over the training items.

    Both are buffers, saved with the model: (0, 1) until `set_moments`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def set_moments(self, moments: Moments) -> None:
        """Set mean and standard deviation. A channel that varies less than float16 can tell gets an infinite one."""
        mean, std = moments
        told = std > _HALF.tiny + _HALF.eps / 2 * np.abs(mean)
        self.mean.copy_(torch.from_numpy(mean))
        # x / inf = 0: a channel that is constant in training adds nothing, whatever value it has in a test image.
        self.std.copy_(torch.from_numpy(np.where(told, std, np.inf)))

    def forward(self, l_d: Tensor) -> Tensor:
        """Normalise (B, D)."""
        # N(l_d) = (l_d - mean) / std, channel by channel
        return (l_d - self.mean) / self.std


FeatureNorm = RowNorm | ChannelNorm
FEATURE_NORMS: Final[dict[str, Any]] = {"layer": RowNorm, "channels": ChannelNorm}


def moments_of(parts: Iterable[tuple[NDArray[np.float16], NDArray[np.float64]]]) -> Moments:
    """Mean and standard deviation of each channel over rows.

    Args:
        parts: Rows (n, D), n at least 1, and how much each counts (n,), above 0.

    Returns:
        Two arrays (D,), of the rows of all parts together, computed in float64.
    """
    count, mean, square = 0.0, np.zeros(()), np.zeros(())
    for rows, often in parts:
        added = float(often.sum())
        here, weight = rows.astype(np.float64), often[:, None] / added
        own = (weight * here).sum(0)
        change, total = own - mean, count + added
        # Chan et al. (1983): M = M_a + M_b + (mean_b - mean_a)^2 n_a n_b / n, M the sum of squared deviations
        square = square + added * (weight * (here - own) ** 2).sum(0) + change**2 * (count * added / total)
        mean, count = mean + change * (added / total), total
    return mean, np.sqrt(square / count)


class Concat(nn.Module):
    """Concatenate l_f and l_d, each normalised: the paper's fusion (Fig. 1b)."""

    def __init__(self, width: int, norm_d: FeatureNorm) -> None:
        super().__init__()
        self.width = width + norm_d.width
        self.norm_f, self.norm_d = nn.LayerNorm(width), norm_d

    def forward(self, l_f: Tensor, l_d: Tensor) -> Tensor:
        """Fuse (B, F) and (B, D) into (B, width)."""
        # l_a = [LN(l_f), N(l_d)]
        return torch.cat([self.norm_f(l_f), self.norm_d(l_d)], dim=1)


class Sum(nn.Module):
    """Add l_d, projected to the width of l_f."""

    def __init__(self, width: int, norm_d: FeatureNorm) -> None:
        super().__init__()
        self.width = width
        self.norm_f, self.norm_d = nn.LayerNorm(width), norm_d
        self.project = nn.Linear(norm_d.width, width)

    def forward(self, l_f: Tensor, l_d: Tensor) -> Tensor:
        """Fuse (B, F) and (B, D) into (B, width)."""
        # l_a = LN(l_f) + W N(l_d)
        return self.norm_f(l_f) + self.project(self.norm_d(l_d))


class Gated(Sum):
    """Add l_d, projected to the width of l_f and scaled per channel by a learned gate."""

    def __init__(self, width: int, norm_d: FeatureNorm) -> None:
        super().__init__(width, norm_d)
        self.gate = nn.Linear(2 * width, width)

    def forward(self, l_f: Tensor, l_d: Tensor) -> Tensor:
        """Fuse (B, F) and (B, D) into (B, width)."""
        own, other = self.norm_f(l_f), self.project(self.norm_d(l_d))
        # l_a = LN(l_f) + g * W N(l_d), g = sigmoid(V [LN(l_f), W N(l_d)])
        return own + torch.sigmoid(self.gate(torch.cat([own, other], dim=1))) * other


class Attention(Sum):
    """Add what l_f attends to among itself and the projected l_d; four heads, or one if 4 does not divide the width."""

    def __init__(self, width: int, norm_d: FeatureNorm) -> None:
        super().__init__(width, norm_d)
        self.attend = nn.MultiheadAttention(width, 4 if width % 4 == 0 else 1, batch_first=True)

    def forward(self, l_f: Tensor, l_d: Tensor) -> Tensor:
        """Fuse (B, F) and (B, D) into (B, width)."""
        own = self.norm_f(l_f)[:, None]
        tokens = torch.cat([own, self.project(self.norm_d(l_d))[:, None]], dim=1)
        # l_a = LN(l_f) + MHA(query LN(l_f), keys and values {LN(l_f), W N(l_d)})
        return (own + self.attend(own, tokens, tokens, need_weights=False)[0])[:, 0]


FUSIONS: dict[str, Any] = {"concat": Concat, "sum": Sum, "gated": Gated, "attention": Attention}
