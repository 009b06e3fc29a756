"""Opening a model of CTranslate2, the one way for all who do.

CTranslate2 tells OpenMP how many threads it wants while a model is opened, and OpenMP remembers that for the thread that
asked. torch shares this OpenMP: a training that follows in the same thread would run on another number of threads, and
end with other weights in the last bits. So models are opened in a thread that ends.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

from inkstone.ground.errors import BundleError, require

SMALL = 64_000_000  # bytes of a model whose matrices are not worth sharing between threads
Kind = Literal["Translator", "Generator", "Encoder"]


def opened(kind: Kind, folder: Path, threads: int) -> Any:
    """A ctranslate2.Translator, Generator or Encoder. threads: 0 takes all cores. Raises BundleError if it will not open.

    A small translator does as many batches at a time as there are threads, each on one: threads that share its small
    matrices wait for each other more than they work (docs/journal.md). Large ones share each matrix.
    """
    require("ctranslate2", "running this model", "serve")
    import ctranslate2

    ctranslate2.set_log_level(40)  # errors only: no notes about types this processor does not have
    count = threads or os.cpu_count() or 1
    try:
        apart = kind == "Translator" and (folder / "model.bin").stat().st_size < SMALL
        shared = {"inter_threads": count, "intra_threads": 1} if apart else {"intra_threads": count}
        make = partial(
            getattr(ctranslate2, kind), str(folder), device="cpu", compute_type="default", **shared
        )
        with ThreadPoolExecutor(1) as passing:
            return passing.submit(make).result()
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(f"{folder} cannot be opened by CTranslate2: {error}") from error
