from augment import *
from augment import bmp_size as bmp_size
from augment import drawn as drawn
from augment import gif_size as gif_size
from augment import is_gif as is_gif
from augment import is_jpeg as is_jpeg
from augment import is_png as is_png
from augment import is_webp as is_webp
from augment import jpeg_size as jpeg_size
from augment import png_size as png_size
from augment import range_fault as range_fault
from augment import starts as starts
from augment import upright as upright
