#!/usr/bin/env bash
# Trains one group of operators after another, round after round, with verl on Ray. Started again after a stop, it goes
# on from the last checkpoint.
#
#   ./launch.sh [overrides of the configuration, such as actor_rollout_ref.model.path=/models/qwen]
#
# CHECKPOINTS  their folder, which all machines see (default: checkpoints, beside this file)
# RAY_ADDRESS  a Ray cluster that is up; without it, one is started on this machine, and stopped at the end
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD
checkpoints=${CHECKPOINTS:-$here/checkpoints}
mkdir -p "$checkpoints" logs

iterations_done() {
    cat "$checkpoints/latest_checkpointed_iteration.txt" 2>/dev/null || echo 0
}

if [[ -z ${RAY_ADDRESS:-} ]]; then
    ray start --head --disable-usage-stats
    trap 'ray stop' EXIT
    export RAY_ADDRESS=auto
fi
export WANDB_DIR=${WANDB_DIR:-$here}

begin=0
while read -r round group end <&3; do
    reached=$(iterations_done)
    if ((reached < end)); then
        state='[model,optimizer,extra]'
        if ((reached == begin)); then
            # a group begins with the weights alone of the one before: its own optimizer, its own order of problems
            state='[model]'
            rm -f "$checkpoints/global_step_$reached/data.pt"
        fi
        python -m verl.trainer.main_ppo --config-path "$here/config" --config-name countdown \
            "folder='$here'" "group='$group'" \
            "trainer.default_local_dir='$checkpoints'" \
            "trainer.experiment_name=round${round}_group_$group" \
            "trainer.total_training_steps=$end" \
            "trainer.val_before_train=$([[ $reached == 0 ]] && echo true || echo false)" \
            "actor_rollout_ref.actor.checkpoint.load_contents=$state" \
            "critic.checkpoint.load_contents=$state" \
            "$@" 2>&1 | tee -a "logs/round${round}_group_$group.log"
        reached=$(iterations_done)
        if ((reached < end)); then
            echo "round $round, group $group: verl ended after iteration $reached of $end; see logs/" >&2
            exit 1
        fi
    fi
    # of a group that is done the weights at its end are kept: no checkpoints on the way to them, no optimizers
    for folder in "$checkpoints"/global_step_*; do
        step=${folder##*_}
        if ((step > begin && step < end)); then rm -rf "$folder"; fi
    done
    rm -f "$checkpoints/global_step_$end"/*/optim_world_size_*.pt
    begin=$end
done 3<stages
echo "All $begin iterations are done: $checkpoints"
