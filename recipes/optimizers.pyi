from optimizers import *
from optimizers import AveragingOptimizer as AveragingOptimizer
