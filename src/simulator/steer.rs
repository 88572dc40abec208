//! Reads what `POST /control` is given, key by key, so that a mistake is answered with the key and
//! what it takes. Values that are `null` or absent change nothing.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::VOICES;
use super::behaviour::{Behaviour, Dialect, Down, FailShare, FailureClass, Latency, RateLimit};

/// An hour: longer than every deadline.
const MS_MAX: u64 = 3_600_000;
const RETRIES_MAX: usize = 10;

/// A key that is not known, or a value it does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) allowed: String,
}

type Steered = Result<(), Wrong>;

/// Merges `change` into `behaviour`.
///
/// # Errors
/// [`Wrong`] names the first key at fault; `behaviour` may have taken others, so give it a copy.
pub(super) fn merge(behaviour: &mut Behaviour, change: &Value) -> Steered {
    for (key, value) in object("(the body)", change)? {
        if !value.is_null() {
            set(behaviour, key, value)?;
        }
    }
    Ok(())
}

fn set(behaviour: &mut Behaviour, key: &str, value: &Value) -> Steered {
    match key {
        "latency" => return set_latency(&mut behaviour.latency, value),
        "loss" => behaviour.loss = share(key, value)?,
        "duplicate" => behaviour.duplicate = share(key, value)?,
        "reorder" => behaviour.reorder = truth(key, value)?,
        "fail" => return set_fail(&mut behaviour.fail, value),
        "http_500" => behaviour.http_500 = share(key, value)?,
        "rate_limit" => behaviour.rate_limit = rate_limit(key, value)?,
        "callbacks" => behaviour.callbacks = truth(key, value)?,
        "seed" => behaviour.seed = value.as_u64().ok_or_else(|| wrong(key, "a whole number from 0"))?,
        "answer_delay_ms" => behaviour.answer_delay_ms = millis(key, value)?,
        "drop_answer" => behaviour.drop_answer = share(key, value)?,
        "down" => behaviour.down = down(key, value)?,
        "webhook_secret" => behaviour.webhook_secret = secret(key, value)?,
        "dialect" => behaviour.dialect = dialect(key, value)?,
        "callback_retry_ms" => behaviour.callback_retry_ms = retries(key, value)?,
        _ => {
            return Err(wrong(
                key,
                "latency, loss, duplicate, reorder, fail, http_500, rate_limit, callbacks, seed, \
                 answer_delay_ms, drop_answer, down, webhook_secret, dialect, callback_retry_ms",
            ));
        }
    }
    Ok(())
}

fn set_latency(latency: &mut Latency, value: &Value) -> Steered {
    for (key, value) in object("latency", value)? {
        match key.as_str() {
            _ if value.is_null() => {}
            "lyrics_ms" => latency.lyrics_ms = bounds("latency.lyrics_ms", value)?,
            "music_ms" => latency.music_ms = bounds("latency.music_ms", value)?,
            _ => return Err(wrong(&format!("latency.{key}"), "lyrics_ms, music_ms")),
        }
    }
    Ok(())
}

fn set_fail(fail: &mut Option<FailShare>, value: &Value) -> Steered {
    let fields = object("fail", value)?;
    let mut class = fail.map(|fail| fail.class);
    let mut p = fail.map_or(1.0, |fail| fail.p);
    for (key, value) in fields {
        match key.as_str() {
            _ if value.is_null() => {}
            "class" => {
                class = Some(
                    value
                        .as_str()
                        .and_then(FailureClass::read)
                        .ok_or_else(|| wrong("fail.class", FailureClass::NAMES))?,
                );
            }
            "p" => p = share("fail.p", value)?,
            _ => return Err(wrong(&format!("fail.{key}"), "class, p")),
        }
    }
    let class = class.ok_or_else(|| wrong("fail.class", FailureClass::NAMES))?;
    *fail = Some(FailShare { class, p });
    Ok(())
}

fn object<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Wrong> {
    value.as_object().ok_or_else(|| wrong(key, "a JSON object"))
}

fn truth(key: &str, value: &Value) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| wrong(key, "true or false"))
}

fn down(key: &str, value: &Value) -> Result<Down, Wrong> {
    let name = |value: &Value| Some(VOICES.iter().find(|voice| value == voice.name)?.name.to_owned());
    let names = || value.as_array()?.iter().map(name).collect::<Option<Vec<_>>>().map(Down::These);
    value.as_bool().map(Down::All).or_else(names).ok_or_else(|| {
        let known = VOICES.map(|voice| voice.name).join(", ");
        wrong(key, &format!("true, false, or a list of these: {known}"))
    })
}

/// An empty one takes it away, since `null` changes nothing.
fn secret(key: &str, value: &Value) -> Result<Option<String>, Wrong> {
    let secret = value.as_str().ok_or_else(|| wrong(key, "a text"))?;
    Ok(Some(secret.to_owned()).filter(|secret| !secret.is_empty()))
}

fn dialect(key: &str, value: &Value) -> Result<Dialect, Wrong> {
    Dialect::deserialize(value).map_err(|_| wrong(key, "sunoapi, kie"))
}

fn share(key: &str, value: &Value) -> Result<f64, Wrong> {
    let share = value.as_f64().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| wrong(key, "a number from 0 to 1"))
}

fn millis(key: &str, value: &Value) -> Result<u64, Wrong> {
    let millis = value.as_u64().filter(|millis| *millis <= MS_MAX);
    millis.ok_or_else(|| wrong(key, "milliseconds, 0 to 3600000"))
}

fn bounds(key: &str, value: &Value) -> Result<[u64; 2], Wrong> {
    let refuse = || wrong(key, "[least, most] in milliseconds, each 0 to 3600000, least first");
    let [low, high] = value.as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(refuse());
    };
    let (low, high) = (millis(key, low).map_err(|_| refuse())?, millis(key, high).map_err(|_| refuse())?);
    if low <= high { Ok([low, high]) } else { Err(refuse()) }
}

fn retries(key: &str, value: &Value) -> Result<Vec<u64>, Wrong> {
    let waits = value.as_array().filter(|waits| waits.len() <= RETRIES_MAX);
    let waits = waits.ok_or_else(|| wrong(key, "a list of at most 10 waits in milliseconds"))?;
    waits.iter().map(|wait| millis(key, wait)).collect()
}

/// Since `null` resets nothing, a limit is taken away with `"off"`.
fn rate_limit(key: &str, value: &Value) -> Result<Option<RateLimit>, Wrong> {
    match value.as_str() {
        Some("off") => Ok(None),
        text => {
            let limit = text.and_then(RateLimit::read);
            limit.map(Some).ok_or_else(|| wrong(key, "a text such as \"20/10s\", or \"off\""))
        }
    }
}

fn wrong(key: &str, allowed: &str) -> Wrong {
    Wrong { key: key.to_owned(), allowed: allowed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain() -> Behaviour {
        Behaviour::new(Latency::default(), 1)
    }

    fn after(change: Value) -> Result<Behaviour, Wrong> {
        let mut behaviour = plain();
        merge(&mut behaviour, &change).map(|()| behaviour)
    }

    #[test]
    fn every_documented_key_is_taken_and_shown() {
        let change = json!({"latency":{"lyrics_ms":[200,400],"music_ms":[800,1500]},"loss":0.1,
            "duplicate":0.2,"reorder":true,"fail":{"class":"moderation","p":0.05},"http_500":0.02,
            "rate_limit":"20/10s","callbacks":false,"seed":7,"answer_delay_ms":50,"drop_answer":0.05,
            "down":true,"dialect":"kie","callback_retry_ms":[1,2]});
        assert_eq!(serde_json::to_value(after(change.clone()).unwrap()).unwrap(), change);
    }

    #[test]
    fn null_and_absent_values_change_nothing() {
        assert_eq!(after(json!({"loss":null,"latency":{"music_ms":null}})).unwrap(), plain());
        let shown = serde_json::to_value(plain()).unwrap();
        assert_eq!(after(shown).unwrap(), plain());
    }

    #[test]
    fn a_half_given_value_keeps_its_other_half() {
        let mut behaviour = after(json!({"fail":{"class":"timeout","p":0.5}})).unwrap();
        merge(&mut behaviour, &json!({"fail":{"p":0.0},"latency":{"music_ms":[1,2]}})).unwrap();
        assert_eq!(behaviour.fail, Some(FailShare { class: FailureClass::Timeout, p: 0.0 }));
        assert_eq!(behaviour.latency.lyrics_ms, Latency::default().lyrics_ms);
    }

    #[test]
    fn a_limit_is_taken_away_with_off() {
        let mut behaviour = after(json!({"rate_limit":"3/1s"})).unwrap();
        merge(&mut behaviour, &json!({"rate_limit":"off"})).unwrap();
        assert_eq!(behaviour.rate_limit, None);
    }

    #[test]
    fn single_providers_can_be_down() {
        let down = after(json!({"down":["suno"]})).unwrap().down;
        assert!(down.covers("suno") && !down.covers("another"));
        assert!(!after(json!({"down":[]})).unwrap().down.covers("suno"));
    }

    #[test]
    fn a_secret_is_set_and_taken_away_and_never_shown() {
        let mut behaviour = after(json!({"webhook_secret":"between us"})).unwrap();
        assert_eq!(behaviour.webhook_secret.as_deref(), Some("between us"));
        assert!(!serde_json::to_string(&behaviour).unwrap().contains("between us"));
        merge(&mut behaviour, &json!({"webhook_secret":""})).unwrap();
        assert_eq!(behaviour, plain());
    }

    #[test]
    fn a_mistake_names_its_key() {
        for (change, key) in [
            (json!([]), "(the body)"),
            (json!({"lost":1}), "lost"),
            (json!({"loss":1.5}), "loss"),
            (json!({"reorder":"yes"}), "reorder"),
            (json!({"latency":{"music_ms":[5,1]}}), "latency.music_ms"),
            (json!({"latency":{"video_ms":[1,5]}}), "latency.video_ms"),
            (json!({"fail":{"p":0.5}}), "fail.class"),
            (json!({"fail":{"class":"joy"}}), "fail.class"),
            (json!({"rate_limit":"many"}), "rate_limit"),
            (json!({"seed":-1}), "seed"),
            (json!({"down":["nobody"]}), "down"),
            (json!({"dialect":"suno"}), "dialect"),
            (json!({"webhook_secret":7}), "webhook_secret"),
            (json!({"callback_retry_ms":[1,"x"]}), "callback_retry_ms"),
        ] {
            assert_eq!(after(change).unwrap_err().key, key);
        }
    }
}
