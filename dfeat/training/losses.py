"""The paper's loss (Eq. 1): classification of images and, for Replace Parts, of masks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def eq1(image_logits: Tensor, labels: Tensor, mask_logits: Tensor | None, alpha: float, beta: float) -> Tensor:
    """The loss of a batch (Eq. 1), a scalar.

    `image_logits` (B, C) are of originals x_i and augmented images xhat_i together, `mask_logits` (B, C) of the same rows'
    masks m_i as three-channel images; None for methods without masks, whose loss is the first expectation alone.
    `labels` y_i are (B,) int64, or (B, C) class probabilities for CutMix.
    """
    images = F.cross_entropy(image_logits, labels)
    if mask_logits is None:
        return images
    # Eq. 1: alpha * E[L(theta, {x_i, xhat_i}, y_i)] + beta * E[L(theta, m_i, y_i)], L the cross-entropy
    return alpha * images + beta * F.cross_entropy(mask_logits, labels)
