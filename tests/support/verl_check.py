"""What verl makes of an exported folder; run by a Python that has verl: FOLDER [overrides]. Prints JSON.

The configuration is composed and validated as `verl.trainer.main_ppo` does before it trains, then its data and its
reward are loaded as verl loads them.
"""

import json
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import create_rl_dataset, need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

folder = Path(sys.argv[1]).resolve()
overrides = [f"folder={folder}", *sys.argv[2:]]
with initialize_config_dir(str(folder / "config"), version_base=None):
    config = compose("countdown", overrides=overrides)
uses = {"use_reference_policy": need_reference_policy(config), "use_critic": need_critic(config)}
validate_config(config=config, **uses)
tokenizer = omega_conf_to_dataclass(config.actor_rollout_ref.model).tokenizer
reward = get_custom_reward_fn(config)
data = {}
for split in ("train", "val"):
    rows = create_rl_dataset(config.data[f"{split}_files"], config.data, tokenizer, None)
    row = rows[0]
    asked = tokenizer.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=False)
    given = {"data_source": row["data_source"], "ground_truth": row["reward_model"]["ground_truth"]}
    solution = row["completion"][0]["content"]
    data[split] = {
        "n": len(rows), "sources": sorted(set(rows.dataframe["data_source"])), "asked": asked,
        "scores": [reward(**given, solution_str=text, extra_info=row["extra_info"]) for text in (solution, "?")],
    }  # fmt: skip
print(json.dumps({"config": OmegaConf.to_container(config, resolve=True), **uses, "data": data}))
