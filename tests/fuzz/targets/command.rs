//! What clients say on the socket: messages of commands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use songflight::realtime::commands::{Command, Commands};
use songflight::realtime::frames::{Channel, Cursor};

fn same<T: std::str::FromStr + ToString + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{text}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Ok(message) = std::str::from_utf8(input) else { return };
    let mut count = 0;
    let mut commands = Commands::default();
    commands.say(message.to_owned());
    for command in commands {
        count += 1;
        let subs = match command {
            Ok(Command::Hello(hello)) => hello.subs,
            Ok(Command::Sub { sub, .. }) => vec![sub],
            Ok(_) => Vec::new(),
            Err(bad) => {
                assert!(!bad.message.is_empty() && bad.message.len() < 1000, "{}", bad.message);
                Vec::new()
            }
        };
        for sub in subs {
            same::<Channel>(&sub.ch);
            sub.since.iter().for_each(|since| same::<Cursor>(since));
        }
    }
    assert!(count > 0, "a message without an answer");
});
