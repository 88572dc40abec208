//! Bodies that no provider should send, to be read without harm all the same.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use crate::fixtures;

/// Any JSON, often with the keys and the words of a provider; as a body, or as the events of a stream.
pub(crate) fn json(provider: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let (keys, words) = vocabulary(provider);
    let key = prop_oneof![4 => prop::sample::select(keys), 1 => ".{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let body = leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    });
    let travelling = |(body, stream): (Value, bool)| {
        if stream { format!("data: {body}\n\ndata:{body}") } else { body.to_string() }
    };
    (body, prop::bool::weighted(0.1)).prop_map(travelling).prop_map(String::into_bytes)
}

/// All keys of a provider's bodies, and their short texts.
fn vocabulary(provider: &str) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut words) = (BTreeSet::new(), BTreeSet::new());
    let bodies = fixtures::all(provider).into_iter().filter(|fixture| fixture.about("what") != "request");
    bodies.for_each(|fixture| collect(&fixture.json(), &mut keys, &mut words));
    (keys.into_iter().collect(), words.into_iter().collect())
}

fn collect(body: &Value, keys: &mut BTreeSet<String>, words: &mut BTreeSet<String>) {
    match body {
        Value::Array(list) => list.iter().for_each(|item| collect(item, keys, words)),
        Value::Object(fields) => {
            keys.extend(fields.keys().cloned());
            fields.values().for_each(|value| collect(value, keys, words));
        }
        Value::String(text) if text.len() < 80 => drop(words.insert(text.clone())),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A recorded body with one byte changed, or cut off there.
pub(crate) fn damaged(provider: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let bodies: Vec<Vec<u8>> = fixtures::all(provider).into_iter().map(|fixture| fixture.body).collect();
    (prop::sample::select(bodies), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(mut body, at, byte, cut)| {
            let at = at.index(body.len());
            body[at] = byte;
            body.truncate(if cut { at } else { body.len() });
            body
        },
    )
}
