import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.jerolba.carpet.CarpetWriter;
import com.jerolba.carpet.io.FileSystemOutputFile;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.UUID;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.parquet.hadoop.metadata.CompressionCodecName;

/**
 * Aggregates runs by minute, task and release to Parquet with Kafka Streams: the JVM peer of `make bench-peers`.
 *
 * Set up as its documentation recommends: exactly_once_v2, one thread per core, a repartition by the key of the
 * aggregate with only the needed fields, final results by the emit strategy on window close. It has no sink for
 * files; this one writes one file at a time and is therefore at-least-once, like any output outside Kafka.
 *
 *   java -cp … Peer BROKER TOPIC APPLICATION FOLDER
 */
public final class Peer {
  /** Interval between files. */
  private static final Duration ROLL = Duration.ofSeconds(5);

  private static final ObjectMapper JSON = new ObjectMapper();

  // The fields that are read from an event.
  @JsonIgnoreProperties(ignoreUnknown = true)
  record Event(Data data) {}

  @JsonIgnoreProperties(ignoreUnknown = true)
  record Data(String task, Release release, @JsonProperty("ended_at") String endedAt, Outcome outcome, Cost cost, Tokens tokens) {}

  @JsonIgnoreProperties(ignoreUnknown = true)
  record Release(String id) {}

  @JsonIgnoreProperties(ignoreUnknown = true)
  record Outcome(String status) {}

  @JsonIgnoreProperties(ignoreUnknown = true)
  record Cost(String amount) {}

  @JsonIgnoreProperties(ignoreUnknown = true)
  record Tokens(long input, long output) {}

  /** The fields of a run that the windows need. */
  record Run(String task, String release, long endedMs, long success, long costMicros, long tokensInput, long tokensOutput) {
    static Run of(byte[] json) {
      try {
        Data data = JSON.readValue(json, Event.class).data();
        return new Run(
            data.task(), data.release().id(), Instant.parse(data.endedAt()).toEpochMilli(),
            "success".equals(data.outcome().status()) ? 1 : 0,
            new BigDecimal(data.cost().amount()).movePointRight(6).longValueExact(),
            data.tokens().input(), data.tokens().output());
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  /** Sums of a window. */
  record Totals(long runs, long success, long costMicros, long tokensInput, long tokensOutput) {
    static final Totals NONE = new Totals(0, 0, 0, 0, 0);

    Totals with(Run run) {
      return new Totals(
          runs + 1, success + run.success(), costMicros + run.costMicros(),
          tokensInput + run.tokensInput(), tokensOutput + run.tokensOutput());
    }
  }

  /** A row of the output. */
  record Row(long window_start, String task, String release, long runs, long success, long cost_micros, long tokens_input, long tokens_output) {}

  /** Writes the rows since the last file to a new file. */
  static final class ParquetSink implements Processor<Windowed<String>, Totals, Void, Void> {
    private final File folder;
    private final List<Row> rows = new ArrayList<>();

    ParquetSink(File folder) {
      this.folder = folder;
    }

    @Override
    public void init(ProcessorContext<Void, Void> context) {
      context.schedule(ROLL, PunctuationType.WALL_CLOCK_TIME, now -> roll());
    }

    @Override
    public void process(Record<Windowed<String>, Totals> record) {
      String[] key = record.key().key().split("\\|");
      Totals sum = record.value();
      rows.add(new Row(record.key().window().start(), key[0], key[1],
          sum.runs(), sum.success(), sum.costMicros(), sum.tokensInput(), sum.tokensOutput()));
    }

    @Override
    public void close() {
      roll();
    }

    private void roll() {
      if (rows.isEmpty()) {
        return;
      }
      String name = UUID.randomUUID().toString();
      File part = new File(folder, name + ".part");
      try (CarpetWriter<Row> writer = new CarpetWriter.Builder<>(new FileSystemOutputFile(part), Row.class)
          .withCompressionCodec(CompressionCodecName.ZSTD).build()) {
        writer.write(rows);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      if (!part.renameTo(new File(folder, name + ".parquet"))) {
        throw new UncheckedIOException(new IOException("cannot rename " + part));
      }
      rows.clear();
    }
  }

  private static <T> Serde<T> json(Class<T> type) {
    return Serdes.serdeFrom(
        (topic, value) -> {
          try {
            return value == null ? null : JSON.writeValueAsBytes(value);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        },
        (topic, bytes) -> {
          try {
            return bytes == null ? null : JSON.readValue(bytes, type);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        });
  }

  public static void main(String[] arguments) {
    String broker = arguments[0];
    String topic = arguments[1];
    String application = arguments[2];
    File folder = new File(arguments[3]);
    File out = new File(folder, "out");
    out.mkdirs();

    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, broker);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Runtime.getRuntime().availableProcessors());
    settings.put(StreamsConfig.STATE_DIR_CONFIG, new File(folder, "state").getPath());
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");

    Deserializer<Run> ofEvent = (name, bytes) -> Run.of(bytes);
    Serde<Run> events = Serdes.serdeFrom((name, run) -> { throw new UnsupportedOperationException(); }, ofEvent);
    StreamsBuilder builder = new StreamsBuilder();
    builder
        .stream(topic, Consumed.with(Serdes.String(), events)
            .withTimestampExtractor((record, before) -> ((Run) record.value()).endedMs()))
        .groupBy((key, run) -> run.task() + "|" + run.release(), Grouped.with("task-release", Serdes.String(), json(Run.class)))
        // While catching up, one partition is ahead of another in event time: less grace would lose rows.
        .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofHours(1)))
        .emitStrategy(EmitStrategy.onWindowClose())
        .aggregate(() -> Totals.NONE, (key, run, sum) -> sum.with(run), Materialized.with(Serdes.String(), json(Totals.class)))
        .toStream()
        .process(() -> new ParquetSink(out));

    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }
}
