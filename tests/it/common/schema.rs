//! JSON held against the schemas of `docs/openapi.yaml`: the keywords that stand there (JSON Schema 2020-12), and an error for any other.
//! `scripts/check-openapi` repeats the check with the reference implementation, patterns included.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

/// The document, and what of it has been seen in answers.
pub struct Document {
    root: Value,
    /// Schemas and their properties, by pointer.
    seen: BTreeSet<String>,
}

/// Keywords that say nothing of what is valid, or are left to `scripts/check-openapi`.
const NOT_CHECKED: [&str; 3] = ["description", "pattern", "default"];

impl Document {
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let root = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("docs/openapi.yaml: {error}"));
        Self { root, seen: BTreeSet::new() }
    }

    /// The version of the program that it describes.
    pub fn version(&self) -> &str {
        self.root["info"]["version"].as_str().unwrap()
    }

    /// Every operation: path, method (upper case) and what is said of it.
    pub fn operations(&self) -> Vec<(String, String, Value)> {
        let paths = self.root["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &Value)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation.clone())).collect()
        };
        paths.iter().flat_map(|item| -> Vec<_> { of(item) }).collect()
    }

    /// What is behind a reference, and where that stands.
    pub fn resolve<'a>(&'a self, value: &'a Value, at: &str) -> (&'a Value, String) {
        match value.get("$ref") {
            Some(reference) => {
                let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
                let found = self.root.pointer(pointer).unwrap_or_else(|| panic!("{at}: nothing at {pointer}"));
                (found, pointer.to_owned())
            }
            None => (value, at.to_owned()),
        }
    }

    /// Holds a value against a schema.
    pub fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        let mut seen = std::mem::take(&mut self.seen);
        let checked = self.validate(schema, value, at, &mut seen);
        self.seen = seen;
        checked.unwrap_or_else(|wrong| panic!("{wrong}"));
    }

    fn validate(&self, schema: &Value, value: &Value, at: &str, seen: &mut BTreeSet<String>) -> Result<(), String> {
        let (schema, at) = self.resolve(schema, at);
        let wrong = |why: String| Err(format!("{at}: {why}: {value}"));
        for (keyword, expected) in schema.as_object().unwrap() {
            let number = || value.as_f64().zip(expected.as_f64());
            match keyword.as_str() {
                "type" => {
                    let types: Vec<&str> = match expected {
                        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                        one => vec![one.as_str().unwrap()],
                    };
                    if !types.iter().any(|name| is_of_type(value, name)) {
                        return wrong(format!("expected {}", types.join(" or ")));
                    }
                }
                "enum" if !expected.as_array().unwrap().contains(value) => {
                    return wrong(format!("expected one of {expected}"));
                }
                "const" if expected != value => return wrong(format!("expected {expected}")),
                "minimum" if number().is_some_and(|(value, least)| value < least) => {
                    return wrong(format!("below {expected}"));
                }
                "exclusiveMinimum" if number().is_some_and(|(value, least)| value <= least) => {
                    return wrong(format!("not above {expected}"));
                }
                "minLength" if value.as_str().is_some_and(|text| (text.len() as u64) < expected.as_u64().unwrap()) => {
                    return wrong("too short".to_owned());
                }
                "maximum" if number().is_some_and(|(value, most)| value > most) => {
                    return wrong(format!("above {expected}"));
                }
                "minItems" if (value.as_array().unwrap().len() as u64) < expected.as_u64().unwrap() => {
                    return wrong("too few".to_owned());
                }
                "maxItems" if (value.as_array().unwrap().len() as u64) > expected.as_u64().unwrap() => {
                    return wrong("too many".to_owned());
                }
                "enum" | "const" | "minimum" | "exclusiveMinimum" | "maximum" | "minLength" | "minItems"
                | "maxItems" => {}
                "format" => match (expected.as_str().unwrap(), value) {
                    ("date-time", Value::String(time)) if humantime::parse_rfc3339(time).is_err() => {
                        return wrong("no time".to_owned());
                    }
                    ("date-time", _) => {}
                    (other, _) => return wrong(format!("the format {other} is not checked")),
                },
                "required" => {
                    let Some(object) = value.as_object() else { continue };
                    let missing: Vec<&Value> = expected
                        .as_array()
                        .unwrap()
                        .iter()
                        .filter(|key| !object.contains_key(key.as_str().unwrap()))
                        .collect();
                    if !missing.is_empty() {
                        return wrong(format!("{missing:?} missing"));
                    }
                }
                "properties" => self.properties(schema, value, &at, seen)?,
                // Beside the properties.
                "additionalProperties" if schema.get("properties").is_some() => {}
                "additionalProperties" => self.properties(schema, value, &at, seen)?,
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.validate(expected, item, &format!("{at}/items"), seen)?;
                    }
                }
                "allOf" => {
                    for (place, part) in expected.as_array().unwrap().iter().enumerate() {
                        self.validate(part, value, &format!("{at}/allOf/{place}"), seen)?;
                    }
                }
                "oneOf" => {
                    let parts = expected.as_array().unwrap();
                    let tried: Vec<_> = parts.iter().map(|part| self.validate(part, value, &at, seen)).collect();
                    if tried.iter().filter(|tried| tried.is_ok()).count() != 1 {
                        return wrong(format!("expected exactly one of {tried:?}"));
                    }
                }
                other if NOT_CHECKED.contains(&other) => {}
                other => return Err(format!("{at}: the keyword {other} is not checked")),
            }
        }
        Ok(())
    }

    fn properties(&self, schema: &Value, value: &Value, at: &str, seen: &mut BTreeSet<String>) -> Result<(), String> {
        let empty = Map::new();
        let Some(object) = value.as_object() else { return Ok(()) };
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        for (key, value) in object {
            let at = format!("{at}/properties/{key}");
            match (known.get(key), schema.get("additionalProperties")) {
                (Some(schema), _) => {
                    seen.insert(at.clone());
                    self.validate(schema, value, &at, seen)?;
                }
                (None, Some(Value::Object(_))) => self.validate(&schema["additionalProperties"], value, &at, seen)?,
                // Without it, anything would pass: each object is to say what it has.
                (None, _) => return Err(format!("{at}: not documented: {value}")),
            }
        }
        Ok(())
    }

    /// Properties of schemas that no answer had.
    pub fn unseen(&self) -> Vec<String> {
        let mut all = Vec::new();
        pointers(&self.root["components"]["schemas"], "/components/schemas", &mut all);
        all.retain(|pointer| !self.seen.contains(pointer));
        all
    }
}

/// Where the properties stand.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    let Some(object) = value.as_object() else { return };
    for (key, value) in object {
        let at = format!("{at}/{key}");
        if let (true, Some(properties)) = (key == "properties", value.as_object()) {
            all.extend(properties.keys().map(|name| format!("{at}/{name}")));
        }
        pointers(value, &at, all);
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type {other}"),
    }
}
