"""Four languages and three scripts, a language a task, through a whole run."""

import json

from everlearn.config import Recipe, from_mapping
from everlearn.runs import run
from support.models import make_bert

TOPICS = ("food", "weather")
SENTENCES = {
    "eng_Latn": (
        ["The bread is warm.", "We cook soup.", "An apple fell."],
        ["It rains today.", "Snow fell.", "The wind is cold."],
    ),
    "deu_Latn": (
        ["Das Brot ist warm.", "Wir kochen Suppe.", "Äpfel sind süß."],
        ["Heute regnet es.", "Schnee fällt.", "Der Wind ist kühl."],
    ),
    "rus_Cyrl": (
        ["Хлеб тёплый.", "Мы варим суп.", "Яблоко упало."],
        ["Сегодня дождь.", "Выпал снег.", "Ветер холодный."],
    ),
    "hin_Deva": (["रोटी गर्म है।", "हम सूप पकाते हैं।", "सेब मीठा है।"], ["आज बारिश है।", "बर्फ गिरी।", "हवा ठंडी है।"]),
}


def test_a_stream_of_languages_is_learned(tmp_path, write):
    for code, by_topic in SENTENCES.items():
        rows = [
            {"text": text, "category": topic} for topic, texts in zip(TOPICS, by_topic, strict=True) for text in texts
        ]
        write(f"rows/{code}/test.jsonl", rows[2::3])
        write(f"rows/{code}/train.jsonl", [row for row in rows if row not in rows[2::3]])
    stream = {"name": "multilingual", "folder": str(tmp_path / "rows"), "order": list(SENTENCES)}
    built = from_mapping(Recipe, {"stream": stream}, "").build_stream().build()
    assert [task.train[0]["text"] for task in built] == [food[0] for food, _ in SENTENCES.values()]
    assert {task.labels for task in built} == {TOPICS}
    recipe = from_mapping(
        Recipe,
        {
            "stream": stream,
            "model": {"name": str(make_bert(tmp_path / "bert")), "head": "shared"},
            "learner": {"name": "sft", "epochs": 1},
        },
        "",
    )
    run(recipe, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert 0 <= results["summary"]["average_accuracy"]["mean"] <= 1
