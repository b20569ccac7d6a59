"""`cce-simulator`: run the simulator until SIGTERM or Ctrl-C.

Not for: use from Python; see cce_simulator.Simulator.
"""

import asyncio
import json
import signal
from pathlib import Path

import click

from cce_simulator.config import SimulatorConfig
from cce_simulator.model import ConfigError
from cce_simulator.server import Simulator


@click.command()
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65_535), help="Port; 0 takes a free one.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file; see cce_simulator.config. Default: one access key, one cluster, one empty pool.",
)
def main(bind: str, port: int, config_file: Path | None) -> None:
    """A local CCE API for tests and for trying things out. Prints `listening on URL` when it is ready."""
    try:
        config = SimulatorConfig() if config_file is None else _read(config_file)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--config") from error
    try:
        asyncio.run(_run(config, bind, port))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {bind}:{port}: {error.strerror}") from error


def _read(path: Path) -> SimulatorConfig:
    try:
        document = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    return SimulatorConfig.from_json(document)


async def _run(config: SimulatorConfig, bind: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Simulator(config, host=bind, port=port) as simulator:
        click.echo(f"listening on {simulator.url}")
        await stop.wait()


if __name__ == "__main__":
    main()
