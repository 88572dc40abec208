//! What a plan allows, at the very edges of minutes and days (CRED-3, CRED-4, CRED-5, CRED-6, PROV-13): the time that
//! counts is the one that a creation comes with.

use std::sync::Arc;
use std::time::Duration;

use songflight::credit::Credits;
use songflight::credit::plan::{Limits, Plan, Plans, Standing};
use songflight::store::births::Birth;
use songflight::store::journal::{Committed, Entry};
use songflight::store::row::NewSong;
use songflight::time::Time;

use super::life::Life;
use super::world::World;

/// 2025-12-21T12:00:00Z.
const NOON: Time = Time::from_millis(1_766_318_400_000);
const MIDNIGHT: Time = Time::from_millis(1_766_361_600_000);
const MS: Duration = Duration::from_millis(1);

const FREE: Limits = Limits { per_minute: 3, per_day: Some(10), concurrent: 1 };
const PREMIUM: Limits = Limits { per_minute: 30, per_day: None, concurrent: 10 };

async fn world(name: &str) -> World {
    let mut world = World::new(name).await;
    world.begin();
    world
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A song of this user's, wanted at this time, under the usual plans.
fn wanted(user: &str, at: Time) -> NewSong {
    let mut new = Life::new(user).without_key().birth();
    new.song.created_at = at;
    plans(&mut new, FREE);
    new
}

fn plans(new: &mut NewSong, free: Limits) {
    let plans = Plans { guest: free, free, pro: free, premium: PREMIUM, previews_per_day: 3 };
    new.terms.plans = Arc::new(plans);
}

fn preview(mut new: NewSong) -> NewSong {
    let mut wish = (*new.song.wish).clone();
    wish.preview = true;
    new.song.wish = Arc::new(wish);
    new.song.head.price = Credits::ZERO;
    new.song.cost = Credits::ZERO;
    new
}

async fn create(world: &World, new: NewSong) -> (Birth, Standing) {
    match world.journal.commit(Entry::Create(Box::new(new))).await {
        Ok(Committed::Birth { birth, standing }) => (birth, standing),
        other => panic!("{other:?}"),
    }
}

async fn taken(world: &World, new: NewSong) -> bool {
    matches!(create(world, new).await.0, Birth::Created { .. })
}

#[actix_web::test]
async fn the_fourth_of_a_minute_is_refused_and_the_next_is_taken_exactly_when_promised() {
    let world = world("fourth").await;
    for left in (0..3).rev() {
        let (birth, standing) = create(&world, wanted("mira", NOON)).await;
        assert!(matches!(birth, Birth::Created { .. }), "{birth:?}");
        assert_eq!((standing.left, standing.used_today), (left, 3 - left));
        assert_eq!(standing.full_at, NOON + seconds(20) * (3 - left));
    }
    let (birth, standing) = create(&world, wanted("mira", NOON + seconds(5))).await;
    assert_eq!((birth, standing.left), (Birth::TooFast, 0));
    assert_eq!(standing.next_at, NOON + seconds(20));
    assert!(!taken(&world, wanted("mira", standing.next_at - MS)).await);
    assert!(taken(&world, wanted("mira", standing.next_at)).await);
    // Whoever is refused is not counted; others are not touched.
    assert!(!taken(&world, wanted("mira", NOON + seconds(40) - MS)).await);
    assert!(taken(&world, wanted("mira", NOON + seconds(40))).await);
    assert!(taken(&world, wanted("otto", NOON)).await);
    assert_eq!(world.count("songs").await, 6);
    world.audit().await;
}

#[actix_web::test]
async fn after_a_minute_a_whole_minutes_worth_is_there_whatever_the_limit() {
    let world = world("whole_minute").await;
    for per_minute in [1, 7, 9, 31] {
        let user = format!("user-{per_minute}");
        let limits = Limits { per_minute, per_day: None, concurrent: 100 };
        for minute in 0..3 {
            let at = NOON + seconds(60) * minute;
            for expected in (0..per_minute).map(|_| true).chain([false]) {
                let mut new = wanted(&user, at);
                plans(&mut new, limits);
                assert_eq!(taken(&world, new).await, expected, "{per_minute} a minute, minute {minute}");
            }
        }
    }
}

#[actix_web::test]
async fn the_day_turns_at_midnight_also_for_whoever_was_not_there() {
    let world = world("midnight").await;
    for nth in 0..10 {
        assert!(taken(&world, wanted("mira", MIDNIGHT - seconds(600) + seconds(20) * nth)).await, "{nth}");
    }
    let (birth, standing) = create(&world, wanted("mira", MIDNIGHT - seconds(300))).await;
    assert_eq!((birth, standing.used_today), (Birth::DayUsedUp, 10));
    assert_eq!(create(&world, wanted("mira", MIDNIGHT - MS)).await.0, Birth::DayUsedUp);
    let (birth, standing) = create(&world, wanted("mira", MIDNIGHT)).await;
    assert!(matches!(birth, Birth::Created { .. }));
    assert_eq!(standing.used_today, 1);
    // A node whose clock is a little behind turns nothing back.
    let (birth, standing) = create(&world, wanted("mira", MIDNIGHT - MS)).await;
    assert!(matches!(birth, Birth::Created { .. }));
    assert_eq!(standing.used_today, 2);
    let (_, standing) = create(&world, wanted("mira", MIDNIGHT + seconds(9 * 86_400))).await;
    assert_eq!(standing.used_today, 1);
    world.audit().await;
}

#[actix_web::test]
async fn a_replay_costs_no_limit_and_a_refusal_leaves_no_key() {
    let world = world("replay").await;
    let with_key = |key: &str, content: u8, at| {
        let mut new = wanted("mira", at);
        new.idempotency_key = Some(key.to_owned());
        new.content_hash = [content; 32];
        new
    };
    let (first, _) = create(&world, with_key("one", 1, NOON)).await;
    let Birth::Created { song } = first else { panic!("{first:?}") };
    assert!(taken(&world, with_key("two", 2, NOON)).await && taken(&world, with_key("three", 3, NOON)).await);
    for _ in 0..5 {
        assert_eq!(create(&world, with_key("one", 1, NOON)).await.0, Birth::Replay { song });
    }
    assert_eq!(create(&world, with_key("one", 9, NOON)).await.0, Birth::KeyMismatch);
    assert_eq!(create(&world, with_key("four", 4, NOON)).await.0, Birth::TooFast);
    assert!(
        taken(&world, with_key("four", 5, NOON + seconds(20))).await,
        "other content: the key was not kept"
    );
    world.audit().await;
}

#[actix_web::test]
async fn the_same_again_within_five_seconds_is_the_same_song_while_it_is_under_way() {
    let world = world("twice").await;
    let same = |user: &str, at| NewSong { content_hash: [1; 32], ..wanted(user, at) };
    let (first, _) = create(&world, same("mira", NOON)).await;
    let Birth::Created { song } = first else { panic!("{first:?}") };
    let (again, standing) = create(&world, same("mira", NOON + seconds(5) - MS)).await;
    assert_eq!((again, standing.used_today), (Birth::Replay { song }, 1));
    assert!(taken(&world, same("otto", NOON)).await, "somebody else's is somebody else's");
    let mut keyed = same("mira", NOON + seconds(1));
    keyed.idempotency_key = Some("a key says that it is meant".to_owned());
    assert!(taken(&world, keyed).await);
    world
        .look
        .execute("update songs set created_at = created_at - interval '1 second' where user_id = 'mira'", &[])
        .await
        .unwrap();
    assert!(taken(&world, same("mira", NOON + seconds(5))).await, "five seconds are over");

    let (second, _) = create(&world, same("ida", NOON)).await;
    assert!(matches!(second, Birth::Created { .. }));
    world.look.execute("update songs set status = 'failed' where user_id = 'ida'", &[]).await.unwrap();
    assert!(taken(&world, same("ida", NOON + seconds(1))).await, "what has ended can be asked for again");
}

#[actix_web::test]
async fn whoever_does_not_want_to_wait_is_refused_when_the_plan_is_busy() {
    let world = world("busy").await;
    let refuse = |at| {
        let mut new = wanted("mira", at);
        new.terms.refuse_when_busy = true;
        new
    };
    assert!(taken(&world, refuse(NOON)).await);
    assert_eq!(create(&world, refuse(NOON)).await.0, Birth::TooManyAtOnce);
    assert!(taken(&world, wanted("mira", NOON)).await, "the other may wait");
    world.look.execute("update songs set status = 'complete'", &[]).await.unwrap();
    assert!(taken(&world, refuse(NOON)).await);
}

#[actix_web::test]
async fn previews_charge_nothing_and_have_a_days_limit_of_their_own() {
    let world = world("previews").await;
    for nth in 0..3 {
        let (birth, standing) = create(&world, preview(wanted("mira", NOON + seconds(20) * nth))).await;
        assert!(matches!(birth, Birth::Created { .. }), "{birth:?}");
        assert_eq!((standing.used_today, standing.previews_today), (0, nth + 1));
    }
    let later = NOON + seconds(3600);
    assert_eq!(create(&world, preview(wanted("mira", later))).await.0, Birth::PreviewsUsedUp);
    assert!(taken(&world, wanted("mira", later)).await);
    assert!(taken(&world, preview(wanted("mira", MIDNIGHT))).await);
    let sum = "select count(*) from credit_entries where reason = 'reserve'";
    assert_eq!(world.look.query_one(sum, &[]).await.unwrap().get::<_, i64>(0), 1);
    world.audit().await;
}

#[actix_web::test]
async fn the_tokens_plan_counts_else_the_profiles() {
    let world = world("plans").await;
    let named = |plan, at| {
        let mut new = wanted("mira", at);
        new.terms.plan = plan;
        new
    };
    for _ in 0..30 {
        let (birth, standing) = create(&world, named(Some(Plan::Premium), NOON)).await;
        assert!(matches!(birth, Birth::Created { .. }));
        assert_eq!(standing.plan, Plan::Premium);
    }
    assert_eq!(create(&world, named(Some(Plan::Premium), NOON)).await.0, Birth::TooFast);
    let later = NOON + seconds(3600);
    assert_eq!(create(&world, named(None, later)).await.0, Birth::DayUsedUp);
    world.look.execute("update profiles set plan = 'premium'", &[]).await.unwrap();
    let (birth, standing) = create(&world, named(None, later)).await;
    assert!(matches!(birth, Birth::Created { .. }));
    assert_eq!(standing.plan, Plan::Premium);
}
