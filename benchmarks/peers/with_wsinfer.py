"""Runs WSInfer's command in its own virtual environment, without downloading its list of published models."""

from wsinfer_zoo import client

client.load_registry = lambda registry_file=None: client.ModelRegistry(models={})

from wsinfer.cli.cli import cli  # noqa: E402 - it reads the list on import

if __name__ == "__main__":
    cli()
