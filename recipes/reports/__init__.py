"""Write self-contained HTML pages about a run or a search."""
