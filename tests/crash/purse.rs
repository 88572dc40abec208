//! One purse and many hands while the program is killed again and again: it is never overdrawn, whatever was charged
//! and not given back was delivered, and one key is one song (CRED-2, CRED-5, SONG-11).
//!
//! `tests/it/race.rs` has the same without the kills.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use songflight::time::Clock;

use super::caller::Caller;
use super::dice::Dice;
use super::harness::person::id;
use super::harness::{Purse, Setup};
use super::provider::Provider;
use super::{every_song_ends, from_environment, kill_and_start_again, nothing_is_wrong, quick};

const CLIENTS: u64 = 64;
const HELD: i64 = 10_000;

#[actix_web::test]
async fn one_purse_is_never_overdrawn_however_often_the_program_is_killed() {
    let kills: u32 = from_environment("PURSE_KILLS").unwrap_or(20);
    let seed = from_environment("CRASH_SEED").unwrap_or_else(|| Clock.now().millis().unsigned_abs());
    println!("{kills} kills, CRASH_SEED={seed}");
    let begun = Clock.monotonic();
    let mut dice = Dice::new(seed);

    let provider = Provider::start(seed).await;
    let setup = quick(Setup::new(&provider.url()).await).set("credits.signup_grant", "10");
    let mut program = setup.start().await.program;
    let purse = Rc::new(Hands { seed, enough: Cell::new(false), seen: RefCell::default() });
    let caller = Caller::new(&program.url, "mira");
    let mut killing = dice.fork();
    let killed = async {
        for kill in 1..=kills {
            program = kill_and_start_again(program, &setup, &mut killing, kill, 2_000).await;
        }
        purse.enough.set(true);
        program
    };
    let hands = join_all((0..CLIENTS).map(|number| reach_in(&purse, &caller, number, dice.fork())));
    let (_program, _) = tokio::join!(killed, hands);

    provider.be_kind().await;
    every_song_ends(&setup).await;
    // Once more all of them at the same moment, until nothing is left that a song could be had for.
    let last = (0..CLIENTS).map(async |number| {
        let key = format!("last-{}", number / 2);
        take_turn(&purse, &caller, &key, &Turn::Wanted, &mut dice.clone()).await;
    });
    join_all(last).await;
    every_song_ends(&setup).await;
    let seen = purse.seen.take();
    let ordered: Vec<(String, String)> = seen.songs.into_iter().collect();
    let report = nothing_is_wrong(&setup, &provider, &ordered).await;
    let money = Purse::of(&setup.look().await, &caller.person.user).await;
    money.adds_up(HELD);
    assert!(money.credits < 1_000, "no song's worth of it is left: {money:?}");
    let took = Clock.monotonic().duration_since(begun).as_secs_f64();
    println!(
        "{kills} kills, {CLIENTS} clients, {report}; {} replays, {} cancels, {} times too little; {} charged, \
         {} refunded, {} delivered, {} left of {HELD}, {took:.0} s",
        seen.replays,
        seen.cancels,
        seen.refusals,
        money.charged,
        money.refunded,
        money.delivered,
        money.credits,
    );
}

/// What all of them share.
struct Hands {
    seed: u64,
    enough: Cell<bool>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    /// By idempotency key.
    songs: BTreeMap<String, String>,
    replays: u32,
    cancels: u32,
    refusals: u32,
}

/// What is done with a song once it is there.
enum Turn {
    /// It fails by itself, in this way, and what it cost comes back.
    Fails(&'static str),
    /// It is called off after a while.
    CalledOff,
    /// Its words are chosen, which costs more, and then it is called off.
    ChosenAndCalledOff,
    Wanted,
}

/// Turn by turn, the same as one's neighbour under the same key, each at their own pace.
async fn reach_in(hands: &Hands, mira: &Caller, number: u64, mut dice: Dice) {
    let pair = number / 2;
    for turn in 0_u64.. {
        if hands.enough.get() {
            return;
        }
        let mut both = Dice::new(hands.seed ^ (pair << 32 | turn));
        // Most of it comes back, so that the purse lasts.
        let kind = match both.next() % 100 {
            0..15 => Turn::Fails("moderation"),
            15..30 => Turn::Fails("provider_error"),
            30..94 => Turn::CalledOff,
            94..99 => Turn::ChosenAndCalledOff,
            _ => Turn::Wanted,
        };
        take_turn(hands, mira, &format!("{pair}-{turn}"), &kind, &mut dice).await;
    }
}

async fn take_turn(hands: &Hands, mira: &Caller, key: &str, turn: &Turn, dice: &mut Dice) {
    let (mode, words) = match turn {
        Turn::Fails(class) => ("music", format!("sim:fail={class}")),
        Turn::CalledOff => ("music", "sim:slow=1500ms".to_owned()),
        Turn::ChosenAndCalledOff => ("lyrics_first", "sim:slow=1500ms".to_owned()),
        Turn::Wanted => ("music", "about the sea".to_owned()),
    };
    let wish = json!({"mode": mode, "prompt": format!("song {key} {words}")});
    let answer = mira.create(key, &wish).await;
    match answer.status {
        200 | 202 => hands.given(key, answer.status == 200, id(&answer.body)),
        402 => {
            assert!(answer.body["available"].as_f64() < answer.body["required"].as_f64(), "{}", answer.text);
            hands.seen.borrow_mut().refusals += 1;
            // Somebody else's song has to fail first.
            return tokio::time::sleep(dice.millis(50, 400)).await;
        }
        _ => panic!("{}", answer.text),
    }
    let song = id(&answer.body);
    match turn {
        Turn::Fails(_) | Turn::Wanted => {}
        Turn::CalledOff => call_off(hands, mira, &song, dice).await,
        Turn::ChosenAndCalledOff => {
            until_past_its_words(mira, &song).await;
            // Already chosen or cancelled by the neighbour, or too little is left.
            let answer = mira.tell(&song, "lyrics", &json!({"variant_index": 0})).await;
            assert!(matches!(answer.status, 200 | 402 | 409), "{}", answer.text);
            call_off(hands, mira, &song, dice).await;
        }
    }
    let credits = mira.get("/v1/me").await.body["credits"].as_f64();
    assert!(credits.is_some_and(|credits| (0.0..=10.0).contains(&credits)), "{credits:?}");
}

/// Most often before anything is there; now and then with a first clip, which is paid for, or too late.
async fn call_off(hands: &Hands, mira: &Caller, song: &str, dice: &mut Dice) {
    let pause = if dice.hit(0.1) { dice.millis(800, 1_600) } else { dice.millis(0, 600) };
    tokio::time::sleep(pause).await;
    let answer = mira.tell(song, "cancel", &json!({})).await;
    assert!(matches!(answer.status, 200 | 409), "{}", answer.text);
    hands.seen.borrow_mut().cancels += u32::from(answer.status == 200);
}

async fn until_past_its_words(mira: &Caller, song: &str) {
    loop {
        let answer: Value = mira.song(song).await.expect(200);
        if !matches!(answer["status"].as_str(), Some("pending" | "generating_lyrics")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Hands {
    /// Whoever comes with a key gets its one song.
    fn given(&self, key: &str, replayed: bool, song: String) {
        let mut seen = self.seen.borrow_mut();
        seen.replays += u32::from(replayed);
        let known = seen.songs.entry(key.to_owned()).or_insert_with(|| song.clone()).clone();
        assert_eq!(known, song, "one key, one song: {key}");
    }
}
