//! The read endpoints: fixed statements with conditions, answered from the cache while the tables stay the same.
//!
//! An answer depends on its tables and, because windows begin and end, on the minute. Both are in its ETag, which therefore holds
//! across restarts and between servers of the same tables.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bellwether_alerts::current::current_alerts;
use bellwether_base::Error;
use bellwether_queries::{ScalarValue, SessionSettings, since};
use bellwether_tables::Table;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use crate::access::Caller;
use crate::cache::Kept;
use crate::encode::{Encoder, Format};
use crate::endpoint::{Endpoint, Kind, Parameter, Select};
use crate::refused::{Answered, Refused};
use crate::server::{Server, format_of, json};

/// Rows of an answer unless it asks for another number.
const USUAL_ROWS: usize = 1000;

/// Most rows of an answer.
const MOST_ROWS: usize = 10_000;

/// Most bytes of an answer.
const MOST_BYTES: usize = 16 << 20;

/// Header of an answer that leaves rows out.
const MORE: HeaderName = HeaderName::from_static("bellwether-more");

const MINUTE_MICROS: i64 = 60_000_000;

/// Parameters of all endpoints that return rows.
pub(crate) const COMMON: [&str; 2] = ["format", "limit"];

/// A question to a read endpoint.
pub(crate) struct Asked {
    select: &'static Select,
    has_path: bool,
    /// Each parameter that is given or has a default, in the endpoint's order.
    given: Vec<(&'static Parameter, String)>,
    format: Format,
    rows: usize,
    path: &'static str,
}

// === impl Asked ===

impl Asked {
    /// Reads a question, and refuses what the endpoint does not know.
    pub(crate) fn of(
        endpoint: &'static Endpoint,
        select: &'static Select,
        mut path: BTreeMap<String, String>,
        query: &str,
        headers: &HeaderMap,
    ) -> Answered<Self> {
        let mut pairs = pairs(query, endpoint, &COMMON)?;
        let rows = pairs.remove("limit").map_or(Ok(USUAL_ROWS), |text| {
            let rows = text.parse().ok().filter(|rows| (1..=MOST_ROWS).contains(rows));
            rows.ok_or_else(|| Refused::bad(format!("`limit` is `{text}`; it must be a number from 1 to {MOST_ROWS}")))
        })?;
        pairs.append(&mut path);
        let mut given = Vec::new();
        for parameter in endpoint.parameters {
            match pairs.remove(parameter.name).or_else(|| parameter.default.map(str::to_owned)) {
                Some(value) => given.push((parameter, value)),
                None if parameter.is_required => return Err(Refused::bad(format!("`{}` is missing", parameter.name))),
                None => {}
            }
        }
        let has_path = endpoint.parameters.iter().any(|parameter| parameter.kind == Kind::Path);
        Ok(Self { select, has_path, given, format: format_of(Some(query), headers)?, rows, path: endpoint.path })
    }

    /// Returns the statement and the values of its parameters.
    fn statement(&self, now: i64) -> Answered<(String, Vec<ScalarValue>)> {
        let (mut sql, mut values) = (self.select.from.to_owned(), Vec::new());
        for (parameter, value) in &self.given {
            values.push(parameter.value(value, now)?);
            sql.push_str(if values.len() == 1 { " WHERE " } else { " AND " });
            let place = format!("${}", values.len());
            match parameter.condition.contains('?') {
                true => sql.push_str(&parameter.condition.replace('?', &place)),
                false => sql.extend([parameter.condition, place.as_str()]),
            }
        }
        // One more shows that there are more.
        sql.push_str(&format!(" ORDER BY {} LIMIT {}", self.select.order, self.rows + 1));
        Ok((sql, values))
    }

    /// Returns a name of the question for a caller.
    fn key(&self, caller: &Caller) -> String {
        let given: Vec<(&str, &str)> =
            self.given.iter().map(|(parameter, value)| (parameter.name, value.as_str())).collect();
        format!("{:?}", (caller.tenant.as_deref(), self.path, given, self.format.name(), self.rows))
    }
}

// === impl Parameter ===

impl Parameter {
    /// Checks a value, and returns it for a statement.
    fn value(&self, text: &str, now: i64) -> Answered<ScalarValue> {
        match self.kind {
            Kind::Text | Kind::Path => Ok(ScalarValue::Utf8(Some(text.to_owned()))),
            Kind::Time => {
                let micros = since(text, now).map_err(|error| Refused {
                    message: format!("`{}`: {}", self.name, error.message()),
                    ..Refused::from(error)
                })?;
                Ok(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
            }
            Kind::OneOf(words) if words.contains(&text) => Ok(ScalarValue::Utf8(Some(text.to_owned()))),
            Kind::OneOf(words) => {
                Err(Refused::bad(format!("`{}` is `{text}`; it must be one of {}", self.name, words.join(", "))))
            }
        }
    }
}

/// Reads the parameters of an address; each may be given once, and must be one of the endpoint's or of `also`.
fn pairs(query: &str, endpoint: &Endpoint, also: &[&str]) -> Answered<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let mut names: Vec<&str> = also.to_vec();
        names.extend(endpoint.parameters.iter().filter(|known| known.kind != Kind::Path).map(|known| known.name));
        if !names.contains(&&*name) {
            return Err(Refused::bad(format!("there is no parameter `{name}`"))
                .with_hint(format!("the parameters are {}", names.join(", "))));
        }
        if pairs.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(Refused::bad(format!("`{name}` is given twice")));
        }
    }
    Ok(pairs)
}

/// Answers a question.
pub(crate) async fn answer(server: &Server, caller: &Caller, asked: &Asked, headers: &HeaderMap) -> Answered<Response> {
    server.refresh().await?;
    let key = asked.key(caller);
    let tag = tag(server, &key, asked.select.tables);
    if is_known(headers, &tag) {
        return Ok(with_tag(StatusCode::NOT_MODIFIED.into_response(), &tag));
    }
    let place = server.cache.place(&key);
    let mut place = place.lock().await;
    let kept = match place.as_ref().filter(|kept| kept.tag == tag) {
        Some(kept) => kept.clone(),
        None => {
            let fresh = computed(server, caller, asked, tag.clone()).await?;
            let old = place.as_ref().map_or(0, |kept| kept.body.len());
            *place = Some(fresh.clone());
            server.cache.replaced(old, fresh.body.len());
            fresh
        }
    };
    drop(place);
    // A path names one thing; an empty list of its rows means that there is none.
    if asked.has_path && kept.is_empty {
        return Err(Refused::new(StatusCode::NOT_FOUND, "there is nothing of this id"));
    }
    let mut response = Response::new(Body::from(kept.body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(asked.format.media_type()));
    if kept.has_more {
        response.headers_mut().insert(MORE, HeaderValue::from_static("true"));
    }
    Ok(with_tag(response, &tag))
}

/// Returns the ETag of an answer from tables at their present versions, in the present minute.
fn tag(server: &Server, key: &str, tables: &[Table]) -> String {
    let versions = server.engine.versions();
    let versions: Vec<_> = tables.iter().map(|table| versions.get(table)).collect();
    let minute = server.now_micros().div_euclid(MINUTE_MICROS);
    let text = format!("{:?}", (env!("CARGO_PKG_VERSION"), key, versions, minute));
    let hash: String = Sha256::digest(text).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hash}\"")
}

/// Returns true if the client has the answer of this tag. A proxy that compresses answers marks their tags as weak.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|known| known.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag)
}

fn with_tag(mut response: Response, tag: &str) -> Response {
    let headers = response.headers_mut();
    // It may be kept, but must be asked for again each time; by the caller alone, whose token it was made for.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, authorization"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

async fn computed(server: &Server, caller: &Caller, asked: &Asked, tag: String) -> Answered<Kept> {
    let _slot = server.reading().await?;
    let (sql, values) = asked.statement(server.now_micros())?;
    let most = u64::try_from(asked.rows).unwrap_or(u64::MAX).saturating_add(1);
    let session = server.engine.session(SessionSettings { max_rows: Some(most), ..server.session_settings(caller) })?;
    let mut answer = match values.is_empty() {
        true => session.execute(&sql).await?,
        false => session.execute_prepared(&session.prepare(&sql, &[]).await?, &values).await?,
    };
    let mut batches = Vec::new();
    let (mut left, mut has_more) = (asked.rows, false);
    while let Some(batch) = answer.batches.next().await.transpose()? {
        has_more |= batch.num_rows() > left;
        let batch = batch.slice(0, left.min(batch.num_rows()));
        left -= batch.num_rows();
        batches.push(batch);
    }
    let body = encoded(asked.format, answer.schema, &batches)?;
    if body.len() > MOST_BYTES {
        let message = format!("the answer has more than {MOST_BYTES} bytes");
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, message)
            .with_hint("add `limit`, or ask for the columns that you need with POST /v1/sql"));
    }
    Ok(Kept { tag, body: body.into(), has_more, is_empty: left == asked.rows })
}

fn encoded(format: Format, schema: SchemaRef, batches: &[RecordBatch]) -> Answered<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(format, schema, &mut bytes).map_err(Error::from)?;
    for batch in batches {
        encoder.write(batch).map_err(Error::from)?;
    }
    encoder.finish().map_err(Error::from)?;
    Ok(bytes)
}

/// Returns the present state of the alerts that a caller may see.
pub(crate) async fn alerts(
    server: &Server,
    caller: &Caller,
    endpoint: &Endpoint,
    (query, headers): (&str, &HeaderMap),
) -> Answered<Response> {
    let pairs = pairs(query, endpoint, &[])?;
    for parameter in endpoint.parameters {
        pairs.get(parameter.name).map(|value| parameter.value(value, 0)).transpose()?;
    }
    server.refresh().await?;
    let key = format!("{:?}", (caller.tenant.as_deref(), endpoint.path, &pairs));
    let tag = tag(server, &key, &[Table::Alerts]);
    if is_known(headers, &tag) {
        return Ok(with_tag(StatusCode::NOT_MODIFIED.into_response(), &tag));
    }
    let _slot = server.reading().await?;
    let mut all = current_alerts(&server.lake).await?;
    let is_given = |name: &str, value: Option<&String>| pairs.get(name).is_none_or(|given| Some(given) == value);
    all.retain(|alert| {
        let is_visible =
            caller.tenant.is_none() || alert.labels.get("tenant").map(String::as_str) == caller.tenant.as_deref();
        is_visible && is_given("state", Some(&alert.state)) && is_given("task", alert.labels.get("task"))
    });
    let text = |micros: i64| {
        let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
        time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
    };
    let listed = all.iter().map(|alert| {
        serde_json::json!({
            "alert_id": alert.alert_id, "rule": alert.rule, "severity": alert.severity, "state": alert.state,
            "stale": alert.stale, "at": text(alert.at), "firing_since": alert.firing_since().map(text),
            "labels": alert.labels,
        })
    });
    Ok(with_tag(json(&serde_json::Value::Array(listed.collect())), &tag))
}
