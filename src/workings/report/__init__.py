"""Reports: what an experiment found → report.html, report.md, figures and the numbers behind them.

Fill a `Report` with plain sections and give it to `write_report`. The public names are listed in `__init__.pyi` and
imported when they are first used (docs/decisions/0009), so that sections alone cost no matplotlib.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
