from layers import *
from layers import training_mode as training_mode
