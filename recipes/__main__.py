"""`python -m recipes` is the command `recipes`."""

from recipes.cli import main

main()
