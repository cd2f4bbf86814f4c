//! The OpenAPI document, made from the table of endpoints.

use serde_json::{Map, Value, json};

use crate::encode::Format;
use crate::endpoint::{ENDPOINTS, Endpoint, Kind, Parameter, Verb, Work};

/// Returns the document.
pub(crate) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in ENDPOINTS {
        let verb = match endpoint.verb {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Delete => "delete",
        };
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[verb] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bellwether",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Read-only queries. docs/sql.md describes the views, their columns and the functions.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Rows": { "type": "array", "items": { "type": "object" } },
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": { "error": { "type": "string" }, "hint": { "type": "string" } },
                },
                "Statement": {
                    "type": "object",
                    "required": ["sql"],
                    "additionalProperties": false,
                    "properties": {
                        "sql": { "type": "string", "description": "One statement; $1, $2, … stand for parameters" },
                        "parameters": {
                            "type": "array",
                            "items": { "type": ["string", "number", "boolean", "null"] },
                        },
                    },
                },
            },
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let has_rows = matches!(endpoint.work, Work::Sql | Work::Select(_));
    let mut parameters: Vec<Value> = endpoint.parameters.iter().map(parameter).collect();
    if has_rows {
        parameters.push(json!({
            "name": "format", "in": "query", "description": "Form of the answer; otherwise the header Accept decides",
            "schema": { "type": "string", "enum": Format::ALL.map(Format::name) },
        }));
    }
    if matches!(endpoint.work, Work::Select(_)) {
        parameters.push(json!({
            "name": "limit", "in": "query", "description": "Most rows",
            "schema": { "type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000 },
        }));
    }
    let success = match endpoint.work {
        Work::Cancel => json!({ "204": { "description": "The statement is being cancelled" } }),
        _ if has_rows => {
            let rows = Format::ALL.map(|format| {
                let schema =
                    if format == Format::Json { json!({ "$ref": "#/components/schemas/Rows" }) } else { json!({}) };
                (format.media_type().to_owned(), json!({ "schema": schema }))
            });
            json!({ "200": { "description": "Rows", "content": Map::from_iter(rows) } })
        }
        _ => json!({ "200": { "description": "The answer", "content": { "application/json": { "schema": {} } } } }),
    };
    let mut responses = success;
    responses["default"] = json!({
        "description": "An error, with a hint what to do",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    });
    let mut operation = json!({ "summary": endpoint.summary, "parameters": parameters, "responses": responses });
    if matches!(endpoint.work, Work::Sql) {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Statement" } } },
        });
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let mut schema = json!({ "type": "string" });
    if let Kind::OneOf(words) = parameter.kind {
        schema["enum"] = json!(words);
    }
    if let Some(default) = parameter.default {
        schema["default"] = json!(default);
    }
    json!({
        "name": parameter.name,
        "in": if parameter.kind == Kind::Path { "path" } else { "query" },
        "description": parameter.doc,
        "required": parameter.is_required,
        "schema": schema,
    })
}
