"""Which of the processes of one run this is, as torchrun says it in the environment.

A run of several processes has one leader, the process of rank 0: it alone speaks, writes and judges. Everybody else does
the same work on other data and is silent. Needs no torch, so that progress can ask.
"""

from __future__ import annotations

import os

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR")  # one of them alone may be somebody else's


def world() -> int:
    """How many processes the run has: 1 unless torchrun (or Ray) started this one."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _NEEDED) else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def leads() -> bool:
    """Whether this process speaks and writes for all."""
    return rank() == 0
