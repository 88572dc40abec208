//! The words in a prompt that tell the simulator what to do with it: `sim:fail=moderation@2`,
//! `sim:lose`, `sim:twice`, `sim:slow=20s`. For people who try things; tests use `POST /control`.

use std::time::Duration;

use super::behaviour::{FailureClass, read_duration};

/// A task made slower than this would outlive every deadline there is.
const SLOW_MAX: Duration = Duration::from_secs(3600);

/// What the words of one submission ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Script {
    pub(super) fail: Option<Fail>,
    /// No callback is sent: only a poll finds the result.
    pub(super) lose: bool,
    /// Every callback comes twice.
    pub(super) twice: bool,
    /// How long the music takes.
    pub(super) slow: Option<Duration>,
}

/// `sim:fail=<class>`, or `sim:fail=<class>@<times>` for only the first so many submissions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fail {
    pub(super) class: FailureClass,
    pub(super) times: Option<u32>,
}

impl Script {
    /// Unknown words are left alone: a prompt is a text first.
    pub(super) fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut script = Self::default();
        for text in texts {
            words(text).for_each(|(_, word)| script.take(word));
        }
        script
    }

    fn take(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name.to_ascii_lowercase().as_str() {
            "lose" => self.lose = true,
            "twice" => self.twice = true,
            "slow" => self.slow = read_duration(value).map(|slow| slow.min(SLOW_MAX)).or(self.slow),
            "fail" => self.fail = read_fail(value).or(self.fail),
            _ => {}
        }
    }

    /// The words that are to hold for the music as well when they came with the lyrics' prompt. They
    /// are written under the lyrics, which is all of the prompt that the music call is given.
    pub(super) fn note(&self) -> Option<String> {
        let mut words = Vec::new();
        words.extend(self.lose.then(|| String::from("sim:lose")));
        words.extend(self.twice.then(|| String::from("sim:twice")));
        words.extend(self.slow.map(|slow| format!("sim:slow={}ms", slow.as_millis())));
        (!words.is_empty()).then(|| format!("[{}]", words.join(" ")))
    }
}

/// A text without the words for the simulator.
pub(super) fn without_words(text: &str) -> String {
    let mut left = text.to_owned();
    for (start, word) in words(text).collect::<Vec<_>>().into_iter().rev() {
        left.replace_range(start..start + "sim:".len() + word.len(), "");
    }
    left
}

/// Each `sim:<word>` of a text: where it starts, and the part after the colon.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let found = text.as_bytes()[from..].windows(4).position(|four| four.eq_ignore_ascii_case(b"sim:"))?;
        let start = from + found;
        let rest = &text[start + 4..];
        let ends = |letter: char| !(letter.is_ascii_alphanumeric() || "=_@-.".contains(letter));
        let word = rest[..rest.find(ends).unwrap_or(rest.len())].trim_end_matches('.');
        from = start + 4 + word.len();
        Some((start, word))
    })
}

fn read_fail(value: &str) -> Option<Fail> {
    let (class, times) = match value.split_once('@') {
        Some((class, times)) => (class, Some(times.parse().ok()?)),
        None => (value, None),
    };
    Some(Fail { class: FailureClass::read(class)?, times })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_anywhere_in_any_of_the_texts() {
        let script = Script::read(["A song, sim:twice. About rain", "jazz (SIM:slow=250ms)", "x sim:lose"]);
        let expected = Script { fail: None, lose: true, twice: true, slow: Some(Duration::from_millis(250)) };
        assert_eq!(script, expected);
    }

    #[test]
    fn a_failure_may_be_counted() {
        let fail = |text| Script::read([text]).fail;
        assert_eq!(fail("sim:fail=moderation"), Some(Fail { class: FailureClass::Moderation, times: None }));
        let twice = Fail { class: FailureClass::ProviderError, times: Some(2) };
        assert_eq!(fail("sim:fail=provider_error@2, please"), Some(twice));
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        let text = "sim: sim:dance sim:fail=joy sim:slow=soon simsala sim:fail=timeout@x äsim:ö";
        assert_eq!(Script::read([text]), Script::default());
    }

    #[test]
    fn the_words_do_not_become_part_of_the_song() {
        assert_eq!(without_words("rain sim:lose on tin sim:slow=2m"), "rain  on tin ");
        assert_eq!(without_words("ünder sim:twice"), "ünder ");
        assert_eq!(without_words("sim:sim:lose"), ":lose");
    }

    #[test]
    fn a_note_says_the_same_as_the_words_it_came_from() {
        let script = Script::read(["sim:slow=2s sim:twice"]);
        assert_eq!(Script::read([script.note().unwrap().as_str()]), script);
        assert_eq!(Script::default().note(), None);
    }
}
