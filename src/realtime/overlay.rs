//! Several events of a song as one, for a client that cannot take each (`protocol.md` 9).

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::frames::{json, push};

/// Several `set`s laid over each other. The values stay text: nothing is parsed deeper than its top level.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    one: Option<Arc<RawValue>>,
    fields: Vec<(String, Box<RawValue>)>,
    bytes: usize,
}

impl Overlay {
    pub(super) fn add(&mut self, set: &Arc<RawValue>) {
        if self.one.is_none() && self.fields.is_empty() {
            self.bytes = set.get().len();
            self.one = Some(Arc::clone(set));
            return;
        }
        if let Some(one) = self.one.take() {
            self.lay(&one);
        }
        self.lay(set);
        self.bytes = self.fields.iter().map(|(field, value)| field.len() + value.get().len() + 4).sum();
    }

    fn lay(&mut self, set: &RawValue) {
        let set: Fields = serde_json::from_str(set.get()).unwrap_or_default();
        for (field, value) in set.0 {
            match self.fields.iter_mut().find(|(mine, _)| *mine == field) {
                Some((_, mine)) => *mine = value,
                None => self.fields.push((field, value)),
            }
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn merged(self) -> Arc<RawValue> {
        if let Some(one) = self.one {
            return one;
        }
        let mut text = String::with_capacity(self.bytes + 2);
        text.push('{');
        for (at, (field, value)) in self.fields.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            push(&mut text, format_args!("{comma}{}:{}", json(field), value.get()));
        }
        text.push('}');
        RawValue::from_string(text).expect("an object of JSON values is JSON").into()
    }
}

/// A JSON object as its fields, in their order, with unparsed values.
#[derive(Default)]
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json as value};

    fn raw(value: &Value) -> Arc<RawValue> {
        serde_json::value::to_raw_value(value).unwrap().into()
    }

    #[test]
    fn overlays_keep_the_newest_value_of_each_field() {
        let mut overlay = Overlay::default();
        overlay.add(&raw(&value!({"a": 1, "b": {"c": [1]}})));
        overlay.add(&raw(&value!({"b": 2, "d": null})));
        overlay.add(&raw(&value!({"a": 3})));
        assert_eq!(
            serde_json::from_str::<Value>(overlay.merged().get()).unwrap(),
            value!({"a": 3, "b": 2, "d": null})
        );
    }
}
