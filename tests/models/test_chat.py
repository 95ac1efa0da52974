import random
import re

import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.models.causal import CausalObjective
from everlearn.models.chat import CHATML, ChatFormat, as_messages, give_template, wraps
from everlearn.models.objectives import IGNORED
from everlearn.types import Task
from support.chat import ENDS, TEMPLATES, chat_tokenizer, turns
from support.models import byte_tokenizer

MARKED = [name for name in TEMPLATES if name != "plain"]


def task(*rows):
    return Task("t", "prompt", list(rows), [])


def encoded(objective, row):
    (feature,) = objective.encode([row], task(row))
    return feature["input_ids"], [i for i in feature["labels"] if i != IGNORED]


def objective_of(template, **options):
    return CausalObjective(chat_tokenizer(template), 512, **options)


@pytest.mark.parametrize("template", MARKED)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_ids_are_those_of_the_template_itself_and_targets_begin_where_it_asks(template, system):
    tokenizer, messages = chat_tokenizer(template), turns("1+1?", "2", "2+2?", "4", system=system)
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    ids, targets = encoded(CausalObjective(tokenizer, 512), {"messages": messages})
    assert ids == whole
    assert targets == whole[len(asked) :]
    assert ids.count(tokenizer.bos_token_id) <= 1
    assert tokenizer.convert_tokens_to_ids(ENDS[template]) in targets


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_conversation_tokenized_once_has_the_ids_of_its_prompt_and_of_the_whole(template):
    chat, draw = ChatFormat.of(chat_tokenizer(template)), random.Random(0)
    pieces = ["a", " b", "\n", "\n\n", "  ", "é", "🙂", "<|im_end|>", "[INST]", "<eos>", "<think>x</think>", "."]
    contents = ["".join(draw.choices(pieces, k=draw.randint(1, 6))) + "c" for _ in range(160)]
    texts = [chat.texts(turns(*contents[low : low + 4])) for low in range(0, 160, 4)]
    for (prompt, answer), told in zip(texts, chat.encode(texts), strict=True):
        whole, asked = chat.ids(prompt + answer), chat.ids(prompt)
        wanted = whole if whole[: len(asked)] == asked else asked + chat.ids(answer)
        assert told.ids[: len(wanted)] == wanted
        assert told.n_asked == len(asked)


def test_of_a_prompt_only_what_follows_its_last_mark_is_tokenized_again():
    chat, seen = ChatFormat.of(chat_tokenizer("chatml")), []
    texts = [chat.texts(turns(f"{i}+1?", f"{i + 1}")) for i in range(5)]
    tokenizer = chat.tokenizer
    counting = ChatFormat(lambda text, **options: seen.append(text) or tokenizer(text, **options), chat.end_id)
    vars(counting)["_marks"] = chat._marks
    vars(counting.tokenizer).update(eos_token_id=tokenizer.eos_token_id)
    counting.encode(texts)
    assert seen == [[prompt + answer for prompt, answer in texts], "<|im_start|>assistant\n"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_generated_from_is_the_prompt_that_is_served(template):
    objective, messages = objective_of(template), turns("1+1?", "2")
    served = objective.tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert objective.questions([{"messages": messages}], 8) == [served]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_turn_ends_where_the_template_ends_it(template):
    objective = objective_of(template)
    end = objective.tokenizer.convert_tokens_to_ids(ENDS[template])
    assert end in objective.stop_ids
    _, targets = encoded(objective, {"messages": turns("1+1?", "2")})
    assert objective.answer_of(targets) == "2"
    assert end in targets
    assert objective.right_answer({"messages": turns("1+1?", "2")}) == "2"


def test_a_template_without_an_end_of_turn_gets_the_tokenizer_s_end_after_it():
    ids, _ = encoded(objective_of("plain"), {"messages": turns("1+1?", "2")})
    tokenizer = chat_tokenizer("plain")
    whole = tokenizer.apply_chat_template(turns("1+1?", "2"), return_dict=False)
    assert ids == [*whole, tokenizer.eos_token_id]


def test_thoughts_of_an_answer_are_no_part_of_it():
    objective = objective_of("qwen3")
    for answer in ("<think>\n\n</think>\n\n4", "<think>\ntwo and two\n</think>\n\n4", "4"):
        assert objective.answer_of(objective.tokenizer(answer, add_special_tokens=False)["input_ids"]) == "4"


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_turn_of_the_assistant_is_learned_where_asked_for(template):
    objective = objective_of(template)
    objective.train_on = "all"
    row = {"messages": turns("1+1?", "2", "2+2?", "4", "3+3?", "6", system="Be brief.")}
    (feature,) = objective.encode([row], task(row))
    assert [i for i, label in zip(feature["input_ids"], feature["labels"], strict=True) if label == i]
    spans = objective.tokenizer.decode([i if i != IGNORED else 0 for i in feature["labels"]])
    written = [part for part in re.split(r"(?:<pad>)+", spans) if part]
    assert len(written) == 3
    for part, answer in zip(written, ("2", "4", "6"), strict=True):
        assert answer in part
        assert "?" not in part
        assert "brief" not in part
    assert all(ENDS[template] in part for part in written) or template == "plain"
    (scored,) = objective.encode_answers([row], task(row))
    assert [i for i in scored["labels"] if i != IGNORED] == [i for i in feature["labels"] if i != IGNORED][
        -sum(i != IGNORED for i in scored["labels"]) :
    ]


def test_earlier_turns_that_the_template_writes_anew_are_refused_by_name():
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = (
        "{{ messages | length }}:{% for m in messages %}{{ m['content'] }};{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    objective = CausalObjective(tokenizer, 512)
    objective.train_on = "all"
    row = {"messages": turns("a", "b", "c", "d")}
    with pytest.raises(StreamError, match=r"task 't', row 1: .*writes message 2 otherwise.*train_on: last"):
        objective.encode([row], task(row))
    objective.train_on = "last"
    ids, targets = encoded(objective, row)  # the prompt that is served, and the answer as it is written after it
    assert tokenizer.decode(ids) == "3:a;b;c;>d;<eos>"
    assert tokenizer.decode(targets) == "d;<eos>"


def test_a_template_s_own_refusal_is_one_sentence_with_the_row():
    objective = objective_of("gemma3")
    rows = [{"messages": turns("1+1?", "2")}, {"messages": [turns("a")[0], *turns("b", "c")]}]
    with pytest.raises(StreamError, match=r"task 't', row 2: the model's chat template refuses it .Roles must"):
        objective.encode(rows, task(*rows))


def test_messages_need_a_template_and_the_error_names_the_way_out():
    row = {"messages": turns("a", "b")}
    with pytest.raises(StreamError, match=r"no chat template.*model\.chat_template: chatml"):
        CausalObjective(byte_tokenizer(), 64).encode([row], task(row))


def test_what_else_a_message_holds_reaches_the_template_and_nothing_is_added():
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content if m.content is defined else '-' }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %};{% endfor %}"
        "{% if tools %}{{ tools | length }} tools{% endif %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    call = {"type": "function", "function": {"name": "look", "arguments": {"city": "x"}}}
    messages = [turns("a")[0], {"role": "assistant", "content": None, "tool_calls": [call]}, *turns("b", "c")]
    prompt, answer = CausalObjective(tokenizer, 64).prompt_and_completion({"messages": messages, "tools": [{}, {}]})
    assert prompt == 'user:a;assistant:-{"city": "x"};user:b;2 toolsassistant:'
    assert answer == "c;2 tools"


def test_prompts_and_completions_become_turns_where_wanted():
    row = {"prompt": "Question: 1+1\n", "completion": " 2"}
    assert as_messages(row) == [{"role": "user", "content": "Question: 1+1"}, {"role": "assistant", "content": "2"}]
    assert as_messages({"prompt": "def f():\n", "completion": "\n    return 2\n"})[1]["content"] == "    return 2"
    tokenizer = chat_tokenizer("llama3")
    ids, targets = encoded(CausalObjective(tokenizer, 512, chat=True), row)
    assert ids == tokenizer.apply_chat_template(as_messages(row), return_dict=False)
    assert tokenizer.decode(targets) == "2<|eot_id|>"
    ids, targets = encoded(CausalObjective(tokenizer, 512, chat=False), row)
    assert tokenizer.decode(ids) == "<bos>Question: 1+1\n 2<eos>"
    assert tokenizer.decode(targets) == " 2<eos>"


def test_whether_they_become_turns():
    assert wraps("auto", chat_tokenizer("chatml"))
    assert not wraps("auto", byte_tokenizer())
    assert not wraps("never", chat_tokenizer("chatml"))
    with pytest.raises(ConfigError, match=r"model\.chat: the tokenizer has no chat template"):
        wraps("always", byte_tokenizer())


def test_a_tokenizer_is_given_a_template(tmp_path):
    tokenizer = byte_tokenizer()
    n = len(tokenizer)
    assert give_template(tokenizer, "chatml") == ["<|im_start|>", "<|im_end|>"]
    assert tokenizer.chat_template == CHATML
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == n + 1
    assert ChatFormat.of(tokenizer).end_id == n + 1
    assert give_template(chat_tokenizer("plain"), "chatml") == []  # the marks are there already
    path = tmp_path / "own.jinja"
    path.write_text("{% for m in messages %}<|turn|>{{ m['content'] }}{% endfor %}")
    assert give_template(byte_tokenizer(), str(path)) == ["<|turn|>"]
    path.write_text("{% for m in messages %}")
    with pytest.raises(ConfigError, match=r"model\.chat_template: can't be used"):
        give_template(byte_tokenizer(), str(path))
    path.write_text("hello")
    with pytest.raises(ConfigError, match="leaves the messages out"):
        give_template(byte_tokenizer(), str(path))
    with pytest.raises(ConfigError, match="can't be read"):
        give_template(byte_tokenizer(), str(tmp_path / "none"))
