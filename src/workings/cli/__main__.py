"""`python -m workings.cli`: the same program where the script is not on the path."""

from __future__ import annotations

import sys

from workings.cli import main

sys.exit(main())
