"""Rows of a Kafka topic, each message a JSON object; read on from the offset that is saved with what was learned.

confluent-kafka is an extra: pip install 'everlearn[kafka]'.
"""

import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from everlearn.errors import ConfigError, StreamError, check_choice, describe
from everlearn.registry import register
from everlearn.streams.arrivals import Arrival, Position, Waiter
from everlearn.streams.feeds import LiveSource, RowsFeed

STARTS = ("earliest", "group")
POLL_S = 0.2


@dataclass
class Topic:
    """The messages of all partitions that a topic has when reading begins; empty ones are left out.

    Offsets are never committed by themselves, only by `commit`. A reader goes on from its `position`, not from what
    the group committed: so what was learned and where to go on can't part.

    Args:
        servers: HOST:PORT, several with commas. topic, group: their names.
        start: where to begin without a position: earliest, or group (where the group committed, else earliest).
        follow: wait for messages to come; else end at each partition's end.
        options: settings of librdkafka beside these, such as security.protocol. answer_s: seconds that a broker has.
    """

    servers: str
    topic: str
    group: str
    start: str = "earliest"
    follow: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    answer_s: float = 10.0
    unit: str = field(default="message", init=False)
    can_be_woken: bool = field(default=True, init=False)
    _consumer: Any = field(default=None, init=False, repr=False)
    _committed: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """The topic and its servers."""
        return f"topic {self.topic} on {self.servers}"

    def read(self, position: Position | None, waiter: Waiter) -> Iterator[Arrival]:
        """Yield the messages after `position`; in order within a partition.

        Raises:
            StreamError: if no broker answers, there is no such topic, messages were deleted before they were read, or
                one can't be read.
        """
        from confluent_kafka import Consumer, KafkaError, KafkaException

        consumer = self._consumer = Consumer(
            {
                "bootstrap.servers": self.servers, "group.id": self.group, "enable.auto.commit": False,
                "enable.partition.eof": not self.follow, "auto.offset.reset": "error", **self.options,
            }
        )  # fmt: skip
        number = position["number"] if position else 0
        try:
            offsets = self._begin(consumer, position)
            ended: set[int] = set()
            while len(ended) < len(offsets) and not waiter.wait(0):
                message = consumer.poll(POLL_S)
                if message is None:
                    continue
                if message.error() is not None:
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(message.error())
                    ended.add(message.partition())
                    continue
                number += 1
                offsets = {**offsets, str(message.partition()): message.offset() + 1}
                if message.value() is not None:
                    yield Arrival(number, message.value(), {"number": number, "offsets": offsets})
        except KafkaException as error:
            way_out = "Check servers, topic and source.options"
            raise StreamError(describe(self.name, "can't be read", str(error.args[0]), way_out)) from error

    def commit(self, position: Position) -> None:
        """Commit a position for the group, for others to see; where a broker refuses, that is told."""
        from confluent_kafka import KafkaException, TopicPartition

        if self._consumer is None or position["offsets"] == self._committed:
            return
        places = [TopicPartition(self.topic, int(partition), at) for partition, at in position["offsets"].items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            warnings.warn(f"{self.name}: the group's offsets aren't committed: {error}", UserWarning, stacklevel=2)
        self._committed = position["offsets"]

    def close(self) -> None:
        """Leave the brokers; nobody may be reading."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def check_offset(self, partition: int, known: int, low: int) -> None:
        """Raise StreamError if the partition's first message, at `low`, lies behind the next one to be read."""
        if known < low:
            way_out = "Begin anew in another folder; keep messages longer (retention.ms)"
            what = f"messages of partition {partition} were deleted before they were learned"
            raise StreamError(describe(self.name, what, f"offsets {known} to {low}", way_out))

    def _begin(self, consumer: Any, position: Position | None) -> dict[str, int]:
        """Let the consumer begin where it should; return the next offset of each partition."""
        from confluent_kafka import KafkaException, TopicPartition

        found = consumer.list_topics(self.topic, timeout=self.answer_s).topics[self.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        places = [TopicPartition(self.topic, number) for number in sorted(found.partitions)]
        committed = consumer.committed(places, timeout=self.answer_s) if self.start == "group" else []
        of_group = {place.partition: place.offset for place in committed if place.offset >= 0}
        offsets = {}
        for place in places:
            low, _ = consumer.get_watermark_offsets(place, timeout=self.answer_s)
            begin = of_group.get(place.partition, low)
            known = begin if position is None else position["offsets"].get(str(place.partition), low)
            self.check_offset(place.partition, known, low)
            offsets[str(place.partition)] = place.offset = known
        consumer.assign(places)
        return offsets


@register("source", "kafka")
@dataclass(frozen=True)
class KafkaSource(LiveSource):
    """Rows of a Kafka topic; see `LiveSource`.

    Args:
        topic: its name. servers: HOST:PORT, several with commas.
        group: the consumer group, whose offsets are committed when what was learned is saved.
        start: where a new run begins: earliest, or group (where the group is). A resumed one goes on from the offsets
            saved with it.
        follow: wait for messages to come; else end where the partitions do.
        options: settings of librdkafka beside these, such as security.protocol.
    """

    topic: str
    servers: str = "localhost:9092"
    group: str = "everlearn"
    start: str = "earliest"
    follow: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("source.start", self.start, STARTS)
        if importlib.util.find_spec("confluent_kafka") is None:
            way_out = "Install it: pip install -c constraints.txt 'everlearn[kafka]'"
            raise ConfigError(describe("source.name", "needs confluent-kafka", "kafka", way_out))

    def arrivals(self) -> Topic:
        """Return the messages of the topic."""
        return Topic(self.servers, self.topic, self.group, self.start, self.follow, self.options)

    def first(self) -> bytes:
        topic, waiter = self.arrivals(), Waiter()
        try:
            arrival = next(topic.read(None, waiter), None)
        finally:
            topic.close()
            waiter.close()
        return b"" if arrival is None else arrival.raw

    def feed(self, seed: int, n_episodes: int) -> "KafkaFeed":
        return KafkaFeed(self)


@dataclass
class KafkaFeed(RowsFeed):
    """Rows of one run; the group's offsets are committed when they are saved with what was learned."""

    def saved(self, state: Mapping[str, Any]) -> None:
        if state["position"] is not None:
            self.arrivals.commit(state["position"])

    def close(self) -> None:
        super().close()
        self.arrivals.close()
