"""Text in and out of models: tokenizers, corpora, and the data sets that references name.

The public names are listed in `__init__.pyi` and imported when they are first used (docs/decisions/0009).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
