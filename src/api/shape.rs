//! The shape of request bodies, said once: the same table checks a body, with every error at once and a
//! pointer to each (SEC-2), and writes the OpenAPI schema of it, so that the two cannot differ.

use serde_json::{Map, Value, json};

use super::problem::FieldError;

/// The fields a body may have.
pub type Shape = &'static [Field];

/// One field of a body. `null` is the same as leaving it out.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: FieldKind,
    pub required: bool,
    pub doc: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum FieldKind {
    /// Text of so many characters, cleaned of markup.
    Text {
        max: usize,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of so many texts.
    Texts {
        max: usize,
        each_max: usize,
    },
    Number {
        min: f64,
        max: f64,
    },
    Integer {
        min: i64,
        max: i64,
    },
    Flag,
    /// An http(s) url.
    Url,
    /// Any object, up to so many bytes as JSON.
    Object {
        bytes_max: usize,
    },
    /// A list of 1 to so many bodies, each to be read by this shape on its own.
    Bodies {
        max: usize,
        each: Shape,
    },
}

pub const fn field(name: &'static str, kind: FieldKind, doc: &'static str) -> Field {
    Field { name, kind, required: false, doc }
}

impl Field {
    pub const fn required(self) -> Field {
        Field { required: true, ..self }
    }
}

/// A body that fits its shape; texts are cleaned and trimmed, empty ones gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Body(Map<String, Value>);

impl Body {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    pub fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub fn texts(&self, name: &str) -> Vec<String> {
        let list = self.0.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    pub fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64)
    }

    pub fn number(&self, name: &str) -> Option<f32> {
        self.0.get(name).and_then(Value::as_f64).map(|number| number as f32)
    }

    /// A time that was given in seconds, in milliseconds.
    pub fn millis(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_f64).map(|seconds| (seconds * 1000.0).round() as i64)
    }

    /// The bodies of a [`FieldKind::Bodies`], none of them read yet.
    pub fn bodies(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Puts the bodies of a [`FieldKind::Bodies`] in the place of those that were not read yet.
    #[must_use]
    pub fn with_bodies(mut self, name: &str, read: Vec<Body>) -> Self {
        self.0.insert(name.to_owned(), read.into_iter().map(Value::from).collect());
        self
    }

    /// A number as it was written: amounts of money are never floats (CRED-1).
    pub fn written(&self, name: &str) -> Option<String> {
        self.0.get(name).map(Value::to_string)
    }

    pub fn object(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The whole body in one form, whatever order or spacing it came in.
    pub fn canonical(&self) -> String {
        let sorted: std::collections::BTreeMap<_, _> = self.0.iter().collect();
        json!(sorted).to_string()
    }
}

impl From<Body> for Value {
    fn from(body: Body) -> Self {
        Value::Object(body.0)
    }
}

/// Reads a body by its shape.
///
/// # Errors
/// Every field that is wrong, unknown or missing.
pub fn read(shape: Shape, bytes: &[u8]) -> Result<Body, Vec<FieldError>> {
    let (body, errors) = read_partly(shape, bytes);
    if errors.is_empty() { Ok(body) } else { Err(errors) }
}

/// The fields that fit, and all that does not: for whoever has more to say of them before all is refused.
pub fn read_partly(shape: Shape, bytes: &[u8]) -> (Body, Vec<FieldError>) {
    let (mut body, mut errors) = (Map::new(), Vec::new());
    let fields = match object(bytes) {
        Ok(fields) => fields,
        Err(detail) => return (Body(body), vec![FieldError { pointer: String::new(), detail }]),
    };
    for (name, value) in fields {
        let Some(field) = shape.iter().find(|field| field.name == name) else {
            errors.push(error_at(&name, "unknown field"));
            continue;
        };
        match check(field.kind, value) {
            Ok(Some(value)) => drop(body.insert(name, value)),
            Ok(None) => {}
            Err(wrong) => errors.extend(wrong.into_iter().map(|Wrong { at, detail }| FieldError {
                pointer: format!("/{}{at}", escaped(&name)),
                detail,
            })),
        }
    }
    for field in shape.iter().filter(|field| field.required && !body.contains_key(field.name)) {
        let told = |error: &FieldError| error.pointer.split('/').nth(1) == Some(field.name);
        if !errors.iter().any(told) {
            errors.push(error_at(field.name, "is required"));
        }
    }
    (Body(body), errors)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("must be a JSON object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

pub fn error_at(name: &str, detail: impl Into<String>) -> FieldError {
    FieldError { pointer: format!("/{}", escaped(name)), detail: detail.into() }
}

/// RFC 6901 section 3; names that somebody made up are cut, so that an answer stays small.
fn escaped(name: &str) -> String {
    name.chars().take(64).collect::<String>().replace('~', "~0").replace('/', "~1")
}

struct Wrong {
    at: String,
    detail: String,
}

fn wrong(detail: impl Into<String>) -> Vec<Wrong> {
    vec![Wrong { at: String::new(), detail: detail.into() }]
}

/// The value, cleaned, or all that is wrong with it.
fn check(kind: FieldKind, value: Value) -> Result<Option<Value>, Vec<Wrong>> {
    if value.is_null() {
        return Ok(None);
    }
    match kind {
        FieldKind::Text { max } => text(&value, max).map(|text| text.map(Value::String)),
        FieldKind::Word(words) => match value.as_str() {
            Some(word) if words.contains(&word) => Ok(Some(value)),
            _ => Err(wrong(format!("must be one of {}", words.join(", ")))),
        },
        FieldKind::Texts { max, each_max } => texts(&value, max, each_max).map(Some),
        FieldKind::Number { min, max } => match value.as_f64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(value)),
            _ => Err(wrong(format!("must be a number from {min:?} to {max:?}"))),
        },
        FieldKind::Integer { min, max } => match value.as_i64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(value)),
            _ => Err(wrong(format!("must be a whole number from {min} to {max}"))),
        },
        FieldKind::Flag if value.is_boolean() => Ok(Some(value)),
        FieldKind::Flag => Err(wrong("must be true or false")),
        FieldKind::Url => url(&value).map(Some),
        FieldKind::Object { bytes_max } if value.is_object() => {
            let bytes = bytes_written(&value);
            if bytes > bytes_max {
                let digits = if bytes > value.to_string().len() {
                    ", its numbers with all of their digits"
                } else {
                    ""
                };
                return Err(wrong(format!("is {bytes} bytes as JSON{digits}; at most {bytes_max}")));
            }
            if depth(&value) > DEPTH_MAX {
                return Err(wrong(format!("holds more than {DEPTH_MAX} levels of objects and lists")));
            }
            if holds_nul(&value) {
                return Err(wrong("must not contain the character U+0000"));
            }
            Ok(Some(value))
        }
        FieldKind::Object { .. } => Err(wrong("must be an object")),
        FieldKind::Bodies { max, .. } => match value.as_array() {
            Some(list) if (1..=max).contains(&list.len()) => Ok(Some(value)),
            _ => Err(wrong(format!("must be a list of 1 to {max}"))),
        },
    }
}

/// Levels of an object that is kept as it is: it is shown within others, and what reads JSON gives up at 128.
const DEPTH_MAX: usize = 32;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// How long it is as Postgres gives it back (but for the blanks between): numbers with all of their digits, `1e300` with 301.
fn bytes_written(value: &Value) -> usize {
    match value {
        Value::Array(list) => {
            2 + list.len().saturating_sub(1) + list.iter().map(bytes_written).sum::<usize>()
        }
        Value::Object(fields) => {
            let each =
                |(name, value): (&String, &Value)| json!(name).to_string().len() + 1 + bytes_written(value);
            2 + fields.len().saturating_sub(1) + fields.iter().map(each).sum::<usize>()
        }
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or(0, |float| float.to_string().len().max(number.to_string().len()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string().len(),
    }
}

/// Postgres stores no U+0000, neither in a text nor in a name.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn text(value: &Value, max: usize) -> Result<Option<String>, Vec<Wrong>> {
    let text = clean(value.as_str().ok_or_else(|| wrong("must be a text"))?);
    let chars = text.chars().count();
    if chars > max {
        return Err(wrong(format!("is {chars} characters; at most {max}")));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn texts(value: &Value, max: usize, each_max: usize) -> Result<Value, Vec<Wrong>> {
    let list = value.as_array().ok_or_else(|| wrong("must be a list of texts"))?;
    if list.len() > max {
        return Err(wrong(format!("has {} entries; at most {max}", list.len())));
    }
    let (mut cleaned, mut errors) = (Vec::with_capacity(list.len()), Vec::new());
    for (index, one) in list.iter().enumerate() {
        match text(one, each_max) {
            Ok(one) => cleaned.extend(one.map(Value::String)),
            Err(wrong) => {
                errors.extend(wrong.into_iter().map(|wrong| Wrong { at: format!("/{index}"), ..wrong }));
            }
        }
    }
    if errors.is_empty() { Ok(Value::Array(cleaned)) } else { Err(errors) }
}

fn url(value: &Value) -> Result<Value, Vec<Wrong>> {
    let text =
        value.as_str().filter(|text| text.len() <= 2048).and_then(|text| reqwest::Url::parse(text).ok());
    match text {
        Some(url) if url.scheme() == "https" && url.has_host() => Ok(json!(url.as_str())),
        _ => Err(wrong("must be an https url of at most 2048 characters")),
    }
}

/// Takes out markup and control characters (SEC-2): nothing that is left opens a tag. Line breaks and
/// tabs stay, "<3" stays. Linear in the text, whatever it holds.
pub fn clean(text: &str) -> String {
    let mut kept: Vec<char> = Vec::with_capacity(text.len());
    let mut open: Vec<usize> = Vec::new();
    for letter in text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')) {
        if letter == '>'
            && let Some(start) = open.pop()
        {
            kept.truncate(start);
            continue;
        }
        if opens_a_tag(kept.last().copied(), letter) {
            open.push(kept.len() - 1);
        }
        kept.push(letter);
    }
    // Tags that were never closed lose their bracket; from the right, so that none moves up to open another.
    let mut rest: Vec<char> = Vec::with_capacity(kept.len());
    for letter in kept.into_iter().rev() {
        if !rest.last().is_some_and(|next| opens_a_tag(Some(letter), *next)) {
            rest.push(letter);
        }
    }
    rest.iter().rev().collect::<String>().trim().to_owned()
}

fn opens_a_tag(before: Option<char>, letter: char) -> bool {
    before == Some('<') && (letter.is_ascii_alphabetic() || matches!(letter, '/' | '!' | '?'))
}

/// The JSON schema of a shape (OpenAPI 3.1).
pub fn schema(shape: Shape) -> Value {
    let properties: Map<String, Value> =
        shape.iter().map(|field| (field.name.to_owned(), field_schema(field))).collect();
    let required: Vec<&str> = shape.iter().filter(|field| field.required).map(|field| field.name).collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties, "required": required})
}

fn field_schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        FieldKind::Text { max } => json!({"type": ["string", "null"], "maxLength": max}),
        FieldKind::Word(words) => {
            let words: Vec<Value> = words.iter().map(|word| json!(word)).chain([Value::Null]).collect();
            json!({"type": ["string", "null"], "enum": words})
        }
        FieldKind::Texts { max, each_max } => {
            json!({"type": ["array", "null"], "maxItems": max, "items": {"type": "string", "maxLength": each_max}})
        }
        FieldKind::Number { min, max } => json!({"type": ["number", "null"], "minimum": min, "maximum": max}),
        FieldKind::Integer { min, max } => {
            json!({"type": ["integer", "null"], "minimum": min, "maximum": max})
        }
        FieldKind::Flag => json!({"type": ["boolean", "null"]}),
        FieldKind::Url => json!({"type": ["string", "null"], "format": "uri", "maxLength": 2048}),
        FieldKind::Object { .. } => json!({"type": ["object", "null"]}),
        FieldKind::Bodies { max, each } => {
            json!({"type": "array", "minItems": 1, "maxItems": max, "items": schema(each)})
        }
    };
    schema["description"] = json!(field.doc);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: Shape = &[
        field("mode", FieldKind::Word(&["a", "b"]), "").required(),
        field("title", FieldKind::Text { max: 5 }, ""),
        field("tags", FieldKind::Texts { max: 2, each_max: 3 }, ""),
        field("weight", FieldKind::Number { min: 0.0, max: 1.0 }, ""),
        field("metadata", FieldKind::Object { bytes_max: 20 }, ""),
    ];

    fn errors(body: &str) -> Vec<(String, String)> {
        let errors = read(SHAPE, body.as_bytes()).expect_err("wrong");
        errors.into_iter().map(|error| (error.pointer, error.detail)).collect()
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let body = r#"{"title":"too long","tags":[5,"long!"],"weight":2,"wieght":1,"metadata":{"a":"bbbbbbbbbbbbbbbb"}}"#;
        let pointers: Vec<String> = errors(body).into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(pointers, ["/metadata", "/tags/0", "/tags/1", "/title", "/weight", "/wieght", "/mode"]);
    }

    #[test]
    fn what_is_no_object_is_refused_as_a_whole() {
        assert_eq!(errors("[1]")[0], (String::new(), "must be a JSON object".into()));
        assert!(errors("{").first().is_some_and(|(_, detail)| detail.starts_with("not JSON")));
    }

    #[test]
    fn null_and_empty_texts_are_as_if_left_out() {
        let body = read(SHAPE, br#"{"mode":"a","title":"  ","tags":null}"#).expect("fits");
        assert_eq!(body.text("title"), None);
        assert_eq!(body.canonical(), r#"{"mode":"a"}"#);
    }

    #[test]
    fn numbers_stay_what_they_are_to_the_last_digit() {
        let text = r#"{"metadata":{"a":1.1110000000000001e+67},"mode":"a"}"#;
        const WIDE: Shape = &[SHAPE[0], field("metadata", FieldKind::Object { bytes_max: 80 }, "")];
        assert_eq!(read(WIDE, text.as_bytes()).expect("fits").canonical(), text);
    }

    #[test]
    fn an_object_is_as_large_as_it_is_read_and_not_nested_without_end() {
        const KEPT: Shape = &[field("metadata", FieldKind::Object { bytes_max: 1_000 }, "")];
        let refused = |metadata: String| {
            let errors = read(KEPT, format!(r#"{{"metadata":{metadata}}}"#).as_bytes()).err();
            errors.map(|errors| errors[0].detail.clone()).unwrap_or_default()
        };
        // Postgres writes each of them with 309 digits.
        assert!(refused(format!(r#"{{"a":[{}]}}"#, ["1e308"; 4].join(","))).contains("all of their digits"));
        assert_eq!(refused(format!(r#"{{"a":[{}]}}"#, ["1e308"; 3].join(","))), "");
        let nested = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(refused(nested(32)).contains("32 levels"));
        assert_eq!(refused(nested(31)), "");
    }

    #[test]
    fn an_object_is_refused_for_a_nul_and_not_for_the_words_for_one() {
        let metadata = |text: &str| format!(r#"{{"mode":"a","metadata":{{"a":"{text}"}}}}"#);
        assert_eq!(errors(&metadata("\\u0000"))[0].0, "/metadata");
        assert!(read(SHAPE, metadata(r"\\u0000").as_bytes()).is_ok());
    }

    #[test]
    fn markup_is_taken_out_and_hearts_stay() {
        assert_eq!(clean("I <3 <b>you</b> & <script src=x>me"), "I <3 you & me");
        assert_eq!(clean("<<b>script>alert"), "alert");
        assert_eq!(clean("a\u{0}b\r\nc\td"), "ab\nc\td");
    }

    proptest! {
        #[test]
        fn cleaning_again_changes_nothing(text in "[<>/!a\\PC]{0,60}") {
            let cleaned = clean(&text);
            prop_assert_eq!(clean(&cleaned), cleaned);
        }

        #[test]
        fn nothing_that_opens_a_tag_is_ever_left(text in "[<>/!a\\PC]{0,60}") {
            let cleaned = clean(&text);
            let opens = |pair: &[char]| pair[0] == '<' && (pair[1].is_ascii_alphabetic() || "/!?".contains(pair[1]));
            prop_assert!(!cleaned.chars().collect::<Vec<_>>().windows(2).any(opens), "{cleaned}");
        }
    }
}
