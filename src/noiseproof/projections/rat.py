from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError, require_number
from noiseproof.projections._base import Projection


@dataclass(frozen=True)
class RAT(Projection):
    """Retraction towards orthogonal weights: W ← (1 + β)·W − β·W·Wᵀ·W, one step down ¼·‖W·Wᵀ − I‖² of rate β.

    A singular value s becomes s + β·(s − s³): all tend to 1, from any 0 < s < √(1 + 1/β), and none of them lets a perturbation grow. A
    kernel [out, in, k, k] counts as a matrix [out, in·k·k]. Of dense layers with 200 rows or more a random `share` of the rows is taken
    as W in every step, and the others stay: the whole product would cost more than the training.
    Source: Ding et al., "SNN-RAT", NeurIPS 2022, as used by Ding et al., ICML 2024, section 5.1 (β 5e-4 and 1e-3 for VGG11 on CIFAR-10 and
    CIFAR-100, 4e-3 for WRN-16-4; without weight decay); after Cissé et al., "Parseval networks", arXiv:1704.08847, Algorithm 1.

    Raises `NoiseproofError` when a number is out of its range, or rows are to be drawn without a generator.

    Example:
        >>> w = torch.diag(torch.tensor([0.5, 1.0, 2.0]))
        >>> for _ in range(100):
        ...     RAT(beta=0.1)({"w": w})
        >>> [round(float(s), 4) for s in torch.linalg.svdvals(w)]
        [1.0, 1.0, 1.0]
    """

    MANY: ClassVar[int] = 200  # rows from which on only some are taken

    # β: size of the step
    beta: float = 5e-4
    # share of the rows of a dense layer with 200 rows or more that a step takes
    share: float = 0.3

    def __post_init__(self) -> None:
        require_number("beta", self.beta, 0, 1)
        require_number("share", self.share, 0, 1, open_low=True)

    def project(self, theta: Tensor, stream: torch.Generator | None) -> Tensor:
        if theta.ndim < 2:
            return theta
        if theta.ndim > 2 or len(theta) < self.MANY or self.share == 1:
            return self.retract(theta.flatten(1)).view_as(theta)
        if stream is None:
            raise NoiseproofError("stream is None: rat draws the rows of large layers; give a torch.Generator, or share = 1")
        taken = torch.randperm(len(theta), generator=stream, device=stream.device)[: round(self.share * len(theta))].to(theta.device)
        return theta.index_copy(0, taken, self.retract(theta[taken]))

    def retract(self, w: Tensor) -> Tensor:
        """Return (1 + β)·W − β·W·Wᵀ·W of a matrix."""
        # through the smaller of the two Gram matrices
        product = (w @ w.mT) @ w if w.shape[0] <= w.shape[1] else w @ (w.mT @ w)
        return torch.add(w, w - product, alpha=self.beta)


projection = RAT
