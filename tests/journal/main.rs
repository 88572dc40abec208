//! The journal against a real Postgres that fails it: bad rows, lost answers, lost ownership, and a database
//! that was empty when its statements were first planned (`durability.md` sections 2 to 4).
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers as well")]
#![allow(clippy::print_stdout, reason = "a test tells what it measured")]
#![allow(unreachable_pub, reason = "what the files of a test share is for this binary alone")]

#[path = "../it/harness/audit.rs"]
mod audit;
mod audits;
mod letters;
mod life;
mod limits;
mod orders;
mod parity;
mod pool;
mod tls;
mod unreadable;
mod wire;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use songflight::credit::Credits;
use songflight::credit::plan::Plan;
use songflight::id::{CallKey, SongId, TaskId, UserId, fresh};
use songflight::song::event::{Event, NewAddition};
use songflight::song::parts::{News, Stage, Work};
use songflight::song::phase::Song;
use songflight::store::births::Birth;
use songflight::store::journal::{CommitError, Committed, Entry, Settings};
use songflight::store::row::{InboxRow, NewSong};
use songflight::store::{claims, moves, nodes};
use songflight::time::Clock;

use life::Life;
use world::World;

#[actix_web::test]
async fn a_row_that_postgres_refuses_is_put_aside_and_its_batch_goes_on() {
    let mut world = World::new("bad_row").await;
    let mut songs: Vec<Life> = (0..40).map(|number| Life::new(&format!("user-{}", number % 7))).collect();
    world.begin();
    world.create_all(&songs).await;

    let mut steps: Vec<_> = songs.iter_mut().map(|song| song.next(0)).collect();
    // No text in Postgres holds this character.
    steps[13].progress = serde_json::value::to_raw_value(&json!({"error": "\u{0}"})).unwrap();
    let bad = steps[13].clone();
    let steps = steps.into_iter().map(|step| Entry::Step(Box::new(step), None));
    let (world, answers) = world.in_one_batch(steps).await;

    for (number, answer) in answers.iter().enumerate() {
        match number {
            13 => assert!(matches!(answer, Err(CommitError::Refused(_))), "{answer:?}"),
            _ => assert_eq!(*answer, Ok(Committed::Moved)),
        }
    }
    let callback = InboxRow {
        provider: "suno",
        task: bad.head.0,
        call: 0,
        attempt: 0,
        body: b"told".to_vec().into(),
        outcome: "applied",
    };
    for callback in [Some(callback), None] {
        let again = world.journal.commit(Entry::Step(Box::new(bad.clone()), callback)).await;
        assert!(matches!(again, Err(CommitError::Refused(_))), "{again:?}");
    }
    let sql = "select kind, song_id, times, context #>> '{callback,body}' from failed_jobs";
    let aside = world.look.query(sql, &[]).await.unwrap();
    assert_eq!((aside.len(), aside[0].get::<_, i32>(2)), (1, 3), "the same again is the same letter");
    assert_eq!(aside[0].get::<_, Option<uuid::Uuid>>(1), Some(songs[13].song.id.0));
    assert_eq!(aside[0].get::<_, Option<&str>>(3), Some("dG9sZA=="), "with the callback that came once");
    assert_eq!(world.version(&songs[13]).await, 1);
    world.look.execute("delete from failed_jobs", &[]).await.unwrap();
    world.audit().await;
}

#[actix_web::test]
async fn a_creation_is_one_round_trip_whatever_comes_of_it() {
    let (mut world, wire) = World::behind_a_wire("round_trips").await;
    world.begin();
    // The connection is made, and its statements are prepared, for the first.
    world.create_all(&[Life::new("alice")]).await;
    let newcomer = Life::new("bob").birth();
    let known = Life::new("alice").birth();
    let replay = NewSong { song: Life::new("alice").song, ..known.clone() };
    let mut short = Life::new("carol").birth();
    short.terms.grant = Credits::ZERO;
    for (new, wanted) in [(newcomer, "Created"), (known, "Created"), (replay, "Replay"), (short, "Short")] {
        let before = wire.round_trips();
        let committed = world.journal.commit(Entry::Create(Box::new(new))).await;
        assert!(format!("{committed:?}").contains(&format!("birth: {wanted}")), "{committed:?}");
        assert_eq!(wire.round_trips() - before, 1, "{wanted}");
    }
    world.audit().await;
}

#[actix_web::test]
async fn a_step_that_was_decided_on_an_older_version_changes_nothing() {
    let mut world = World::new("stale").await;
    let mut song = Life::new("alice");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    let (first, second) = (song.clone().next(0), song.next(0));
    assert_eq!(world.step(first).await, Ok(Committed::Moved));
    assert_eq!(world.step(second).await, Ok(Committed::Stale));
    assert_eq!(world.version(&song).await, 2);
    world.audit().await;
}

#[actix_web::test]
async fn after_a_lost_answer_no_other_step_is_taken_for_ones_own() {
    let mut world = World::new("read_back").await;
    let mut song = Life::new("alice");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    for act in 0..Life::ACTS {
        assert_eq!(world.step(song.next(act)).await, Ok(Committed::Moved));
    }
    let session = world.session().await;
    let node = world.journal.node();
    // Neither has a run, both have the same progress and number.
    let (viewed, selected) = (song.clone().told(&Event::Viewed), song.told(&favourite()));
    assert!(viewed.run.is_none() && viewed.seq == selected.seq);
    assert_eq!(viewed.progress.get(), selected.progress.get());
    assert_eq!(world.step(selected.clone()).await, Ok(Committed::Moved));
    assert!(session.read_back(&[(0, &viewed)], node).await.unwrap().is_empty());
    let found = session.read_back(&[(7, &selected)], node).await.unwrap();
    assert_eq!((found.len(), found[0].0, found[0].1.told.is_some()), (1, 7, true));

    // Of a task beside the song only its own row tells.
    let task = TaskId(songflight::id::fresh());
    assert_eq!(world.step(song.told(&video(&song.song, task))).await, Ok(Committed::Moved));
    let (sooner, later) = (song.clone().told(&submitting(task, 5)), song.told(&submitting(task, 6)));
    assert!(sooner.event.is_none() && sooner.run.is_none());
    assert_eq!(world.step(later.clone()).await, Ok(Committed::Moved));
    assert!(session.read_back(&[(0, &sooner)], node).await.unwrap().is_empty());
    assert_eq!(session.read_back(&[(0, &later)], node).await.unwrap().len(), 1);
}

#[actix_web::test]
async fn a_call_that_was_taken_before_its_name_was_known_is_paid_for_once() {
    let mut world = World::new("unnamed").await;
    let mut song = Life::new("alice");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    assert_eq!(world.step(song.next(0)).await, Ok(Committed::Moved));
    let call = CallKey { task: song.song.head.task, call: 0, attempt: 0 };
    let told = News::Clips(Stage::Text, Vec::new());
    let unnamed = song.told(&Event::News { call, provider_task: None, news: told });
    assert_eq!(world.step(unnamed).await, Ok(Committed::Moved));
    assert_eq!(world.count("provider_costs").await, 1);
    assert_eq!(world.step(song.next(1)).await, Ok(Committed::Moved));
    assert_eq!((world.count("provider_refs").await, world.count("provider_costs").await), (2, 1));
    // However often an answer without a name is told of.
    let superseded = CallKey { attempt: 7, ..call };
    for _ in 0..2 {
        let late = song.told(&Event::Answered { call: superseded, news: News::Working });
        assert_eq!(world.step(late).await, Ok(Committed::Moved));
    }
    assert_eq!(world.count("provider_costs").await, 2);
    world.audit().await;
}

fn favourite() -> Event {
    Event::Selected { variant_number: 1, selected: true }
}

fn video(song: &Song, task: TaskId) -> Event {
    video_for(song, task, Credits::ZERO)
}

fn paid_video(song: &Song) -> Event {
    video_for(song, TaskId(fresh()), Credits::from_thousandths(100))
}

fn video_for(song: &Song, task: TaskId, price: Credits) -> Event {
    let of = json!({ "song": song.id, "variant_number": 1, "provider": "suno" });
    let work = Work::Video { of: serde_json::from_value(of).unwrap() };
    Event::Asked { addition: Box::new(NewAddition { task, provider: "suno".to_owned(), work, price }) }
}

fn submitting(task: TaskId, seconds: u64) -> Event {
    let not_after = Clock.now() + Duration::from_secs(seconds);
    let call = CallKey { task, call: 0, attempt: 0 };
    Event::Submitting { call, not_after, settled_by: not_after, takes: None, synchronous: false }
}

#[actix_web::test]
async fn of_two_steps_for_one_version_in_one_batch_only_one_is_written() {
    let mut world = World::new("twins").await;
    let mut song = Life::new("alice");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;

    let mut silent = song.clone().next(0);
    silent.event = None;
    let twins = [silent, song.next(0)].map(|step| Entry::Step(Box::new(step), None));
    let (world, answers) = world.in_one_batch(twins).await;

    let moved = answers.iter().filter(|answer| **answer == Ok(Committed::Moved)).count();
    let stale = answers.iter().filter(|answer| **answer == Ok(Committed::Stale)).count();
    assert_eq!((moved, stale), (1, 1), "{answers:?}");
    assert_eq!(world.version(&song).await, 2);
}

/// All of a batch's steps move or none does, and then all but those that cannot.
#[actix_web::test]
async fn a_step_that_cannot_move_takes_nothing_of_its_batch_along() {
    let mut world = World::new("along").await;
    let mut songs: Vec<Life> = (0..4).map(|_| Life::new("alice")).collect();
    world.begin();
    world.create_all(&songs).await;
    let stale = songs[1].clone().next(0);
    assert_eq!(world.step(songs[1].next(0)).await, Ok(Committed::Moved));

    let callback = InboxRow {
        provider: "suno",
        task: songs[1].song.head.task.0,
        call: 0,
        attempt: 0,
        body: b"told".to_vec().into(),
        outcome: "applied",
    };
    let step = |row| Entry::Step(Box::new(row), None);
    let entries = vec![
        step(songs[0].next(0)),
        Entry::Step(Box::new(stale), Some(callback)),
        Entry::Create(Box::new(Life::new("alice").birth())),
        step(songs[2].next(0)),
        step(songs[3].next(0)),
    ];
    let (world, answers) = world.in_one_batch(entries).await;
    let told: Vec<&str> = answers
        .iter()
        .map(|answer| match answer {
            Ok(Committed::Moved) => "moved",
            Ok(Committed::Stale) => "stale",
            Ok(Committed::Birth { birth: Birth::Created { .. }, .. }) => "created",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["moved", "stale", "created", "moved", "moved"]);
    assert_eq!(world.count("callback_inbox").await, 1, "what came is kept all the same");
    world.audit().await;
}

/// Nothing deletes a profile, but an operator's hand may.
/// A panic is a fault of ours, which must not end all writing: only who waited is told that nobody knows.
#[actix_web::test]
async fn a_writer_that_panics_writes_on() {
    let mut world = World::new("panic").await;
    let mut song = Life::new("alice");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    for act in 0..Life::ACTS {
        assert_eq!(world.step(song.next(act)).await, Ok(Committed::Moved));
    }
    let sql = "select pg_get_functiondef('reserve_credits'::regproc)";
    let as_it_was: String = world.look.query_one(sql, &[]).await.unwrap().get(0);
    let (head, _) = as_it_was.split_once("AS $").unwrap();
    // An answer that this program does not know.
    world.look.batch_execute(&format!("{head} as $$ begin end $$")).await.unwrap();
    let paid = song.clone().told(&paid_video(&song.song));
    assert_eq!(world.step(paid.clone()).await, Err(CommitError::Away));
    assert!(world.journal.take_doubt());
    assert_eq!(world.step(song.clone().told(&Event::Viewed)).await, Ok(Committed::Moved));
    world.look.batch_execute(&as_it_was).await.unwrap();
    assert_eq!(world.step(paid).await, Ok(Committed::Stale));
    let _ = song.told(&Event::Viewed);
    assert_eq!(world.step(song.told(&paid_video(&song.song))).await, Ok(Committed::Moved));
    world.audit().await;
}

#[actix_web::test]
async fn of_whom_the_profile_is_gone_nobody_else_is_charged() {
    let mut world = World::new("no_profile").await;
    let mut songs = [Life::new("alice"), Life::new("bob")];
    world.begin();
    world.create_all(&songs).await;
    world.look.execute("delete from profiles where user_id = 'alice'", &[]).await.unwrap();
    // Through the session that knows them both.
    let births = ["alice", "bob"].map(|user| Entry::Create(Box::new(Life::new(user).birth())));
    let answers = join_all(births.into_iter().map(|birth| world.journal.commit(birth))).await;
    for answer in &answers {
        let Ok(Committed::Birth { birth, .. }) = answer else { panic!("{answer:?}") };
        assert!(matches!(birth, Birth::Created { .. }), "who has none begins anew: {birth:?}");
    }
    for song in &mut songs {
        assert_eq!(world.step(song.next(0)).await, Ok(Committed::Moved));
    }
    let bob = "select u, (select sum(amount) from credit_entries c where c.user_id = p.user_id)::bigint - credits,
                      (select count(*) from song_events e where e.user_id = p.user_id),
                      (select count(*) from credit_entries c where c.user_id = p.user_id and reason = 'reserve')
                 from profiles p where user_id = 'bob'";
    let bob = world.look.query_one(bob, &[]).await.unwrap();
    let numbers = [0, 1, 2, 3].map(|column| bob.get::<_, i64>(column));
    assert_eq!(numbers, [2, 0, 2, 2], "newest event, what the books are out by, events, charges");

    // A step that cannot be told of is put aside by itself.
    world.look.execute("delete from profiles where user_id = 'alice'", &[]).await.unwrap();
    let steps = [songs[0].next(1), songs[1].next(1)].map(|row| Entry::Step(Box::new(row), None));
    let (_world, answers) = world.in_one_batch(steps).await;
    assert!(matches!(answers[0], Err(CommitError::Refused(_))), "{answers:?}");
    assert_eq!(answers[1], Ok(Committed::Moved));
}

/// What a guest paid for goes back to the guest, who is told of nothing any more (CRED-7).
#[actix_web::test]
async fn a_song_that_was_claimed_is_settled_with_who_paid_for_it() {
    let mut world = World::new("payer").await;
    let mut songs = [Life::new("guest:1"), Life::new("bob")];
    world.begin();
    world.create_all(&songs).await;
    world.create_all(&[Life::new("alice")]).await;
    for song in &mut songs {
        for act in 0..2 {
            assert_eq!(world.step(song.next(act)).await, Ok(Committed::Moved));
        }
    }
    let claim = songs[0].claimed("alice");
    assert_eq!(world.journal.commit(Entry::Claim(Box::new(claim))).await, Ok(Committed::Moved));

    // With somebody else's in one batch.
    let steps = songs.each_mut().map(|song| Entry::Step(Box::new(song.next(3)), None));
    let (world, answers) = world.in_one_batch(steps).await;
    assert_eq!(answers, [Ok(Committed::Moved), Ok(Committed::Moved)]);
    let settled = "select user_id from credit_entries where reason = 'capture' order by user_id";
    let settled: Vec<String> =
        world.look.query(settled, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(settled, ["bob", "guest:1"]);
    world.audit().await;
}

#[actix_web::test]
async fn what_one_user_creates_in_one_batch_is_decided_one_after_the_other() {
    let mut world = World::new("rounds").await;
    world.begin();
    let births: Vec<NewSong> = (0..4)
        .map(|number| {
            let mut birth = Life::new("alice").birth();
            // Enough for three of them.
            birth.terms.grant = Credits::from_thousandths(3_500);
            birth.idempotency_key = (number != 3).then(|| format!("key {}", number.min(1)));
            birth
        })
        .collect();
    let again = NewSong { content_hash: births[1].content_hash, ..births[2].clone() };
    let another = births[2].clone();
    let all = [births[0].clone(), births[1].clone(), again, another, births[3].clone()];
    let last = Life::new("alice").birth();
    let all = all.into_iter().chain([NewSong { terms: births[0].terms.clone(), ..last.clone() }, last]);
    let (world, answers) = world.in_one_batch(all.map(|birth| Entry::Create(Box::new(birth)))).await;
    let told: Vec<String> = answers
        .into_iter()
        .map(|answer| match answer {
            Ok(Committed::Birth { birth: Birth::Replay { song }, .. }) if song == births[1].song.id => {
                "the second".to_owned()
            }
            Ok(Committed::Birth { birth, .. }) => format!("{birth:?}").split(' ').next().unwrap().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["Created", "Created", "the second", "KeyMismatch", "Created", "Short", "Short"]);
    world.audit().await;
}

#[actix_web::test]
async fn what_nobody_waits_for_any_more_is_not_written() {
    let mut world = World::new("given_up").await;
    let mut song = Life::new("alice");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;

    let (mut world, journal) = world.pause().await;
    let step = song.clone().next(0);
    {
        let mut given_up = Box::pin(journal.commit(Entry::Step(Box::new(step), None)));
        // Handed in, and then nobody listens.
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
    }
    world.begin();
    // A later entry of the same lane is answered, so the earlier one had its turn.
    assert_eq!(world.step(song.next(0)).await, Ok(Committed::Moved));
    assert_eq!(world.version(&song).await, 2);
    world.audit().await;
}

#[actix_web::test]
async fn a_node_that_was_taken_over_changes_nothing_more() {
    let mut world = World::new("fenced").await;
    let mut song = Life::new("alice");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    world.look.execute("update nodes set lease_until = now() - interval '1 second'", &[]).await.unwrap();
    let client = world.pool.get().await.unwrap();
    let other =
        nodes::enter(&client, songflight::id::fresh(), "other", Duration::from_secs(60)).await.unwrap();
    assert_eq!(nodes::fence_the_dead(&client, other).await.unwrap(), 1);

    assert_eq!(world.step(song.next(0)).await, Err(CommitError::Fenced));
    let newcomer = Entry::Create(Box::new(Life::new("bob").birth()));
    assert_eq!(world.journal.commit(newcomer).await, Err(CommitError::Fenced));
    assert_eq!(world.version(&song).await, 1);
    assert_eq!(world.told().len(), 1);
    world.audit().await;
}

/// Whether the commit happened is not known when its answer is lost: it is read back, and done exactly once.
#[actix_web::test]
async fn every_step_is_written_once_however_often_the_answer_is_lost() {
    const SONGS: usize = 60;
    let (mut world, wire) = World::behind_a_wire("lost_answers").await;
    let mut songs: Vec<Life> = (0..SONGS)
        .map(|number| match number % 2 {
            0 => Life::new(&format!("user-{}", number % 9)),
            _ => Life::new(&format!("user-{}", number % 9)).without_key(),
        })
        .collect();
    world.begin();
    wire.cut_next_batch();
    world.create_all(&songs).await;
    for act in 0..Life::ACTS {
        wire.cut_next_batch();
        let steps: Vec<_> = songs.iter_mut().map(|song| song.next(act)).collect();
        let answers = join_all(steps.into_iter().map(|step| world.step(step))).await;
        assert!(answers.iter().all(|answer| *answer == Ok(Committed::Moved)), "{act}: {answers:?}");
    }
    let cuts = wire.cuts();
    assert_eq!((cuts.answers, cuts.requests), (4, 1), "each of the five batches was cut once");

    for song in &songs {
        assert_eq!(world.version(song).await, song.version);
    }
    // Watchers were told of each event once, and in order.
    let mut told = world.told();
    let of = |told: &[(String, i64)], user: &str| -> Vec<i64> {
        told.iter().filter(|(who, _)| who == user).map(|(_, u)| *u).collect()
    };
    for user in (0..9).map(|number| format!("user-{number}")) {
        let numbers = of(&told, &user);
        assert!(numbers.iter().copied().eq(1..=numbers.len() as i64), "{user}: {numbers:?}");
    }
    told.dedup();
    assert_eq!(told.len() as i64, world.count("song_events").await);
    world.audit().await;
    println!("{SONGS} songs, {} steps; {cuts:?}", SONGS * Life::ACTS);
}

/// A guest's songs at work: what is left of them is written, charged and told as the account's (CRED-7).
#[actix_web::test]
async fn a_song_moves_to_its_new_owner_once_however_often_the_answer_is_lost() {
    let (mut world, wire) = World::behind_a_wire("claims").await;
    let mut songs: Vec<Life> = (0..40).map(|number| Life::new(&format!("guest:{}", number % 5))).collect();
    world.begin();
    world.create_all(&songs).await;
    let account = UserId::trusted("account");
    let client = world.pool.get().await.unwrap();
    for guest in (0..5).map(|number| UserId::trusted(&format!("guest:{number}"))) {
        let begun = claims::begin(&client, &guest, &account, Credits::ZERO).await;
        assert_eq!(begun.unwrap(), Some(Plan::Free));
        let other = claims::begin(&client, &guest, &UserId::trusted("other"), Credits::ZERO).await;
        assert_eq!(other.unwrap(), None, "the first one has it");
    }
    for act in 0..4 {
        wire.cut_next_batch();
        let entries: Vec<Entry> = songs
            .iter_mut()
            .map(|song| match act {
                2 => Entry::Claim(Box::new(song.claimed("account"))),
                3 => Entry::Step(Box::new(song.next(3)), None),
                act => Entry::Step(Box::new(song.next(act)), None),
            })
            .collect();
        let answers = join_all(entries.into_iter().map(|entry| world.journal.commit(entry))).await;
        assert!(answers.iter().all(|answer| *answer == Ok(Committed::Moved)), "{act}: {answers:?}");
    }
    let cuts = wire.cuts();
    assert_eq!(cuts.answers + cuts.requests, 4, "each of the four batches was cut once");
    for song in &songs {
        assert_eq!(world.version(song).await, song.version);
    }
    let told = world.told();
    for user in (0..5).map(|number| format!("guest:{number}")).chain(["account".to_owned()]) {
        let numbers: Vec<i64> = told.iter().filter(|(who, _)| *who == user).map(|(_, u)| *u).collect();
        assert!(numbers.iter().copied().eq(1..=numbers.len() as i64), "{user}: {numbers:?}");
        assert_eq!(numbers.len(), if user == "account" { 80 } else { 24 }, "{user}");
    }
    assert_eq!(told.len() as i64, world.count("song_events").await);
    let left = "select count(*) from songs where user_id <> 'account'";
    assert_eq!(world.look.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    world.audit().await;
}

#[actix_web::test]
async fn of_a_claim_and_a_step_for_one_version_only_one_is_written() {
    let mut world = World::new("claim_twins").await;
    let mut song = Life::new("guest:a");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    let client = world.pool.get().await.unwrap();
    let (guest, account) = (UserId::trusted("guest:a"), UserId::trusted("account"));
    claims::begin(&client, &guest, &account, Credits::ZERO).await.unwrap();

    let twin = song.clone().next(0);
    let entries = [Entry::Step(Box::new(twin), None), Entry::Claim(Box::new(song.claimed("account")))];
    let (world, answers) = world.in_one_batch(entries).await;
    let moved = answers.iter().filter(|answer| **answer == Ok(Committed::Moved)).count();
    assert_eq!(moved, 1, "{answers:?}");
    assert_eq!(world.version(&song).await, 2);
    world.audit().await;
}

#[actix_web::test]
async fn what_a_dead_node_left_is_taken_page_by_page_each_song_once() {
    let mut world = World::new("pages").await;
    let mut songs: Vec<Life> = (0..5).map(|number| Life::new(&format!("user-{number}"))).collect();
    songs.sort_by_key(|song| song.song.id);
    world.begin();
    world.create_all(&songs).await;
    for song in &mut songs {
        assert_eq!(world.step(song.next(0)).await, Ok(Committed::Moved));
    }
    let beside = songs[2].song.id;
    world.work_beside(beside).await;
    let client = world.pool.get().await.unwrap();
    let second = nodes::enter(&client, fresh(), "second", Duration::from_secs(600)).await.unwrap();
    assert_eq!(nodes::fence_the_dead(&client, second).await.unwrap(), 0, "the first lives");
    nodes::end_other_leases(&client, second).await.unwrap();
    assert_eq!(nodes::fence_the_dead(&client, second).await.unwrap(), 1);

    let (mut heads, mut others, mut from, mut pages) = (Vec::new(), BTreeSet::new(), None, 0);
    loop {
        let taken = nodes::take_over(&client, second, from, 2, 20).await.unwrap();
        heads.extend(taken.heads);
        others.extend(taken.others);
        (from, pages) = (taken.next, pages + 1);
        if from.is_none() {
            break;
        }
    }
    assert!(pages >= 3, "{pages}");
    heads.retain(|head| !others.contains(&head.song));
    heads.sort_by_key(|head| head.song);
    assert_eq!(others, BTreeSet::from([beside]), "to be loaded whole");
    let alone: Vec<&Life> = songs.iter().filter(|song| song.song.id != beside).collect();
    assert_eq!(heads.len(), alone.len());
    for (head, song) in heads.iter().zip(alone) {
        let song = &song.song;
        assert_eq!((head.song, &head.user, head.task), (song.id, &song.user, song.head.task));
        assert_eq!(Some(&head.run), song.phase.run());
    }
    let nothing = nodes::take_over(&client, second, None, 2, 20).await.unwrap();
    assert!(nothing.heads.is_empty() && nothing.others.is_empty());
}

async fn inherited(world: &World, limit: i64) -> BTreeSet<SongId> {
    let client = world.pool.get().await.unwrap();
    let (mut songs, mut from) = (BTreeSet::new(), None);
    loop {
        let taken = nodes::inherited(&client, world.journal.node(), from, limit).await.unwrap();
        for song in taken.heads.iter().map(|head| head.song).chain(taken.others) {
            assert!(songs.insert(song), "{song} came twice");
        }
        from = taken.next;
        if from.is_none() {
            return songs;
        }
    }
}

async fn taken_over(world: &World) -> BTreeSet<SongId> {
    let client = world.pool.get().await.unwrap();
    let taken = nodes::take_over(&client, world.journal.node(), None, 100, 20).await.unwrap();
    taken.heads.iter().map(|head| head.song).chain(taken.others).collect()
}

#[actix_web::test]
async fn a_process_goes_on_as_the_node_before_it_whose_late_commits_are_refused() {
    let mut world = World::new("succession").await;
    let mut songs: Vec<Life> = (0..5).map(|number| Life::new(&format!("user-{number}"))).collect();
    world.begin();
    world.create_all(&songs).await;
    for song in &mut songs {
        assert_eq!(world.step(song.next(0)).await, Ok(Committed::Moved));
    }
    let all: BTreeSet<SongId> = songs.iter().map(|song| song.song.id).collect();
    world.work_beside(songs[2].song.id).await;
    let (before, (key, rows)) = (world.journal.clone(), (world.journal.node(), world.rows_of_tasks().await));

    let world = world.succeeded().await;
    let node = world.journal.node();
    world.resumed().await;
    assert_eq!((node.id, node.epoch, node.inherits), (key.id, key.epoch + 1, Some(key.epoch)));
    assert_eq!(inherited(&world, 3).await, all);
    assert_eq!(taken_over(&world).await, BTreeSet::new(), "they are its own");
    assert_eq!(world.rows_of_tasks().await, rows, "nothing was written");
    let mut late = songs[0].clone();
    assert_eq!(before.commit(Entry::Step(Box::new(late.next(1)), None)).await, Err(CommitError::Fenced));

    // What moves is the new process's, and a node beside it takes nothing.
    let client = world.pool.get().await.unwrap();
    assert_eq!(world.step(songs[0].next(1)).await, Ok(Committed::Moved));
    let running = nodes::running(&client, node).await.unwrap();
    assert_eq!(running.into_iter().collect::<BTreeSet<_>>(), all);
    let other = nodes::enter(&client, fresh(), "other", Duration::from_secs(600)).await.unwrap();
    let taken = nodes::take_over(&client, other, None, 100, 20).await.unwrap();
    assert!(taken.heads.is_empty() && taken.others.is_empty(), "{taken:?}");
    assert!(!nodes::claim(&client, other, songs[1].song.id).await.unwrap());

    // What two processes in a row ended over without a move is under suspicion: it is counted (OPS-1).
    let world = world.succeeded().await;
    world.resumed().await;
    let moved = BTreeSet::from([songs[0].song.id]);
    assert_eq!(inherited(&world, 100).await, moved);
    assert_eq!(taken_over(&world).await, &all - &moved);
    let counted = "select count(distinct song_id) from tasks where activations = 1";
    assert_eq!(world.look.query_one(counted, &[]).await.unwrap().get::<_, i64>(0), 4);
    let world = world.succeeded().await;
    assert_eq!(inherited(&world, 100).await, BTreeSet::new(), "one has not moved again, four were counted");
    assert_eq!(taken_over(&world).await, all);
    for song in &mut songs[1..] {
        assert_eq!(world.step(song.next(1)).await, Ok(Committed::Moved));
    }
    world.look.execute("delete from tasks where beside", &[]).await.unwrap();
    world.audit().await;
}

/// Where they part, nobody would look after what runs beside.
#[actix_web::test]
async fn what_runs_beside_a_song_is_taken_by_whoever_has_the_song() {
    let mut world = World::new("beside").await;
    let mut song = Life::new("mira");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    world.work_beside(song.song.id).await;
    let mut world = world.succeeded().await;
    world.resumed().await;
    // The head moves and what is beside it does not: of two processes in a row, the second one has only the head.
    assert_eq!(world.step(song.next(0)).await, Ok(Committed::Moved));
    world = world.succeeded().await;
    let client = world.pool.get().await.unwrap();
    let other = nodes::enter(&client, fresh(), "other", Duration::from_secs(600)).await.unwrap();
    let taken = nodes::take_over(&client, other, None, 100, 20).await.unwrap();
    assert!(taken.heads.is_empty() && taken.others.is_empty(), "{taken:?}");
    assert!(!nodes::claim(&client, other, song.song.id).await.unwrap());
    assert_eq!(taken_over(&world).await, BTreeSet::from([song.song.id]));
    // Once nobody lives who has the head, all of it goes.
    nodes::end_other_leases(&client, other).await.unwrap();
    assert!(nodes::claim(&client, other, song.song.id).await.unwrap());
    let owners = "select count(*), count(distinct owner) from tasks where owner = $1 and epoch = $2";
    let row = world.look.query_one(owners, &[&other.id, &other.epoch]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));
    nodes::leave(&client, other).await.unwrap();
    assert!(!nodes::claim(&client, other, song.song.id).await.unwrap(), "it may write nothing more");
}

#[actix_web::test]
async fn a_process_that_had_nothing_in_hand_yet_loses_nothing_for_the_next_one() {
    let mut world = World::new("in_hand").await;
    let song = Life::new("mira");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    let client = world.pool.get().await.unwrap();
    nodes::leave(&client, world.journal.node()).await.unwrap();
    drop(client);
    let all = BTreeSet::from([song.song.id]);
    let counted = "select sum(activations)::bigint from tasks";
    for _ in 0..3 {
        world = world.succeeded().await;
        assert_eq!(inherited(&world, 100).await, all);
    }
    world.resumed().await;
    let world = world.succeeded().await;
    assert_eq!(inherited(&world, 100).await, BTreeSet::new());
    assert_eq!(taken_over(&world).await, all);
    assert_eq!(world.look.query_one(counted, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[actix_web::test]
async fn who_left_on_request_is_gone_on_for_and_who_was_fenced_is_not() {
    let mut world = World::new("left").await;
    let mut song = Life::new("mira");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    for _ in 0..3 {
        let client = world.pool.get().await.unwrap();
        nodes::leave(&client, world.journal.node()).await.unwrap();
        drop(client);
        world = world.succeeded().await;
        let songs = &inherited(&world, 100).await | &taken_over(&world).await;
        world.resumed().await;
        assert_eq!(songs, BTreeSet::from([song.song.id]));
    }
    let counted = "select sum(activations)::bigint from tasks";
    assert_eq!(world.look.query_one(counted, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert_eq!(world.step(song.next(0)).await, Ok(Committed::Moved));

    let client = world.pool.get().await.unwrap();
    let other = nodes::enter(&client, fresh(), "other", Duration::from_secs(600)).await.unwrap();
    nodes::end_other_leases(&client, other).await.unwrap();
    assert_eq!(nodes::fence_the_dead(&client, other).await.unwrap(), 1);
    let former = world.journal.node().id;
    let again = nodes::succeed(&client, former, "test", Duration::from_secs(600)).await.unwrap();
    assert_eq!(again, None);
    let unknown = nodes::succeed(&client, fresh(), "test", Duration::from_secs(600)).await.unwrap();
    assert_eq!(unknown, None);
    world.audit().await;
}

/// A batch of any kind of steps: what does not prepare would be put aside as refused.
#[actix_web::test]
async fn every_statement_that_a_batch_may_need_is_understood() {
    let world = World::new("parts").await;
    let statements = moves::statements();
    assert_eq!(statements.len(), 161);
    for statement in statements {
        world.look.prepare(&statement).await.unwrap_or_else(|error| panic!("{error:?} in {statement}"));
    }
}

/// While nodes are replaced one by one, some still run the version before (V11).
#[actix_web::test]
async fn the_version_before_writes_and_compares_events_in_its_own_way() {
    let mut world = World::new("before").await;
    let song = Life::new("mira");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    let same =
        "select e.set = e.set::jsonb and not e.set = '{}'::jsonb from song_events e where song_id = $1";
    let row = world.look.query_one(same, &[&song.song.id.0]).await.unwrap();
    assert!(row.get::<_, bool>(0));
    let write = "insert into song_events (at, song_id, seq, user_id, u, kind, set)
                 values (now(), $1, 99, 'mira', 99, 'ready', $2::jsonb)";
    world.look.execute(write, &[&song.song.id.0, &serde_json::json!({"title": "x"})]).await.unwrap();
    let create = "select * from create_songs($1, $2, $3, $4::text[], $5::uuid[], $6::text[], $7::bytea[], $8::text[],
        $9::jsonb[], $10::jsonb[], $11::text[], $12::text[], $13::timestamptz[], $14::uuid[], $15::text[], $16::text[],
        $17::bigint[], $18::jsonb[], $19::jsonb[], $20::jsonb[], $21::text[], $22::bigint[], $23::boolean[])";
    world.look.prepare(create).await.unwrap();
}

/// What happened must not be lost; what is asked for can be asked again.
#[actix_web::test]
async fn where_the_queue_is_full_steps_stand_in_line_and_creations_are_refused() {
    let mut world = World::new("full").await;
    let mut songs: Vec<Life> = (0..20).map(|number| Life::new(&format!("user-{number}"))).collect();
    world.begin();
    world.create_all(&songs).await;

    let (mut world, journal) = world.pause().await;
    let full = Settings::default().queue_max;
    let callback = |task: usize| InboxRow {
        provider: "suno",
        task: uuid::Uuid::from_u128(task as u128),
        call: 0,
        attempt: 0,
        body: b"told".to_vec().into(),
        outcome: "no such task",
    };
    let filling = join_all((0..full).map(|task| journal.commit(Entry::Callback(callback(task)))));
    let in_line = join_all(
        songs.iter_mut().map(|song| journal.commit_in_line(Entry::Step(Box::new(song.next(0)), None))),
    );
    let late = async {
        let new = Life::new("too late").birth();
        let refused = journal.commit(Entry::Create(Box::new(new))).await;
        world.begin();
        refused
    };
    let (filled, moved, refused) = tokio::join!(biased; filling, in_line, late);
    assert!(filled.iter().all(|answer| *answer == Ok(Committed::Kept)));
    assert!(moved.iter().all(|answer| *answer == Ok(Committed::Moved)), "{moved:?}");
    assert_eq!(refused, Err(CommitError::Busy));
    world.audit().await;
}

/// A plan that was made while the tables were empty once made every commit read all of them.
#[actix_web::test]
async fn the_rate_does_not_sink_while_an_empty_database_fills() {
    const BATCH: usize = 1_000;
    const BATCHES: usize = 12;
    let mut world = World::new("rate").await;
    world.begin();
    let clock = Clock;
    let mut rates = Vec::new();
    for _ in 0..BATCHES {
        let mut songs: Vec<Life> = (0..BATCH).map(|number| Life::new(&format!("user-{number}"))).collect();
        let started = clock.monotonic();
        world.create_all(&songs).await;
        let created = clock.monotonic();
        for act in 0..Life::ACTS {
            let steps: Vec<_> = songs.iter_mut().map(|song| song.next(act)).collect();
            let answers = join_all(steps.into_iter().map(|step| world.step(step))).await;
            assert!(answers.iter().all(|answer| *answer == Ok(Committed::Moved)));
        }
        let per_second = |from, to: std::time::Instant, n| n as f64 / to.duration_since(from).as_secs_f64();
        rates.push((
            per_second(started, created, BATCH),
            per_second(created, clock.monotonic(), Life::ACTS * BATCH),
        ));
    }
    let told: Vec<String> = rates.iter().map(|(new, moved)| format!("{new:.0}/{moved:.0}")).collect();
    println!("songs created / steps per second: {}", told.join(" "));
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    for of in [|rate: &(f64, f64)| rate.0, |rate: &(f64, f64)| rate.1] {
        let (first, last) =
            (rates[..4].iter().map(of).collect(), rates[BATCHES - 4..].iter().map(of).collect());
        assert!(middle(last) > middle(first) / 4.0, "it sinks: {}", told.join(" "));
    }
    world.audit().await;
}

/// A plan that was made while there were few once joined them by reading all of them for every commit.
#[actix_web::test]
async fn a_commit_reads_only_the_people_it_is_about() {
    const SONGS: usize = 15;
    let mut world = World::new("people").await;
    world.begin();
    let clock = Clock;
    let mut times = Vec::new();
    for others in [0, 200_000_i32] {
        let people = "insert into profiles (user_id) select 'other-' || n from generate_series(1, $1) n";
        world.look.execute(people, &[&others]).await.unwrap();
        let (mut creates, mut steps) = (Vec::new(), Vec::new());
        for number in 0..SONGS {
            let mut song = Life::new(&format!("user-{number}"));
            let started = clock.monotonic();
            world.create_all(std::slice::from_ref(&song)).await;
            let created = clock.monotonic();
            for act in 0..Life::ACTS {
                assert_eq!(world.step(song.next(act)).await, Ok(Committed::Moved));
            }
            creates.push(created.duration_since(started));
            steps.push(clock.monotonic().duration_since(created));
        }
        let middle = |mut all: Vec<std::time::Duration>| {
            all.sort();
            all[SONGS / 2]
        };
        times.push((middle(creates), middle(steps)));
    }
    println!("a creation and all its steps among few people, and among many: {times:?}");
    let (few, many) = (times[0], times[1]);
    // A disk may be ten times slower a moment later; reading everybody takes longer than that.
    let slack = std::time::Duration::from_millis(10);
    assert!(many.0 < few.0 * 4 + slack && many.1 < few.1 * 4 + slack, "{times:?}");
}
