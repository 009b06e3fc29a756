"""`python -m inkstone` is `inkstone`; `torchrun -m inkstone` starts it in several processes."""

from __future__ import annotations

import sys

from inkstone.cli import main

if __name__ == "__main__":
    sys.exit(main())
