"""Run by WSInfer's own Python: its command, with no published models, whose list it would ask the network for."""

from wsinfer_zoo import client

client.load_registry = lambda registry_file=None: client.ModelRegistry(models={})

from wsinfer.cli.cli import cli  # noqa: E402 - it reads the list when it is imported

if __name__ == "__main__":
    cli()
