//! What the API server would say about a document's shape: fields, types, bounds, enums, patterns. It reads the
//! CRD's own schema, so that nothing is said twice, and finds every mistake, not only the first.

use regex::Regex;
use serde_json::{Map, Value};

use crate::{duration::GatewayDuration, mistakes::Mistakes, quantity::Quantity, rules};

/// How alike a misspelt name and the suggested one must be, of 1.
const ALIKE: f64 = 0.75;

/// A step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

/// What a look at a document found.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub mistakes: Mistakes,
    unreadable: Vec<Vec<Step>>,
}

/// Looks at `value`, which stands at `path` of the document.
pub(crate) fn shape(value: &Value, schema: &Value, path: &str) -> Shape {
    let mut look = Look {
        shape: Shape::default(),
        path: path.to_owned(),
        steps: Vec::new(),
    };
    look.at(value, schema);
    look.shape
}

impl Shape {
    /// The document without the values that no type could hold, so that the rest of it can be judged.
    pub(crate) fn readable(&self, mut value: Value) -> Value {
        for steps in &self.unreadable {
            remove(&mut value, steps);
        }
        value
    }
}

fn remove(value: &mut Value, steps: &[Step]) {
    match (steps, value) {
        ([Step::Field(name)], Value::Object(fields)) => {
            fields.remove(name);
        }
        ([Step::Field(name), rest @ ..], Value::Object(fields)) => {
            if let Some(next) = fields.get_mut(name) {
                remove(next, rest);
            }
        }
        ([Step::Item(index), rest @ ..], Value::Array(items)) => {
            if let Some(next) = items.get_mut(*index) {
                remove(next, rest);
            }
        }
        _ => {}
    }
}

struct Look {
    shape: Shape,
    path: String,
    steps: Vec<Step>,
}

impl Look {
    fn at(&mut self, value: &Value, schema: &Value) {
        if value.is_null() {
            return self.unreadable("is empty; give it a value or leave it out");
        }
        let expected = schema["type"].as_str();
        if schema["x-kubernetes-int-or-string"] == true {
            if !value.is_string() && !value.is_i64() {
                self.unreadable("must be a whole number or a string");
            }
            return;
        }
        match (expected, value) {
            (Some("object"), Value::Object(fields)) => self.object(fields, schema),
            (Some("array"), Value::Array(items)) => self.array(items, schema),
            (Some("string"), Value::String(text)) => self.string(text, schema),
            (Some("integer"), Value::Number(number)) if number.is_i64() => {
                self.integer(number.as_i64().unwrap_or_default(), schema);
            }
            (Some("boolean"), Value::Bool(_)) | (Some("number"), Value::Number(_)) | (None, _) => {}
            (Some("string"), Value::Number(_) | Value::Bool(_)) => {
                self.unreadable(format!("{value} must be a string; write \"{value}\""));
            }
            (Some(expected), _) => self.unreadable(format!("must be {}", in_words(expected))),
        }
    }

    fn object(&mut self, fields: &Map<String, Value>, schema: &Value) {
        if let Some(most) = schema["maxProperties"]
            .as_u64()
            .filter(|most| fields.len() as u64 > *most)
        {
            self.wrong(format!(
                "has {} entries; at most {most} are allowed",
                fields.len()
            ));
        }
        let additional = &schema["additionalProperties"];
        let known = schema["properties"].as_object();
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(name) {
                let description = known
                    .and_then(|known| known[name]["description"].as_str())
                    .unwrap_or_default();
                let sentence = description
                    .split_inclusive(". ")
                    .next()
                    .unwrap_or_default()
                    .trim();
                self.inside(Step::Field(name.to_owned()), |look| {
                    look.wrong(format!("is required. {sentence}"));
                });
            }
        }
        for (name, value) in fields {
            let field = known.and_then(|known| known.get(name));
            self.inside(Step::Field(name.clone()), |look| match field {
                Some(field) => look.at(value, field),
                None if additional.is_object() => look.at(value, additional),
                None if schema["x-kubernetes-preserve-unknown-fields"] == true || known.is_none() => {}
                None => look.wrong(unknown_field(name, known)),
            });
        }
    }

    fn array(&mut self, items: &[Value], schema: &Value) {
        let count = items.len() as u64;
        if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
            self.wrong(format!(
                "must have at least {least} {}",
                if least == 1 { "item" } else { "items" }
            ));
        }
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
            self.wrong(format!("has {count} items; at most {most} are allowed"));
        }
        let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let is_set = schema["x-kubernetes-list-type"] == "set";
        for (index, item) in items.iter().enumerate() {
            self.inside(Step::Item(index), |look| {
                look.at(item, &schema["items"]);
                let same = |other: &&Value| {
                    (is_set && *other == item)
                        || (!keys.is_empty()
                            && keys
                                .iter()
                                .all(|key| !item[*key].is_null() && other[*key] == item[*key]))
                };
                if items[..index].iter().find(same).is_none() {
                    return;
                }
                if is_set {
                    look.wrong(format!("{item} is given twice; leave one out"));
                } else {
                    look.inside(Step::Field(keys.join(", ")), |look| {
                        let name = keys
                            .iter()
                            .map(|key| item[*key].to_string())
                            .collect::<Vec<_>>()
                            .join(", ");
                        look.wrong(format!(
                            "{name} is taken by an item before it; every {} must be unique",
                            keys.join(" and ")
                        ));
                    });
                }
            });
        }
    }

    fn string(&mut self, text: &str, schema: &Value) {
        if let Some(values) = schema["enum"].as_array() {
            if !values.iter().any(|value| value == text) {
                let names: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                self.unreadable(format!(
                    "{text:?} must be one of {}{}",
                    names.join(", "),
                    did_you_mean(text, names.iter().copied())
                ));
            }
            return;
        }
        let length = text.chars().count() as u64;
        let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            return self.wrong("must not be empty");
        }
        match schema["pattern"].as_str() {
            Some(rules::DNS_LABEL) if length > most || !fits(text, rules::DNS_LABEL) => {
                self.wrong(rules::label_says(text, most, self.index()));
            }
            Some(GatewayDuration::PATTERN) => self.duration(text, schema),
            Some(Quantity::PATTERN) => {
                if let Err(error) = Quantity::from(text).bytes() {
                    self.wrong(format!("{text:?} is {error}"));
                }
            }
            Some(pattern) if !fits(text, pattern) => {
                self.wrong(format!("{text:?} {}", rules::pattern_says(pattern)));
            }
            _ if length > most => {
                self.wrong(format!("is {length} characters long; at most {most} are allowed"));
            }
            _ => {}
        }
    }

    fn duration(&mut self, text: &str, schema: &Value) {
        let duration = match GatewayDuration::from(text).parse() {
            Ok(duration) => duration,
            Err(error) => return self.wrong(format!("{text:?} is {error}")),
        };
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let Some((least, most)) = rules::bounds(rule) else {
                continue;
            };
            if duration < least || duration > most {
                self.wrong(format!("{text} {}", rule["message"].as_str().unwrap_or_default()));
            }
        }
    }

    fn integer(&mut self, number: i64, schema: &Value) {
        let least = schema["minimum"].as_f64().unwrap_or(f64::from(i32::MIN));
        let most = schema["maximum"].as_f64().unwrap_or(f64::from(i32::MAX));
        #[expect(clippy::cast_precision_loss, reason = "bounds are small whole numbers")]
        let number_as_float = number as f64;
        if number_as_float < least || number_as_float > most {
            self.unreadable(format!("{number} must be between {least} and {most}"));
        }
    }

    fn inside(&mut self, step: Step, look: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        match &step {
            Step::Field(name) if self.path.is_empty() => self.path.push_str(name),
            Step::Field(name) => self.path.extend([".", name]),
            Step::Item(index) => self.path.extend(["[", &index.to_string(), "]"]),
        }
        self.steps.push(step);
        look(self);
        self.steps.pop();
        self.path.truncate(length);
    }

    /// The index of the innermost list item that is looked at.
    fn index(&self) -> usize {
        self.steps
            .iter()
            .rev()
            .find_map(|step| {
                if let Step::Item(index) = step {
                    Some(*index)
                } else {
                    None
                }
            })
            .unwrap_or_default()
    }

    fn wrong(&mut self, message: impl Into<String>) {
        self.shape.mistakes.add(self.path.clone(), message);
    }

    fn unreadable(&mut self, message: impl Into<String>) {
        self.wrong(message);
        self.shape.unreadable.push(self.steps.clone());
    }
}

fn fits(text: &str, pattern: &str) -> bool {
    Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

fn in_words(schema_type: &str) -> &str {
    match schema_type {
        "object" => "a mapping, as in `{name: value}`",
        "array" => "a list, as in `[value]`",
        "string" => "a string",
        "integer" => "a whole number",
        "boolean" => "true or false",
        other => other,
    }
}

fn unknown_field(name: &str, known: Option<&Map<String, Value>>) -> String {
    let names = known.into_iter().flat_map(Map::keys).map(String::as_str);
    let meant = did_you_mean(name, names.clone());
    if meant.is_empty() {
        format!(
            "there is no such field; there are {}",
            names.collect::<Vec<_>>().join(", ")
        )
    } else {
        format!("there is no such field{meant}")
    }
}

/// `; did you mean "x"?`, when some candidate is alike enough.
pub(crate) fn did_you_mean<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let wrong = wrong.to_lowercase();
    candidates
        .map(|candidate| (strsim::jaro_winkler(&wrong, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("; did you mean {candidate:?}?"))
        .unwrap_or_default()
}
