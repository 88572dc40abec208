//! What may happen to a body on its way: every part of it missing, null, of another type, or there twice.

use serde_json::{Value, json};

/// Each with one part changed, and some with all of a sort.
pub(crate) fn of(body: &Value) -> Vec<Value> {
    let mut all = vec![with_unknown_fields(body), doubled(body), numbers_as_text(body)];
    for pointer in pointers(body) {
        let Some(part) = body.pointer(&pointer) else { continue };
        let text = part.as_number().map(|number| json!(number.to_string()));
        let others =
            [json!(null), json!(0), json!(-1e300), json!(""), json!("x"), json!([]), json!({}), json!(true)];
        all.extend(others.into_iter().chain(text).map(|other| with(body, &pointer, other)));
        all.push(without(body, &pointer));
    }
    all
}

/// A field that nobody knows, in every object.
pub(crate) fn with_unknown_fields(body: &Value) -> Value {
    match body {
        Value::Array(list) => list.iter().map(with_unknown_fields).collect(),
        Value::Object(fields) => {
            let known = fields.iter().map(|(key, value)| (key.clone(), with_unknown_fields(value)));
            let unknown = [("anything_new".to_owned(), json!({"deep": [1, null]}))];
            Value::Object(known.chain(unknown).collect())
        }
        leaf => leaf.clone(),
    }
}

/// Every list with each of its items twice.
pub(crate) fn doubled(body: &Value) -> Value {
    match body {
        Value::Array(list) => list.iter().flat_map(|item| [doubled(item), doubled(item)]).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), doubled(value))).collect(),
        leaf => leaf.clone(),
    }
}

fn numbers_as_text(body: &Value) -> Value {
    match body {
        Value::Array(list) => list.iter().map(numbers_as_text).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), numbers_as_text(value))).collect()
        }
        Value::Number(number) => json!(number.to_string()),
        leaf => leaf.clone(),
    }
}

/// The JSON pointers of everything below `body`.
fn pointers(body: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match body {
        Value::Array(list) => list.iter().enumerate().map(|(at, value)| (format!("/{at}"), value)).collect(),
        Value::Object(fields) => {
            let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
            fields.iter().map(|(key, value)| (format!("/{}", escaped(key)), value)).collect()
        }
        _ => Vec::new(),
    };
    let below = |(at, value): &(String, &Value)| {
        pointers(value).into_iter().map(|rest| format!("{at}{rest}")).collect::<Vec<_>>()
    };
    children.iter().flat_map(|child| std::iter::once(child.0.clone()).chain(below(child))).collect()
}

fn with(body: &Value, pointer: &str, part: Value) -> Value {
    let mut body = body.clone();
    if let Some(place) = body.pointer_mut(pointer) {
        *place = part;
    }
    body
}

fn without(body: &Value, pointer: &str) -> Value {
    let mut body = body.clone();
    let Some((parent, key)) = pointer.rsplit_once('/') else { return body };
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.remove(&key.replace("~1", "/").replace("~0", "~"))),
        Some(Value::Array(list)) => {
            let at = key.parse().expect("the pointer of a list's item is a number");
            drop(list.remove(at));
        }
        _ => {}
    }
    body
}
