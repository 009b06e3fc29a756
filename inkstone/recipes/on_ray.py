"""A recipe on a Ray cluster: `inkstone train translate ... --on ray://HOST:PORT`, or `--on ray` for one on this machine.

    driver      this process: starts the others, waits, passes on the report or the message of what went wrong
    workers     Ray Train starts them with their ranks in the environment and joins them by gloo (NCCL on GPUs);
                each runs the recipe as under torchrun (`learn.distributed`)
    Ray Data    tokenises the texts, on all machines (`learn.cluster`)

All machines see the data and the folder of the run under the same paths, and have Inkstone installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inkstone.ground.errors import ConfigError, InkstoneError, TrainingError, require
from inkstone.recipes.run import run_folder

RAY = "ray"  # what Ray Train keeps of a run, in the run's folder
Train = Callable[[Any, Path], dict[str, Any]]


def on_ray(train: Train, address: str, workers: int = 2) -> Train:
    """The same training function, run by the workers of a Ray cluster.

    address: "ray" starts a cluster on this machine for as long as it takes; "ray://HOST:PORT" uses one that stands.
    Raises ConfigError for another address, MissingPackage without Ray.
    """
    if address != "ray" and not address.startswith("ray://"):
        raise ConfigError(
            f'--on "{address}" is no cluster. Valid: ray (one on this machine), ray://HOST:PORT. '
            "For several processes without Ray, use torchrun."
        )
    if workers < 1:
        raise ConfigError(f"--workers {workers} must be at least 1.")
    require("ray", "training on a cluster", "cluster")
    return lambda recipe, out: _trained(train, recipe, out, address, workers)


def _trained(train: Train, recipe: Any, out: Path, address: str, workers: int) -> dict[str, Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    if address == "ray":  # a CPU for each worker, and some for Ray Data
        cores = max(os.cpu_count() or 1, workers + 1)
        ray.init(num_cpus=cores, include_dashboard=False, logging_level="ERROR")
    else:
        ray.init(address, logging_level="ERROR")
    try:
        gpus = ray.cluster_resources().get("GPU", 0) >= workers
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "train": train,
                "recipe": recipe,
                "out": str(out.absolute()),
                "folder": str(Path.cwd()),
            },
            torch_config=TorchConfig(backend=None if gpus else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
            run_config=RunConfig(name=RAY, storage_path=str(run_folder(out).absolute())),
        )
        result: dict[str, Any] = trainer.fit().return_value
        shutil.rmtree(run_folder(out) / RAY, ignore_errors=True)
    except TrainingFailedError as error:
        raise _first(error) from error
    finally:
        ray.shutdown()
    return result


def _work(given: dict[str, Any]) -> dict[str, Any]:
    """What each worker does; the first one's result is everybody's."""
    from inkstone.learn.cluster import ON_RAY

    os.chdir(given["folder"])  # data may be given by paths from where the driver stands
    os.environ[ON_RAY] = "1"
    result: dict[str, Any] = given["train"](given["recipe"], Path(given["out"]))
    return result


def _first(error: Any) -> Exception:
    """What the first worker had to say, if it was the caller's fault; what Ray says of it, if not."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, InkstoneError):
            return type(cause)(str(cause))
    return TrainingError(f"training on the cluster failed. {error}")
