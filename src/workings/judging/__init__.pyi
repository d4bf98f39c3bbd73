from .comparison import compare as compare
from .readings import readings_beside_controls as readings_beside_controls
from .scores import score as score
from .scores import skill as skill
from .verdict import verdict as verdict
