"""The benchmarks of a language model: HellaSwag, GSM8K and arithmetic probes, item by item.

The public names are listed in `__init__.pyi` and imported when they are first used (docs/decisions/0009).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
