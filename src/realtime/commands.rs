//! What clients say in the protocol `songs.v1`, parsed (`protocol.md` 2, 3, 6). Pure: texts in, commands or what is
//! wrong with them out.

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Command {
    Hello(Hello),
    Sub {
        id: Option<u64>,
        #[serde(flatten)]
        sub: Sub,
    },
    Unsub {
        id: Option<u64>,
        ch: String,
    },
    Auth {
        id: Option<u64>,
        token: String,
    },
    Ping {
        id: Option<u64>,
    },
    Pong,
    /// Unknown words are ignored: a newer client may say them.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
pub struct Hello {
    pub id: Option<u64>,
    pub token: Option<String>,
    pub client: Option<String>,
    #[serde(default)]
    pub subs: Vec<Sub>,
}

#[derive(Debug, PartialEq, Deserialize)]
pub struct Sub {
    pub ch: String,
    #[serde(default, deserialize_with = "cursor")]
    pub since: Option<String>,
}

/// A bad cursor is never an error (`protocol.md` 3), whatever it is made of.
fn cursor<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Option::<Value>::deserialize(from)? {
        None => None,
        Some(Value::String(cursor)) => Some(cursor),
        Some(_) => Some(String::new()),
    })
}

/// A command that cannot be understood, with the id to answer to if that much can be read.
#[derive(Debug, PartialEq, Eq)]
pub struct BadCommand {
    pub id: Option<u64>,
    pub message: String,
}

/// What was said and not yet heeded: messages of one object, or of several on lines of their own. A line is read when it
/// is its turn, so that what waits behind a token takes up no more than it was sent as.
#[derive(Debug, Default)]
pub struct Commands {
    text: String,
    /// Where in it the next line begins.
    at: usize,
    /// A message with nothing in it came, which is a mistake as well.
    blank: bool,
}

impl Commands {
    pub fn say(&mut self, message: String) {
        if message.trim().is_empty() {
            self.blank = true;
        } else if self.text.is_empty() {
            self.text = message;
        } else {
            self.text.push('\n');
            self.text.push_str(&message);
        }
    }
}

impl Iterator for Commands {
    type Item = Result<Command, BadCommand>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.blank) {
            return Some(Err(BadCommand { id: None, message: what_is_wrong(None) }));
        }
        let rest = self.text[self.at..].trim_start();
        let Some(line) = rest.split('\n').next().filter(|line| !line.is_empty()) else {
            // A long message's room is not kept for a socket that is silent for hours.
            *self = Self::default();
            return None;
        };
        self.at = self.text.len() - rest.len() + line.len();
        Some(command(line.trim_end()))
    }
}

fn command(line: &str) -> Result<Command, BadCommand> {
    serde_json::from_str(line).map_err(|_| {
        let value = serde_json::from_str::<Value>(line);
        let id = value.as_ref().ok().and_then(|value| value["id"].as_u64());
        BadCommand { id, message: what_is_wrong(value.ok().as_ref()) }
    })
}

/// In words of this protocol. The parser's would be about this program's types.
fn what_is_wrong(value: Option<&Value>) -> String {
    let known = "hello, sub, unsub, auth, ping or pong";
    let Some(value) = value else { return format!("not JSON; a command is an object with `t`: {known}") };
    let expected = match value["t"].as_str() {
        Some("hello") => {
            "`token` and `client` are texts, `subs` is a list of objects with `ch` and maybe `since`"
        }
        Some("sub") => "it needs `ch`, a text, and may have `since`",
        Some("unsub") => "it needs `ch`, a text",
        Some("auth") => "it needs `token`, a text",
        Some("ping") => "it may have `id`, and nothing else is looked at",
        Some(_) | None => return format!("a command is an object with `t`: {known}"),
    };
    format!(
        "this {} cannot be read: {expected}; `id` is a whole number",
        value["t"].as_str().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(message: &str) -> Commands {
        let mut commands = Commands::default();
        commands.say(message.to_owned());
        commands
    }

    #[test]
    fn a_hello_says_who_what_and_since_when() {
        let text = r#"{"t":"hello","id":1,"token":"x","client":"web","subs":[{"ch":"me","since":"7.18442"}],"later":1}"#;
        let Some(Ok(Command::Hello(hello))) = commands(text).next() else { panic!() };
        assert_eq!(hello.token.as_deref(), Some("x"));
        assert_eq!(hello.subs, [Sub { ch: "me".into(), since: Some("7.18442".into()) }]);
    }

    #[test]
    fn several_commands_may_share_a_message_and_unknown_ones_are_known_as_such() {
        let text = "{\"t\":\"pong\"}\n\n{\"t\":\"sub\",\"id\":2,\"ch\":\"me\"}\n{\"t\":\"dance\",\"id\":3}\n";
        let read: Vec<_> = commands(text).map(Result::unwrap).collect();
        let sub = Command::Sub { id: Some(2), sub: Sub { ch: "me".into(), since: None } };
        assert_eq!(read, [Command::Pong, sub, Command::Unknown]);
    }

    #[test]
    fn what_is_said_meanwhile_comes_behind_what_waits_and_nothing_is_kept_of_what_was_heeded() {
        let mut said = commands("{\"t\":\"ping\",\"id\":1}\r\n  {\"t\":\"ping\",\"id\":2} \n\n");
        assert_eq!(said.next(), Some(Ok(Command::Ping { id: Some(1) })));
        said.say(r#"{"t":"ping","id":3}"#.to_owned());
        let rest: Vec<_> = said.by_ref().map(Result::unwrap).collect();
        assert_eq!(rest, [2, 3].map(|id| Command::Ping { id: Some(id) }));
        assert_eq!(said.text.capacity(), 0);
        said.say(" \n".to_owned());
        assert!(said.next().unwrap().is_err() && said.next().is_none(), "a blank message is one mistake");
    }

    #[test]
    fn what_cannot_be_read_is_answered_to_its_id() {
        let bad = |text: &str| commands(text).next().unwrap().unwrap_err();
        assert_eq!(bad(r#"{"t":"sub","id":4}"#).id, Some(4));
        assert_eq!(bad("[]").id, None);
        assert_eq!(bad("").id, None);
        assert!(bad(r#"{"t":"sub","id":4}"#).message.contains("`ch`"));
        for text in ["[]", "7", "{}", r#"{"id":4}"#, "sub me", ""] {
            let message = bad(text).message;
            assert!(message.contains("hello, sub, unsub, auth, ping or pong"), "{text}: {message}");
        }
        for text in [r#"{"t":"hello","subs":"me"}"#, r#"{"t":"ping","id":"x"}"#, r#"{"t":"auth","token":1}"#]
        {
            let message = bad(text).message;
            assert!(message.contains("cannot be read") && !message.contains("enum"), "{text}: {message}");
        }
    }
}
