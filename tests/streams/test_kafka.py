"""Rows of a Kafka topic, from the mock broker that librdkafka brings: read, resumed and committed."""

import json

import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.registry import find
from everlearn.runs import run
from everlearn.streams.arrivals import Waiter
from everlearn.streams.kafka import KafkaSource, Topic
from support.labelled import labelled_recipe, labelled_row
from support.topics import mock_broker, send

confluent_kafka = pytest.importorskip("confluent_kafka")
LABELLED = [labelled_row(number) for number in range(12)]


@pytest.fixture(scope="module")
def broker():
    return mock_broker()


def read(topic, position=None):
    waiter = Waiter()
    try:
        return list(topic.read(position, waiter))
    finally:
        topic.close()
        waiter.close()


def committed(servers, group, topic):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": group})
    (place,) = consumer.committed([confluent_kafka.TopicPartition(topic, 0)], timeout=10)
    consumer.close()
    return place.offset


def test_messages_are_read_on_from_their_position_over_all_partitions(broker):
    producer, servers = broker
    send(producer, "parts", [{"n": 0}, {"n": 1}])
    send(producer, "parts", [{"n": 2}, {"n": 3}], partition=1)
    producer.produce("parts", None, key=b"k", partition=1)  # what a compacted topic marks a deletion by
    producer.flush(10)
    found = read(Topic(servers, "parts", "g", follow=False))
    assert sorted(json.loads(arrival.raw)["n"] for arrival in found) == [0, 1, 2, 3]
    assert [arrival.number for arrival in found][-1] in (4, 5)
    rest = read(Topic(servers, "parts", "g", follow=False), found[1].position)
    assert {arrival.raw for arrival in rest} == {arrival.raw for arrival in found[2:]}  # partitions come as they may
    assert len(rest) == 2


def test_a_new_run_may_begin_where_the_group_is(broker):
    producer, servers = broker
    send(producer, "groups", [{"n": n} for n in range(4)])
    topic = Topic(servers, "groups", "readers", start="group", follow=False)
    waiter = Waiter()
    second = [next(arrivals) for arrivals in [topic.read(None, waiter)] for _ in range(2)][1]
    topic.commit(second.position)
    topic.close()
    waiter.close()
    assert committed(servers, "readers", "groups") == 2
    rest = read(Topic(servers, "groups", "readers", start="group", follow=False))
    assert [json.loads(arrival.raw)["n"] for arrival in rest] == [2, 3]


def test_what_can_not_be_read_is_told(broker):
    _, servers = broker
    with pytest.raises(StreamError, match=r"topic rows on 127\.0\.0\.1:1: can't be read"):
        read(Topic("127.0.0.1:1", "rows", "g", options={"log_level": 0, "socket.timeout.ms": 100}, answer_s=0.5))
    topic = Topic(servers, "parts", "g", follow=False)
    with pytest.raises(StreamError, match="were deleted before they were learned"):
        topic.check_offset(0, known=3, low=5)
    with pytest.raises(ConfigError, match=r"source\.start: is unknown"):
        KafkaSource(topic="rows", start="latest")
    assert find("source", "kafka") is KafkaSource


def test_a_run_reads_a_topic_and_commits_what_it_learned_and_saved(bert, broker, tmp_path):
    producer, servers = broker
    send(producer, "learned", LABELLED)
    source = {"name": "kafka", "topic": "learned", "servers": servers, "group": "ours", "follow": False}
    assert run(labelled_recipe(bert, source), tmp_path / "run")["n"] == 12
    assert committed(servers, "ours", "learned") == 12
