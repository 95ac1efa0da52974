from countdown import our_problems, plain_problems

from everlearn.streams.countdown.groups import GROUPS, Space
from everlearn.streams.countdown.verify import Verdict, judge


def test_the_plain_loop_makes_what_ours_makes():
    for group in GROUPS:
        space = Space(group, max_number=30)
        found = plain_problems(space, 20, seed=0)
        assert len({(tuple(sorted(numbers)), target) for numbers, target, _ in found}) == 20
        assert [len(numbers) for numbers, _, _ in found] == [3, 4] * 10
        for numbers, target, text in found:
            assert judge(f"<answer>{text}</answer>", numbers, target, space.operators) is Verdict.RIGHT
    assert len(our_problems(Space("1", max_number=30), 200, seed=0)) == 200
