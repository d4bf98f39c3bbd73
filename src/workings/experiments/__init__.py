"""One file = one question, read top to bottom: its docstring, its config, its arms, what one arm does, and the report."""
