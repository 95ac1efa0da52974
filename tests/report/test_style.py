from everlearn.report.style import COLOURS, labels, new_figure, run_style, save


def test_labels_can_be_drawn_and_differ():
    names = ["plain", "a" * 40 + "x" * 40, "a" * 40 + "y" + "x" * 40, "price $x$", "\U0010fffd", ""]
    found = labels(names, "run", 20)
    assert found[0] == "plain"
    assert found[1:3] == ["run 2", "run 3"]  # alike once shortened
    assert found[3] == r"price \$x\$"
    assert found[4:] == ["run 5", "run 6"]


def test_28_runs_look_different():
    looks = [tuple(run_style(i).values()) for i in range(4 * len(COLOURS))]
    assert len(set(looks)) == len(looks)


def test_a_picture_is_written_without_pyplot(tmp_path):
    figure = new_figure(2, 1)
    figure.subplots().set_title(labels(["$\\frac{$"], "run", 20)[0])
    save(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
