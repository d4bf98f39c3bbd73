from .budget import Budget as Budget
from .budget import planned as planned
from .distillation import distil as distil
from .parallel import World as World
from .parallel import world as world
from .pretraining import pretrain as pretrain
