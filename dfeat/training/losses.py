"""The loss of the paper: classification of images and, for Replace Parts, of masks (Eq. 1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def eq1(image_logits: Tensor, labels: Tensor, mask_logits: Tensor | None, alpha: float, beta: float) -> Tensor:
    """Eq. 1: alpha * E[L(theta, {x_i, xhat_i}, y_i)] + beta * E[L(theta, m_i, y_i)], L the cross-entropy.

    `image_logits` (B, C) are of originals and augmented images together, `mask_logits` (B, C) of the same rows'
    masks as three-channel images, or None for the methods that see no masks: then the loss is the first
    expectation alone. `labels` (B,) int64, or (B, C) class shares for CutMix.
    """
    images = F.cross_entropy(image_logits, labels)
    if mask_logits is None:
        return images
    return alpha * images + beta * F.cross_entropy(mask_logits, labels)
