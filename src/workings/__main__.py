"""`python -m workings` and `torchrun … -m workings`: the program itself."""

import sys

from workings.cli import main

sys.exit(main())
