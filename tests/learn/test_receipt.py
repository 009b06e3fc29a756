"""What a receipt says of a batch depends on its numbers alone, not on how they lie in memory."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.learn.data.batches import LabelBatch  # noqa: E402
from inkstone.learn.data.shares import Portion  # noqa: E402
from inkstone.learn.receipt import digest_of_portions  # noqa: E402


@pytest.mark.parametrize("rows", [1, 2])
def test_a_part_of_a_batch_reads_as_the_same_rows_by_themselves(rows: int) -> None:
    """Every other row, as a second process takes them; of one row torch takes any stride for contiguous."""
    ids_BS, labels_B = torch.arange(20).reshape(4, 5), torch.tensor([3, 1, 2, 0])
    parts = [ids_BS[1 : 2 * rows : 2], labels_B[1 : 2 * rows : 2]]
    alone = [torch.tensor(part.tolist()) for part in parts]
    digests = [digest_of_portions([Portion(LabelBatch(*some, tokens=5 * rows))]) for some in (parts, alone)]
    assert digests[0] == digests[1]
