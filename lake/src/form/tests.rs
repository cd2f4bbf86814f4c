use serde_json::{Map, json};

use super::*;
use crate::RollUp;

fn metadata(table: Table) -> TableMetadata {
    TableMetadata {
        schema_string: table.delta_schema().to_string(),
        partition_columns: table.partition_column().into_iter().map(str::to_owned).collect(),
        ..TableMetadata::default()
    }
}

/// Returns the metadata of a table after a change of its schema.
fn changed(table: Table, change: impl FnOnce(&mut Vec<Value>)) -> TableMetadata {
    let mut schema = table.delta_schema();
    change(schema["fields"].as_array_mut().expect("fields"));
    TableMetadata { schema_string: schema.to_string(), ..metadata(table) }
}

fn form(metadata: TableMetadata) -> Form {
    Form { metadata: Some(metadata), protocol: None }
}

fn protocol(reader: i32, writer: i32, features: &[&str]) -> Protocol {
    let features = |from, version| {
        (version >= from).then(|| features.iter().map(|feature| (*feature).to_owned()).collect::<Vec<_>>())
    };
    Protocol {
        min_reader_version: reader,
        min_writer_version: writer,
        reader_features: features(3, reader),
        writer_features: features(7, writer),
    }
}

#[test]
fn each_table_is_known_by_its_columns_and_no_other_is_taken_for_it() {
    // The roll-ups have the columns of `metrics`, so that only their place tells these three apart.
    let is_rollup = |table: Table| RollUp::ALL.map(RollUp::table).contains(&table);
    let kind = |table: Table| if is_rollup(table) { Table::Metrics } else { table };
    for table in Table::ALL {
        for other in Table::ALL {
            let fits = kind(table) == kind(other);
            assert_eq!(form(metadata(other)).refusal(table).is_none(), fits, "{table:?} {other:?}");
        }
        assert_eq!(form(metadata(table)).widened(table).expect("fits"), None);
    }
    let torn = TableMetadata { schema_string: "{".to_owned(), ..TableMetadata::default() };
    assert!(form(torn).refusal(Table::Events).is_some());
}

#[test]
fn every_optional_column_that_is_left_out_comes_back_to_its_place() {
    for table in Table::ALL {
        let mut left_out = Vec::new();
        let older = changed(table, |fields| {
            fields.retain(|field| {
                let optional = field["nullable"] == true;
                left_out.extend(optional.then(|| field["name"].as_str().expect("a name").to_owned()));
                !optional
            });
        });
        let Some((wider, added)) = form(older).widened(table).expect("fits") else {
            assert!(left_out.is_empty(), "{table:?}");
            continue;
        };
        assert_eq!(added, left_out);
        assert_eq!(serde_json::from_str::<Value>(&wider.schema_string).expect("JSON"), table.delta_schema());
    }
}

#[test]
fn a_field_of_records_comes_back_and_what_others_added_stays() {
    let mine = json!({ "name": "mine", "type": "string", "nullable": true, "metadata": { "comment": "x" } });
    let older = changed(Table::Events, |fields| {
        let calls = fields.iter_mut().find(|field| field["name"] == "tool_calls").expect("there");
        calls["metadata"] = json!({ "comment": "as it was then" });
        let calls = calls["type"]["elementType"]["fields"].as_array_mut().expect("fields");
        calls.retain(|field| field["name"] != "risk");
        calls.push(mine.clone());
        fields.insert(0, mine.clone());
    });
    let older = TableMetadata {
        configuration: [("delta.logRetentionDuration".to_owned(), Some("interval 1 days".to_owned()))].into(),
        more: Map::from_iter([("id".to_owned(), json!("a"))]),
        ..older
    };
    assert!(form(older.clone()).has_unknown_columns(Table::Events));
    let (wider, added) = form(older.clone()).widened(Table::Events).expect("fits").expect("lacks a field");
    assert_eq!(added, ["tool_calls[].risk"]);
    assert_eq!((&wider.configuration, &wider.more), (&older.configuration, &older.more));
    let schema: Value = serde_json::from_str(&wider.schema_string).expect("JSON");
    assert_eq!(schema["fields"][0], mine);
    let calls = schema["fields"].as_array().expect("fields").iter().find(|field| field["name"] == "tool_calls");
    let calls = calls.expect("there");
    assert_eq!(calls["metadata"]["comment"], "as it was then");
    let names: Vec<&str> = calls["type"]["elementType"]["fields"]
        .as_array()
        .expect("fields")
        .iter()
        .map(|field| field["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names.last(), Some(&"mine"));
    assert_eq!(
        names.iter().position(|name| *name == "risk"),
        names.iter().position(|n| *n == "side_effect").map(|n| n + 1)
    );
    assert!(form(wider).widened(Table::Events).expect("fits").is_none(), "once is enough");
    assert!(!form(metadata(Table::Events)).has_unknown_columns(Table::Events));
}

#[test]
fn what_our_rows_cannot_be_in_is_refused_by_name() {
    let set = |name: &'static str, key: &'static str, value: Value| {
        changed(Table::Quarantine, move |fields| {
            fields.iter_mut().find(|field| field["name"] == name).expect("there")[key] = value;
        })
    };
    let unknown = json!({ "name": "theirs", "type": "long", "nullable": false, "metadata": {} });
    for (metadata, text) in [
        (set("offset", "type", json!("string")), "column `offset` is string, not long"),
        (set("offset", "name", json!("offset_")), "no column `offset`"),
        (set("offset", "name", json!("Offset")), "only in case"),
        (changed(Table::Quarantine, |fields| fields.push(unknown)), "\"theirs\" is unknown to bellwether"),
        (
            TableMetadata { partition_columns: vec!["topic".to_owned()], ..metadata(Table::Quarantine) },
            "other partition columns",
        ),
    ] {
        let error = form(metadata).refusal(Table::Quarantine).expect(text);
        assert_eq!(error.kind(), bellwether_base::ErrorKind::Data);
        assert!(error.message().contains(text) && error.hint().is_some(), "{error:?}");
    }
    let stricter = set("kafka_timestamp", "nullable", json!(false));
    let (_, added) = form(stricter).widened(Table::Quarantine).expect("fits").expect("is widened");
    assert_eq!(added, ["kafka_timestamp"], "an optional column may be null");
}

#[test]
fn features_that_change_what_is_written_or_read_are_refused_by_name() {
    let refused = |protocol: Protocol| {
        let form = Form { protocol: Some(protocol), metadata: Some(metadata(Table::Metrics)) };
        form.refusal(Table::Metrics).map(|error| error.message().to_owned())
    };
    for (reader, writer) in [(1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (1, 7), (3, 7)] {
        assert_eq!(refused(protocol(reader, writer, &[])), None, "{reader} {writer}");
        assert_eq!(refused(protocol(reader, writer, &HARMLESS)), None, "{reader} {writer}");
    }
    for feature in [
        "deletionVectors",
        "rowTracking",
        "icebergCompatV1",
        "icebergCompatV2",
        "domainMetadata",
        "inCommitTimestamp",
        "clustering",
        "typeWidening",
        "variantType",
        "catalogManaged",
        "allowColumnDefaults",
        "of the next year",
    ] {
        for (reader, writer) in [(1, 7), (3, 7)] {
            let text = refused(protocol(reader, writer, &["appendOnly", feature])).expect(feature);
            assert!(text.contains(&format!("`{feature}`")), "{text}");
        }
    }
    assert!(refused(protocol(4, 7, &[])).is_some_and(|text| text.contains("reader version 4")));
    assert!(refused(protocol(1, 8, &[])).is_some_and(|text| text.contains("writer version 8")));
}

#[test]
fn a_feature_is_in_use_by_what_the_metadata_says() {
    let set = |key: &str, value: &str| TableMetadata {
        configuration: [(key.to_owned(), Some(value.to_owned()))].into(),
        ..metadata(Table::Events)
    };
    let on_column = |key: &str| changed(Table::Events, |fields| fields[3]["metadata"][key] = json!("x"));
    let in_records = changed(Table::Events, |fields| {
        let calls = fields.iter_mut().find(|field| field["name"] == "tool_calls").expect("there");
        calls["type"]["elementType"]["fields"][0]["metadata"]["delta.invariants"] = json!("x");
    });
    for (metadata, feature) in [
        (set("delta.columnMapping.mode", "name"), Some("columnMapping")),
        (set("delta.columnMapping.mode", "none"), None),
        (set("delta.constraints.positive", "partition >= 0"), Some("checkConstraints")),
        (set("delta.appendOnly", "true"), None),
        (set("delta.enableChangeDataFeed", "true"), None),
        (on_column("delta.invariants"), Some("invariants")),
        (on_column("delta.generationExpression"), Some("generatedColumns")),
        (on_column("delta.identity.start"), Some("identityColumns")),
        (on_column("comment"), None),
        (in_records, Some("invariants")),
    ] {
        let refusal = form(metadata).refusal(Table::Events);
        let text = refusal.as_ref().map(|error| error.message().to_owned());
        assert_eq!(text.is_some(), feature.is_some(), "{text:?}");
        let named = feature.map(|feature| format!("`{feature}`")).unwrap_or_default();
        assert!(text.unwrap_or_default().contains(&named), "{feature:?}");
        assert!(refusal.is_none_or(|error| error.hint().is_some()));
    }
    assert!(form(set("delta.appendOnly", "true")).only_appends());
    assert!(!form(set("delta.appendOnly", "false")).only_appends());
}
