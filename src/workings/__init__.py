"""Show your workings: where a small language model keeps its arithmetic, and whether a reading of it found anything.

The public names are listed in `__init__.pyi`, in the order a reader meets them, and imported when they are first used
(docs/decisions/0009): `import workings` costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
