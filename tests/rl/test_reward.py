"""Rewards by name, and functions from outside that return anything, hang, or end their process."""

import doctest
import os
import signal
import subprocess
import sys
import types
from multiprocessing import active_children

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn import registry
from everlearn.errors import ConfigError, TrainingError
from everlearn.registry import find, names
from everlearn.rl import reward as module
from everlearn.rl.reward import Rewards
from everlearn.streams.countdown.verify import reward, verify

ROW = {"numbers": [3, 5, 9], "target": 17}

OUTSIDE = """
import os, re, sys, time

def act(prompt, response, row):
    match response:
        case "raise": raise ValueError("no \\ud800 \\0")
        case "bare": raise Bare(1, 2)
        case "exit": sys.exit(2)
        case "syntax": eval("1 +")
        case "nan": return float("nan")
        case "huge": return 10**400
        case "none": return None
        case "text": return "1.0"
        case "no reward": return {"length": 3}
        case "bad part": return {"reward": 1.0, "length": None}
        case "parts": return {"reward": 1, "length": 5}
        case "right": return True
        case "torch": return "torch" in sys.modules
        case "row": return row["numbers"][0] + len(prompt)
        case "dies": os._exit(3)
        case "killed": os.kill(os.getpid(), 9)
        case "ends": os._exit(0)
        case "sleeps": time.sleep(1000)
        case "backtracks": re.match("(a+)+$", "a" * 100 + "b")
        case "late": time.sleep(0.1)
    return len(response) / 2

class Bare(BaseException):
    def __init__(self, one, two): super().__init__()

def accepts(response, row):
    return response == row["completion"]

def made():
    return lambda prompt, response, row: 1.0
"""


@pytest.fixture(scope="module", autouse=True)
def outside(tmp_path_factory):
    """The folder of the module outside_rewards, importable."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside_rewards.py").write_text(OUTSIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def rewards(outside):
    with Rewards.of("outside_rewards:act", time_limit_s=60.0) as started:
        yield started


def ask(rewards, *responses, prompt="Q", row=ROW):
    return rewards([prompt] * len(responses), responses, [row] * len(responses))


def test_the_example():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("name", "worth"),
    [("countdown", [1, 0.1, 0, 0]), ("countdown_attempts", [1, 0.02, 0, 0]), ("countdown_right", [1, 0, 0, 0])],
)
def test_rewards_of_countdown(name, worth):
    responses = [
        "<answer>3 + 5 + 9</answer>",
        "<think>3 + 5 - 9 = -1, 3 * 5 + 9 = 24</think><answer>3 * 5 + 9</answer>",
        "",
        "3 + 5 + 9",
    ]
    with Rewards.of(name) as rewards:
        found = ask(rewards, *responses)
        assert found.values.dtype == numpy.float64
        assert found.values.tolist() == worth
        assert found.parts == {}
        assert ask(rewards).values.shape == (0,)
        assert ask(rewards, responses[0], row={**ROW, "operators": "-"}).values[0] < 1


def test_a_prompt_that_ends_in_the_tag_has_the_response_go_on():
    with Rewards.of("countdown") as rewards:
        found = ask(rewards, "3 + 5 + 9", "3 + 5</answer>, no: 3 + 5 + 9", "nothing", prompt="Q <answer>")
    assert found.values.tolist() == [1.0, 0.1, 0.0]


PIECES = st.sampled_from(["<answer>", "</answer>", "<think>", "</think>", "3", "5", "9", "+", "*", "(", ")", " ", "٣"])
TEXTS = st.one_of(st.text(st.characters()), st.lists(PIECES, max_size=30).map("".join))


@settings(max_examples=200, deadline=None)
@given(response=TEXTS, tagged=st.booleans())
def test_rewards_of_countdown_agree_with_its_verifier(response, tagged):
    prompt = "Q <answer>" if tagged else "Q"
    right = verify(response, {**ROW, "prompt": prompt})
    worth = {name: find("reward", name)(prompt, response, ROW) for name in names("reward") if name != "verifier"}
    assert all((value == 1.0) == right for value in worth.values()), worth
    assert worth["countdown"] in (0.0, 0.1, 1.0)
    assert worth["countdown_right"] in (0.0, 1.0)
    assert right or 0 <= worth["countdown_attempts"] <= 0.1
    if not tagged:
        assert worth["countdown"] == reward(response, ROW["numbers"], ROW["target"])


def test_the_verifier_of_a_task_as_a_reward():
    with Rewards.of("verifier", verifier="countdown") as rewards:
        assert ask(rewards, "<answer>9 + 3 + 5</answer>", "<answer>3</answer>").values.tolist() == [1.0, 0.0]
    with Rewards.of("verifier", verifier="arena") as rewards:
        assert ask(rewards, "12.0", "13", row={"completion": " 12"}).values.tolist() == [1.0, 0.0]
    with Rewards.of("verifier") as rewards:
        assert ask(rewards, " yes\n", "no", row={"completion": " yes"}).values.tolist() == [1.0, 0.0]
        chat = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "yes"}]}
        assert ask(rewards, "yes", "?", row=chat).values.tolist() == [1.0, 0.0]


def test_a_verifier_from_outside_runs_in_workers(outside):
    with Rewards.of("verifier", verifier="outside_rewards:accepts", workers=1) as rewards:
        assert ask(rewards, "yes", "no", row={"completion": "yes"}).values.tolist() == [1.0, 0.0]
        assert rewards.outside.name == "outside_rewards:accepts"
        with pytest.raises(TrainingError, match=r"reward verifier: .* raises \"KeyError: 'completion'\""):
            ask(rewards, "yes")


def test_functions_from_outside(rewards):
    found = ask(rewards, "late", "abc", "", "parts", "right", "row", "torch", prompt="P" * 4)
    assert found.values.tolist() == [2.0, 1.5, 0.0, 1.0, 1.0, 7.0, 0.0]  # in order, though the first comes last
    assert list(found.parts) == ["length"]
    assert found.parts["length"][3] == 5
    assert numpy.isnan(numpy.delete(found.parts["length"], 3)).all()
    assert ask(rewards).values.shape == (0,)


def test_hostile_responses_reach_the_function_whole(rewards):
    responses = ["\ud800", "\0" * 3, "a" * 1_000_000, "\u2028\n\r", "🂡"]
    assert (ask(rewards, *responses).values * 2).tolist() == list(map(len, responses))


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        ("raise", r"raises 'ValueError: no \\ud800 \\x00'"),
        ("bare", "raises 'outside_rewards.Bare'"),
        ("exit", "raises 'SystemExit: 2'"),
        ("syntax", "raises .*SyntaxError: invalid syntax"),
        ("nan", "returns nan, which is not finite"),
        ("huge", "raises 'OverflowError: int too large"),
        ("none", "returns None, where a number should be"),
        ("text", "returns a str, where a number should be"),
        ("no reward", "returns a dict without 'reward'"),
        ("bad part", "returns None, where a number should be"),
        ("dies", r"ends its process \(exit code 3\)"),
        ("killed", r"ends its process \(exit code -9\)"),
        ("ends", "gives nothing within 0.5 s"),
        ("sleeps", "gives nothing within 0.5 s"),
    ],
)
def test_what_fails_is_named_with_the_response_and_the_rest_goes_on(rewards, response, fault, monkeypatch):
    monkeypatch.setattr(rewards, "time_limit_s", 0.5 if "within" in fault else 60.0)
    message = (
        rf"reward outside_rewards:act: on this response to 'Q' it {fault}.* Got '{response}'. .* everlearn resume."
    )
    with pytest.raises(TrainingError, match=message):
        ask(rewards, "fine", response, "raise" if response != "raise" else "nan", *["fine"] * 3)
    monkeypatch.undo()
    assert ask(rewards, "four").values.tolist() == [2.0]


def test_a_long_response_is_cut(rewards):
    with pytest.raises(TrainingError) as caught:
        Rewards("long", lambda prompt, response, row: None, None, 1.0, 1)(["P" * 10**6], ["R" * 10**6], [{}])
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("countdwn", {}, "is no reward. Got 'countdwn'. Did you mean 'countdown'"),
        ("no_such_module:f", {}, "can't be imported"),
        ("outside_rewards:os", {}, "can't be a reward. .* Name a function .prompt, response, row."),
        ("local", {}, "can't be imported"),
        ("verifier", {"verifier": "countdwn"}, "is no verifier"),
        ("countdown", {"time_limit_s": 0}, "time_limit_s: is out of range"),
        ("countdown", {"workers": 0}, "workers: is out of range"),
    ],
)
def test_what_is_no_reward_is_told_at_once(name, options, message, monkeypatch):
    names("reward")
    monkeypatch.setitem(registry._entries["reward"], "local", lambda prompt, response, row: 1.0)
    with pytest.raises(ConfigError, match=message):
        Rewards.of(name, **options)


def test_a_reward_registered_from_outside_runs_in_workers(monkeypatch):
    names("reward")
    monkeypatch.setitem(registry._entries["reward"], "acted", find("reward", "outside_rewards:act"))
    assert Rewards.of("acted").outside.name == "outside_rewards:act"
    assert Rewards.of("everlearn.rl.reward:countdown").outside is None


def test_what_only_this_process_can_import(monkeypatch):
    made_up = types.ModuleType("made_up_rewards")
    made_up.score = lambda prompt, response, row: 1.0
    monkeypatch.setitem(sys.modules, "made_up_rewards", made_up)
    rewards = Rewards.of("made_up_rewards:score", workers=1)
    with pytest.raises(TrainingError, match=r"as a worker process imports it, it fails: .*No module named"):
        rewards.__enter__()
    assert rewards._pool is None


def test_workers_that_are_killed_at_rest_are_told_of():
    others = set(active_children())
    with Rewards.of("outside_rewards:act", workers=1) as rewards:
        for worker in set(active_children()) - others:
            worker.kill()
        with pytest.raises(TrainingError, match=r"ends its process, here or soon after|ended while it had nothing"):
            ask(rewards, "")


def test_misuse():
    with pytest.raises(RuntimeError, match="in a `with` block"):
        ask(Rewards.of("outside_rewards:act"), "")
    with Rewards.of("countdown") as rewards, pytest.raises(ValueError, match=r"longer|shorter"):
        rewards(["Q"], ["one", "two"], [ROW])


def test_an_interrupt_comes_through_and_leaves_no_process():
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before, processes = signal.signal(signal.SIGALRM, interrupt), set(active_children())
    try:
        with Rewards.of("outside_rewards:act", time_limit_s=600.0) as rewards:
            assert len(set(active_children()) - processes) == 2
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                ask(rewards, *["sleeps"] * 4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(active_children()) <= processes


KILLED = """
import os, threading
from everlearn.rl.reward import Rewards

if __name__ == "__main__":
    with Rewards.of("outside_rewards:act", time_limit_s={limit_s}) as rewards:
        threading.Timer(0.2, os.kill, (os.getpid(), 9)).start()
        rewards(["Q"] * 2, ["{response}"] * 2, [{{}}] * 2)
"""


@pytest.mark.parametrize(("response", "limit_s"), [("sleeps", 600.0), ("backtracks", 0.5)])
def test_workers_end_with_a_parent_that_is_killed(outside, response, limit_s):
    script = outside / f"{response}.py"
    script.write_text(KILLED.format(response=response, limit_s=limit_s))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # the output ends when the last process that may write to it has
    done = subprocess.run([sys.executable, script], capture_output=True, timeout=60, env=environment)
    assert done.returncode == -signal.SIGKILL
