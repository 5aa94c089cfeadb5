"""Run the command line as `python -m recipes`."""

from recipes.cli import main

main()
