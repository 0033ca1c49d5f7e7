// Apache Kafka's Java client behind the runner's commands (see ../README.md). It only tells what the client did.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public final class Driver {
    private static final ObjectMapper JSON = new ObjectMapper();
    private final String bootstrap;
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();
    private final Map<TopicPartition, Long> positions = new HashMap<>();
    private final Map<String, KafkaConsumer<byte[], byte[]>> members = new HashMap<>();
    private KafkaConsumer<byte[], byte[]> consumer;
    private Admin admin;

    private Driver(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) throws Exception {
        Driver driver = new Driver(args[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            System.out.println(JSON.writeValueAsString(driver.answer(JSON.readTree(line))));
            System.out.flush();
        }
        System.exit(0);
    }

    private ObjectNode answer(JsonNode c) {
        ObjectNode out = JSON.createObjectNode();
        try {
            switch (c.get("op").asText()) {
                case "hello" -> out.put("client", "java").put("version", AppInfoParser.getVersion());
                case "produce" -> produce(c, out);
                case "consume" -> consume(c, out);
                case "offsets" -> offsets(c, out);
                case "time" -> out.put("offset", time(partition(c), c.get("ts").asLong()));
                case "create" -> create(c);
                case "delete" -> admin().deleteTopics(List.of(c.get("topic").asText())).all().get(20, TimeUnit.SECONDS);
                case "configs" -> configs(c, out);
                case "metadata" -> metadata(c, out);
                case "administer" -> administer(partition(c), out);
                case "join" -> join(c);
                case "take" -> take(c, out);
                case "commit" -> commit(c, out);
                case "leave" -> members.remove(c.get("member").asText()).close();
                default -> throw new IllegalArgumentException("unknown command " + c.get("op"));
            }
            return out.put("ok", true);
        } catch (Exception e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            return out.put("ok", false).put("code", (int) Errors.forException(cause).code()).put("error", cause.toString());
        }
    }

    private Map<String, Object> base() {
        Map<String, Object> m = new HashMap<>();
        m.put("bootstrap.servers", bootstrap);
        m.put("metadata.max.age.ms", 1000);
        m.put("reconnect.backoff.max.ms", 500);
        m.put("request.timeout.ms", 10000);
        return m;
    }

    private static String text(JsonNode c, String name, String otherwise) {
        return c.hasNonNull(name) ? c.get(name).asText() : otherwise;
    }

    private static byte[] bytes(JsonNode n) {
        return n == null || n.isNull() ? null : Base64.getDecoder().decode(n.asText());
    }

    private static String b64(byte[] b) {
        return b == null ? null : Base64.getEncoder().encodeToString(b);
    }

    private static TopicPartition partition(JsonNode c) {
        return new TopicPartition(c.get("topic").asText(), c.get("p").asInt());
    }

    private KafkaProducer<byte[], byte[]> producer(JsonNode c) {
        Map<String, Object> m = base();
        m.put("compression.type", text(c, "codec", "none"));
        m.put("acks", text(c, "acks", "-1"));
        m.put("enable.idempotence", text(c, "idempotent", "false"));
        m.put("batch.size", text(c, "batch_bytes", "65536"));
        m.put("max.request.size", text(c, "max_request", "1000000"));
        m.put("delivery.timeout.ms", text(c, "delivery_ms", "30000"));
        m.put("linger.ms", 100);
        m.put("max.block.ms", 20000);
        return producers.computeIfAbsent(m.toString(), k -> new KafkaProducer<>(m, new ByteArraySerializer(), new ByteArraySerializer()));
    }

    private void produce(JsonNode c, ObjectNode out) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producer(c);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode r : c.get("records")) {
            List<Header> headers = new ArrayList<>();
            for (JsonNode h : r.get("h")) {
                headers.add(new RecordHeader(h.get(0).asText(), bytes(h.get(1))));
            }
            Long ts = r.hasNonNull("ts") ? r.get("ts").asLong() : null;
            sent.add(producer.send(new ProducerRecord<>(c.get("topic").asText(), r.get("p").asInt(), ts, bytes(r.get("k")), bytes(r.get("v")), headers)));
        }
        producer.flush();
        ArrayNode offsets = out.putArray("offsets");
        for (Future<RecordMetadata> f : sent) {
            RecordMetadata got = f.get();
            offsets.add(got.hasOffset() ? got.offset() : -1);
        }
    }

    private KafkaConsumer<byte[], byte[]> consumer() {
        if (consumer == null) {
            Map<String, Object> m = base();
            m.put("enable.auto.commit", false);
            m.put("auto.offset.reset", "none");
            m.put("fetch.max.wait.ms", 100);
            m.put("max.partition.fetch.bytes", 4 << 20);
            consumer = new KafkaConsumer<>(m, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        }
        return consumer;
    }

    private void consume(JsonNode c, ObjectNode out) {
        KafkaConsumer<byte[], byte[]> consumer = consumer();
        TopicPartition tp = partition(c);
        int count = c.get("count").asInt();
        consumer.assign(List.of(tp));
        switch (c.get("at").asText()) {
            case "earliest" -> consumer.seekToBeginning(List.of(tp));
            case "latest" -> consumer.seekToEnd(List.of(tp));
            case "offset" -> consumer.seek(tp, c.get("value").asLong());
            case "timestamp" -> consumer.seek(tp, time(tp, c.get("value").asLong()));
            default -> consumer.seek(tp, positions.get(tp));
        }
        long position = consumer.position(tp);
        ArrayNode records = out.putArray("records");
        long deadline = System.nanoTime() + c.get("timeout_ms").asLong() * 1_000_000L;
        while (records.size() < count && System.nanoTime() < deadline) {
            for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                if (records.size() == count) {
                    break;
                }
                ObjectNode o = records.addObject().put("o", r.offset()).put("ts", r.timestamp()).put("k", b64(r.key())).put("v", b64(r.value()));
                ArrayNode headers = o.putArray("h");
                for (Header h : r.headers()) {
                    headers.addArray().add(h.key()).add(b64(h.value()));
                }
                position = r.offset() + 1;
            }
        }
        positions.put(tp, position);
        out.put("position", position);
    }

    private void offsets(JsonNode c, ObjectNode out) {
        TopicPartition tp = partition(c);
        out.put("earliest", consumer().beginningOffsets(List.of(tp)).get(tp)).put("latest", consumer().endOffsets(List.of(tp)).get(tp));
    }

    private long time(TopicPartition tp, long ts) {
        OffsetAndTimestamp got = consumer().offsetsForTimes(Map.of(tp, ts)).get(tp);
        return got == null ? -1 : got.offset();
    }

    private Admin admin() {
        if (admin == null) {
            admin = Admin.create(base());
        }
        return admin;
    }

    private void create(JsonNode c) throws Exception {
        Map<String, String> configs = new HashMap<>();
        c.get("configs").fields().forEachRemaining(e -> configs.put(e.getKey(), e.getValue().asText()));
        NewTopic topic = new NewTopic(c.get("topic").asText(), Optional.of(c.get("partitions").asInt()), Optional.empty()).configs(configs);
        admin().createTopics(List.of(topic)).all().get(20, TimeUnit.SECONDS);
    }

    private void configs(JsonNode c, ObjectNode out) throws Exception {
        ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, c.get("topic").asText());
        ObjectNode configs = out.putObject("configs");
        admin().describeConfigs(List.of(r)).all().get(20, TimeUnit.SECONDS).get(r).entries().forEach(e -> configs.put(e.name(), e.value()));
    }

    private void metadata(JsonNode c, ObjectNode out) throws Exception {
        String topic = c.get("topic").asText();
        ArrayNode brokers = out.putArray("brokers");
        for (Node n : admin().describeCluster().nodes().get(20, TimeUnit.SECONDS)) {
            brokers.addArray().add(n.id()).add(n.host()).add(n.port());
        }
        out.put("partitions", admin().describeTopics(List.of(topic)).allTopicNames().get(20, TimeUnit.SECONDS).get(topic).partitions().size());
    }

    /** What those ask who look after a cluster, about one partition; answers as they came. */
    private void administer(TopicPartition tp, ObjectNode out) throws Exception {
        int broker = admin().describeTopics(List.of(tp.topic())).allTopicNames().get(20, TimeUnit.SECONDS)
            .get(tp.topic()).partitions().get(tp.partition()).leader().id();
        var nodes = admin().describeCluster(new DescribeClusterOptions().includeFencedBrokers(true)).nodes();
        nodes.get(20, TimeUnit.SECONDS).forEach(node -> out.withArray("nodes").add(node.id()));
        var quorum = admin().describeMetadataQuorum().quorumInfo().get(20, TimeUnit.SECONDS);
        out.put("voters", quorum.voters().size()).put("metadata", quorum.highWatermark());
        admin().describeLogDirs(List.of(broker)).allDescriptions().get(20, TimeUnit.SECONDS).get(broker).values().forEach(dir -> {
            if (dir.replicaInfos().containsKey(tp)) {
                out.put("bytes", dir.replicaInfos().get(tp).size()).put("free", dir.usableBytes().orElse(-1));
            }
        });
        var elected = admin().electLeaders(ElectionType.PREFERRED, Set.of(tp)).partitions().get(20, TimeUnit.SECONDS);
        out.put("election", elected.get(tp).map(e -> e.getClass().getSimpleName()).orElse("done"));
        var move = Map.of(tp, Optional.of(new NewPartitionReassignment(List.of(broker))));
        admin().alterPartitionReassignments(move).all().get(20, TimeUnit.SECONDS);
        out.put("moves", admin().listPartitionReassignments().reassignments().get(20, TimeUnit.SECONDS).size());
        admin().describeProducers(List.of(tp)).partitionResult(tp).get(20, TimeUnit.SECONDS).activeProducers()
            .forEach(p -> out.withArray("sequences").add(p.lastSequence()));
        try {
            admin().unregisterBroker(4242).all().get(20, TimeUnit.SECONDS);
        } catch (ExecutionException e) {
            out.put("unregister", e.getCause().getClass().getSimpleName());
        }
    }

    private void join(JsonNode c) {
        Map<String, Object> m = base();
        String protocol = text(c, "protocol", "classic");
        m.put("group.id", c.get("group").asText());
        m.put("client.id", c.get("member").asText());
        m.put("group.protocol", protocol);
        m.put("enable.auto.commit", false);
        m.put("auto.offset.reset", "earliest");
        m.put("fetch.max.wait.ms", 100);
        if (protocol.equals("classic")) {
            m.put("session.timeout.ms", text(c, "session_ms", "6000"));
            m.put("heartbeat.interval.ms", 500);
        }
        KafkaConsumer<byte[], byte[]> member = new KafkaConsumer<>(m, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        List<String> topics = new ArrayList<>();
        c.get("topics").forEach(t -> topics.add(t.asText()));
        member.subscribe(topics);
        members.put(c.get("member").asText(), member);
    }

    private void take(JsonNode c, ObjectNode out) {
        KafkaConsumer<byte[], byte[]> member = members.get(c.get("member").asText());
        int count = c.get("count").asInt();
        ArrayNode records = out.putArray("records");
        long deadline = System.nanoTime() + c.get("timeout_ms").asLong() * 1_000_000L;
        while (System.nanoTime() < deadline && (count == 0 || records.size() < count)) {
            for (ConsumerRecord<byte[], byte[]> r : member.poll(Duration.ofMillis(100))) {
                records.addArray().add(r.topic()).add(r.partition()).add(r.offset());
            }
        }
        ArrayNode assigned = out.putArray("assigned");
        member.assignment().forEach(tp -> assigned.addArray().add(tp.topic()).add(tp.partition()));
    }

    private void commit(JsonNode c, ObjectNode out) {
        KafkaConsumer<byte[], byte[]> member = members.get(c.get("member").asText());
        member.commitSync(Duration.ofSeconds(20));
        ArrayNode offsets = out.putArray("offsets");
        member.committed(member.assignment()).forEach((tp, o) -> {
            if (o != null) {
                offsets.addArray().add(tp.topic()).add(tp.partition()).add(o.offset());
            }
        });
    }
}
