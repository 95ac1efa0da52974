from everlearn.report.plot_cost import draw_cost
from everlearn.report.views import load_views


def test_a_bar_for_each_run_with_its_value(make_run):
    runs = {"plain": make_run("plain", ["a", "b"]), "ewc": make_run("ewc", ["a", "b"], ewc=2048)}
    figure = draw_cost(load_views(runs))
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["training time", "tokens trained on", "peak memory", "kept by strategies"]
    assert [bar.get_width() for bar in panels["kept by strategies"].patches] == [0, 2048]
    assert [text.get_text() for text in panels["kept by strategies"].texts] == ["0 B", "2 KiB"]
    assert [bar.get_width() for bar in panels["tokens trained on"].patches] == [128_000, 128_000]
