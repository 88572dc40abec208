//! Bodies that no provider should send, to be read without harm all the same.

use proptest::prelude::*;
use serde_json::Value;

use crate::fixtures::{self, Fixture};

/// Any JSON, often with the keys and the words that mean something.
pub(crate) fn json(
    keys: &'static [&'static str],
    words: &'static [&'static str],
) -> impl Strategy<Value = Value> {
    let key = prop_oneof![prop::sample::select(keys).prop_map(String::from), ".{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A recorded body with one byte changed, or cut off there.
pub(crate) fn damaged(provider: &'static str) -> impl Strategy<Value = Vec<u8>> {
    thread_local! { static ALL: std::cell::RefCell<Vec<(String, Vec<Fixture>)>> = const { std::cell::RefCell::new(Vec::new()) }; }
    let fixture = move |which: prop::sample::Index| {
        ALL.with_borrow_mut(|all| {
            if !all.iter().any(|(name, _)| name == provider) {
                all.push((provider.to_owned(), fixtures::all(provider)));
            }
            let (_, known) = all.iter().find(|(name, _)| name == provider).expect("it was just added");
            known[which.index(known.len())].body.clone()
        })
    };
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        move |(which, at, byte, cut)| {
            let mut body = fixture(which);
            let at = at.index(body.len());
            body[at] = byte;
            body.truncate(if cut { at } else { body.len() });
            body
        },
    )
}
