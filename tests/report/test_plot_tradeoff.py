from everlearn.evaluation.stats import Interval
from everlearn.evaluation.tradeoff import Option, choose
from everlearn.report.plot_tradeoff import draw_tradeoff

OPTIONS = [Option("none", 0.3, 0.4, 1.0, 0, 1.0)] + [
    Option(f"method {i}", 0.5 + 0.03 * i, 0.8 + 0.01 * i, 0.9 - 0.005 * i, 1000 * i, 1.0 + 0.1 * i) for i in range(1, 9)
]
SCORES = {option.name: Interval(option.score, option.score - 0.1, option.score + 0.1) for option in OPTIONS}


def drawn(**changes):
    choice = choose(OPTIONS, lambda first, second: Interval(1.0, 0.5, 1.5))
    return draw_tradeoff(OPTIONS, choice, SCORES, **changes)


def test_methods_stand_at_retention_over_plasticity_and_by_score():
    left, right = drawn(joint=0.9).axes
    spots = {tuple(dots.get_offsets()[0]) for dots in left.collections}
    assert spots == {(option.plasticity, option.retention) for option in OPTIONS}
    names = [label.get_text() for label in right.get_yticklabels()]
    assert names == [option.name for option in sorted(OPTIONS, key=lambda option: -option.score)]
    assert [label.get_text() for label in right.get_yticklabels() if label.get_fontweight() == "bold"] == ["method 8"]
    assert "share of joint training" in left.get_xlabel()


def test_without_joint_training_and_without_shares():
    left, _ = drawn(shares=False, of_joint=False).axes
    assert "joint" not in left.get_xlabel()
    assert "−" in left.get_ylabel()


def test_captions_do_not_overlap():
    figure = drawn(joint=0.9)
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
