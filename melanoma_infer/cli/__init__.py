"""The command line: the only code that imports typer, or prints."""
