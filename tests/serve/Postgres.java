import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Properties;

/**
 * Queries `bellwether serve` with the JDBC driver of Postgres. Arguments: the port, the file of the server's certificate, and a token of the
 * tenant `acme`.
 */
public class Postgres {
    /** More executions than the five after which the driver prepares a statement on the server and asks for binary results. */
    private static final int EXECUTIONS = 8;

    public static void main(String[] arguments) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", "anybody");
        properties.setProperty("password", arguments[2]);
        properties.setProperty("sslmode", "verify-ca");
        properties.setProperty("sslrootcert", arguments[1]);
        String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/bellwether";
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            describe(connection.getMetaData());
            prepare(connection);
            passLists(connection);
            fetchInParts(connection);
            refuse(connection);
        }
        System.out.println("the JDBC driver was answered");
    }

    private static void describe(DatabaseMetaData data) throws SQLException {
        same("PostgreSQL 14.0", data.getDatabaseProductName() + " " + data.getDatabaseProductVersion());
        same(List.of("bellwether"), column(data.getCatalogs(), "TABLE_CAT"));
        same(true, data.getSchemas(null, "public").next());
        List<String> tables = column(data.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME");
        same(true, tables.contains("events") && tables.contains("metrics") && !tables.contains("runs"));
        List<String> views = column(data.getTables(null, "public", "%", new String[] {"VIEW"}), "TABLE_NAME");
        same(true, views.contains("runs") && views.contains("rolling") && !views.contains("events"));
        same(true, column(data.getTables(null, "public", "runs", null), "REMARKS").get(0) != null);
        same(List.of("text"), column(data.getColumns(null, "public", "runs", "task"), "TYPE_NAME"));
        same(List.of("timestamptz"), column(data.getColumns(null, "public", "runs", "started_at"), "TYPE_NAME"));
        same(List.of("NO"), column(data.getColumns(null, "public", "events", "run_id"), "IS_NULLABLE"));
        same(List.of("e2x2"), column(data.getFunctions(null, "public", "e2x2"), "FUNCTION_NAME"));
        same(true, column(data.getTypeInfo(), "TYPE_NAME").contains("timestamptz"));
        for (ResultSet none : List.of(
                data.getPrimaryKeys(null, "public", "events"),
                data.getImportedKeys(null, "public", "events"),
                data.getExportedKeys(null, "public", "events"),
                data.getIndexInfo(null, "public", "events", false, false),
                data.getBestRowIdentifier(null, "public", "events", DatabaseMetaData.bestRowSession, true),
                data.getProcedures(null, null, "%"),
                data.getUDTs(null, "public", "%", null))) {
            same(false, none.next());
        }
        data.getSQLKeywords();
    }

    private static void prepare(Connection connection) throws SQLException {
        OffsetDateTime moment = OffsetDateTime.parse("2026-11-24T18:00:00.25Z");
        String query = "SELECT run_id, started_at, latency_ms, ?::bigint, ?::timestamptz, ?::date, ?::double precision, ?::boolean,"
            + " make_array(1, 2), 1.5::decimal(10, 3), NULL, NULL FROM runs WHERE task = ? ORDER BY run_id LIMIT 1";
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            ResultSetMetaData columns = statement.getMetaData();
            same("run_id text", columns.getColumnName(1) + " " + columns.getColumnTypeName(1));
            OffsetDateTime started = null;
            for (int execution = 0; execution < EXECUTIONS; execution++) {
                statement.setLong(1, 1L << 40);
                statement.setObject(2, moment);
                statement.setObject(3, LocalDate.of(2026, 2, 28));
                statement.setDouble(4, 0.25);
                statement.setBoolean(5, true);
                statement.setString(6, "acme-task");
                try (ResultSet rows = statement.executeQuery()) {
                    same(true, rows.next());
                    same("acme-1", rows.getString(1));
                    // The same in text and in binary form.
                    OffsetDateTime found = rows.getObject(2, OffsetDateTime.class);
                    same(execution == 0 ? found : started, found);
                    started = found;
                    same(found.toInstant(), rows.getTimestamp(2).toInstant());
                    same(1000.0, rows.getDouble(3));
                    same(1L << 40, rows.getLong(4));
                    same(moment, rows.getObject(5, OffsetDateTime.class));
                    same(LocalDate.of(2026, 2, 28), rows.getObject(6, LocalDate.class));
                    same(0.25, rows.getDouble(7));
                    same(true, rows.getBoolean(8));
                    same("json [1,2]", rows.getMetaData().getColumnTypeName(9) + " " + rows.getString(9));
                    same("1.500", rows.getBigDecimal(10).toString());
                    same(null, rows.getObject(11));
                    same(false, rows.next());
                }
            }
        }
    }

    private static void passLists(Connection connection) throws SQLException {
        String query = "SELECT count(*) FROM runs WHERE task = ANY(?) AND run_id <> ALL(?)";
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            for (int execution = 0; execution < EXECUTIONS; execution++) {
                statement.setArray(1, connection.createArrayOf("text", new String[] {"acme-task", "x, \"y\""}));
                statement.setArray(2, connection.createArrayOf("text", new String[] {"acme-3"}));
                try (ResultSet rows = statement.executeQuery()) {
                    same(true, rows.next());
                    same(19L, rows.getLong(1));
                }
            }
        }
        query = "SELECT count(*) FROM unnest(range(0, 9)) AS a(i) WHERE i = ANY(?) OR i + 0.5 = ANY(?)";
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            for (int execution = 0; execution < EXECUTIONS; execution++) {
                statement.setArray(1, connection.createArrayOf("int8", new Long[] {1L, 2L, 1L << 40}));
                statement.setArray(2, connection.createArrayOf("float8", new Double[] {4.5, 0.1}));
                try (ResultSet rows = statement.executeQuery()) {
                    same(true, rows.next());
                    same(3L, rows.getLong(1));
                }
            }
        }
    }

    private static void fetchInParts(Connection connection) throws SQLException {
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(7);
            try (ResultSet rows = statement.executeQuery("SELECT i FROM unnest(range(0, 120)) AS a(i) ORDER BY i")) {
                for (long number = 0; number < 120; number++) {
                    same(true, rows.next());
                    same(number, rows.getLong(1));
                }
                same(false, rows.next());
            }
        }
        connection.rollback();
        connection.setAutoCommit(true);
    }

    private static void refuse(Connection connection) throws SQLException {
        same("25006", stateOf(connection, "DELETE FROM events"));
        same("42P01", stateOf(connection, "SELECT * FROM nothing"));
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery("SELECT count(*) FROM unnest(range(0, 100000)) a(i), unnest(range(0, 1000000)) b(j) WHERE i * j % 7 = 3");
            throw new AssertionError("answered");
        } catch (SQLException error) {
            same("57014", error.getSQLState());
        }
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT DISTINCT tenant FROM events")) {
            same(List.of("acme"), column(rows, "tenant"));
        }
    }

    private static String stateOf(Connection connection, String sql) {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
            throw new AssertionError("answered: " + sql);
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    private static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> found = new ArrayList<>();
        while (rows.next()) {
            found.add(rows.getString(name));
        }
        return found;
    }

    private static void same(Object expected, Object found) {
        if (!Objects.equals(expected, found)) {
            throw new AssertionError("found " + found + " instead of " + expected);
        }
    }
}
