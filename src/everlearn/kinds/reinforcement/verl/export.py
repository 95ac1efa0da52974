"""A recipe as a folder that verl trains from: data, configuration, reward, launch script. verl isn't needed for it."""

import os
import shutil
from importlib import resources
from pathlib import Path

from everlearn.config import write_yaml
from everlearn.errors import ConfigError, describe
from everlearn.kinds.reinforcement.recipe import ReinforcementRecipe
from everlearn.kinds.reinforcement.verl.config import config_of, stages_of
from everlearn.kinds.reinforcement.verl.data import write_data
from everlearn.kinds.reinforcement.verl.limits import check_recipe, check_share, gpus_of
from everlearn.kinds.reinforcement.verl.reward import reward_file
from everlearn.state import write_file, writing

AS_THEY_ARE = ("launch.sh", "README.md")


def export_verl(
    recipe: ReinforcementRecipe, out: Path, name: str = "countdown", tensor_parallel: int | None = None
) -> list[str]:
    """Write the folder `out`, which appears whole or not at all; return sentences that the user should know.

    `config/countdown.yaml` is a Hydra configuration upon verl's `ppo_trainer`; `data/GROUP/{train,test}.parquet` are
    the problems, drawn for a stream `countdown`, or copied from files; `reward.py` is the verifier's own source;
    `stages` has a line for each group of each round; `launch.sh` trains them; `README.md` says how.

    Args:
        recipe: of Countdown, with the learner ppo.
        out: a new folder.
        name: of the project, for trackers.
        tensor_parallel: GPUs that draw answers together, each with a part of the weights; by default as the recipe has
            it (`learner.vllm_tensor_parallel`).

    Raises:
        ConfigError: if the recipe asks for something that verl can't do, with the way out; or `out` exists.
        StreamError: if there are too few problems, or files are missing.
        StateError: if the folder can't be written.

    Cost: that of drawing or copying the problems: some 10 s for 400,000.
    """
    if out.exists():
        raise ConfigError(describe(str(out), "exists", out.name, "Name a new folder"))
    check_recipe(recipe)
    learner = recipe.build_learner()
    tensor_parallel = tensor_parallel or learner.vllm_tensor_parallel
    check_share("--tensor-parallel", tensor_parallel, gpus_of(recipe, learner))
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with writing(out):
        try:
            (aside / "config").mkdir(parents=True)
            groups, notes = write_data(recipe, aside / "data")
            stages = stages_of(recipe, learner, groups)
            config = config_of(recipe, learner, stages)
            config["trainer"]["project_name"] = name
            config["actor_rollout_ref"]["rollout"]["tensor_model_parallel_size"] = tensor_parallel
            _write(aside / "config/countdown.yaml", write_yaml(config))
            _write(aside / "stages", "".join(f"{one.round} {one.group.folder} {one.end}\n" for one in stages))
            _write(aside / "reward.py", reward_file(learner.reward))
            for file in AS_THEY_ARE:
                _write(aside / file, resources.files(__package__).joinpath(file).read_text(encoding="utf-8"))
            (aside / "launch.sh").chmod(0o755)
            os.rename(aside, out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return notes


def _write(path: Path, text: str) -> None:
    write_file(path, text.encode())
