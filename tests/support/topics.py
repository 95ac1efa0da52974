"""A Kafka broker for tests: the mock that librdkafka has within a client, which other clients and processes reach."""

import json
from typing import Any


def mock_broker() -> tuple[Any, str]:
    """Return a producer, which holds the broker, and the address where it listens."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": "unused:1", "test.mock.num.brokers": 1, "log_level": 0})
    (found,) = producer.list_topics(timeout=10).brokers.values()
    return producer, f"{found.host}:{found.port}"


def send(producer: Any, topic: str, rows: list[dict[str, Any]], partition: int = 0) -> None:
    """Send rows to a topic."""
    for row in rows:
        producer.produce(topic, json.dumps(row).encode(), partition=partition)
    assert producer.flush(10) == 0
