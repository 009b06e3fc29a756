"""Work on a Ray cluster: many texts tokenised by all its machines, before the processes of a run train on them.

Ray Train starts the processes (`recipes.on_ray`) as torchrun would; here Ray Data does what each of them would otherwise
do for itself. Outside such a cluster, or for few items, the work is simply done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from inkstone.ground.processes import leads

T = TypeVar("T")
R = TypeVar("R")
ON_RAY = "INKSTONE_ON_RAY"  # set in the processes that Ray Train started
BLOCK = 1000  # items that go through the work at once; fewer are not worth a journey


def in_blocks(work: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """work(items), which gives one result for each item: by all machines of the cluster, where there is one.

    Results are numbers and lists of them. All processes of the run have to call it; the leader has the work done and
    shares what comes of it.
    """
    if ON_RAY not in os.environ or len(items) < BLOCK:
        return work(items)
    import torch
    import torch.distributed as dist

    shared: list[Any] = [by_ray_data(work, items) if leads() else None]
    dist.broadcast_object_list(shared, src=0, device=torch.device("cpu"))
    results: list[R] = shared[0]
    return results


def by_ray_data(work: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """The same by Ray Data: each row of its data set names a block of items, and gets what comes of it as JSON."""
    import ray
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    shared = ray.put((work, list(items)))

    def worked(row: dict[str, Any]) -> dict[str, Any]:
        do, everything = ray.get(shared)
        start = int(row["start"])
        return {"start": start, "found": json.dumps(do(everything[start : start + BLOCK]))}

    rows = [{"start": start} for start in range(0, len(items), BLOCK)]
    found = ray.data.from_items(rows).map(worked).take_all()
    found.sort(key=lambda row: int(row["start"]))
    return [result for row in found for result in json.loads(row["found"])]
