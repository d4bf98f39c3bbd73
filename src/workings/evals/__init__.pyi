from . import gsm8k as gsm8k
from . import hellaswag as hellaswag
from . import probes as probes
from .evaluation import evaluate as evaluate
