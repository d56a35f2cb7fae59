"""torch's composite functions are run through, with masks that are traced."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.qat import placement
from trt_qat.qat.placement import attention


def test_masks_of_attentions_may_be_traced() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(32, 2, 32, batch_first=True)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
            return self.layer(x, src_mask=mask)

    x, mask = torch.randn(2, 4, 32), torch.zeros(4, 4)
    for batch in ((x, mask), x):
        trace = placement.trace(Encoder().eval(), batch)
        assert not trace.untraced
    assert attention._dtype(None) is None
    assert attention._dtype(x) is torch.float32
    assert attention.code_of(F.relu) is None
    assert attention.code_of("relu") is None
    assert attention.code_of(F.multi_head_attention_forward) is not None
